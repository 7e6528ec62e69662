"""Stage ``measure_reliability``: a run's drift measured against the noise of its circuits, from scores by fold."""

from pathlib import Path

import numpy as np

from circuitdrift import stage
from circuitdrift.circuits.score_file import ScoreFile, read_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.fold_circuits import features_of_circuits
from circuitdrift.drift.reliability import FoldScores
from circuitdrift.drift.reliability_table import Resampling, tabulate_reliability
from circuitdrift.drift.series import DriftError
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table


def main(
    scores: list[Path], reliability: Path, choice: Selection, half_splits: int, exchanges: int, provenance: Provenance
) -> None:
    """Compare a run's checkpoints on disjoint halves of the prompts.

    Args:
        scores: score files of the run's checkpoints in order, the base model's first.
        reliability: output.
        choice: the study's selection. Scores alone do not determine a ``minimal`` circuit; in its place, top circuits
            of ``fraction`` are compared.
        half_splits: random half-splits that a similarity is averaged over.
        exchanges: exchanges of before and after behind a p-value.
        provenance: origin of the output.

    Raises:
        DriftError: the files are of different graphs, or of different prompts.
    """
    files = [read_scores(path) for path in scores]
    for file in files:
        if file.graph != files[0].graph:
            raise DriftError(
                f"{files[0].path} is of {files[0].graph} but {file.path} of {file.graph}; take the scores of one model"
            )
    checkpoints = {file.checkpoint: _fold_scores(file) for file in files}
    compared = Selection(fraction=choice.fraction) if choice.selection == "minimal" else choice
    describe = features_of_circuits(files[0].graph, compared)
    table = tabulate_reliability(checkpoints, describe, Resampling(half_splits, exchanges))
    write_table(reliability, table, "reliability", provenance)


def _fold_scores(file: ScoreFile) -> FoldScores:
    """The scores of the graph's edges by fold, in float64."""
    return FoldScores(file.by_fold[:, file.graph.edge_mask].double().numpy(), np.array(file.fold_sizes))


if __name__ == "__main__":
    stage.run(main)
