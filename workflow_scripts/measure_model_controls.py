"""Measure how far circuits lie apart by another wording of the prompts, and those of untrained models."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.circuits.score_file import ScoreFile, read_scores
from circuitdrift.circuits.selection import determined_by_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.fold_circuits import features_of_circuits, fold_scores
from circuitdrift.drift.model_controls import tabulate_model_controls
from circuitdrift.drift.reliability_table import Resampling
from circuitdrift.drift.series import DriftError
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table


def main(
    base_scores: Path,
    reworded_scores: Path | None,
    untrained_scores: list[Path],
    model_controls: Path,
    choice: Selection,
    half_splits: int,
    exchanges: int,
    provenance: Provenance,
) -> None:
    """Compare the base model with itself in the second wording and with untrained models, and these with one another.

    Args:
        base_scores: scores of the base model.
        reworded_scores: its scores on the same examples in the second wording; None for a task without one.
        untrained_scores: scores of the untrained models of seeds 0, 1 and so on.
        model_controls: output.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction``.
        half_splits: random half-splits that a similarity is averaged over.
        exchanges: exchanges of the two sides behind a p-value.
        provenance: origin of the output.

    Raises:
        DriftError: the files are of different graphs, or of different prompts.
    """
    base = read_scores(base_scores)
    reworded = _of_the_same_graph(base, reworded_scores) if reworded_scores else None
    untrained = [_of_the_same_graph(base, path) for path in untrained_scores]
    table = tabulate_model_controls(
        fold_scores(base),
        fold_scores(reworded) if reworded else None,
        [fold_scores(file) for file in untrained],
        features_of_circuits(base.graph, determined_by_scores(choice)),
        Resampling(half_splits, exchanges),
    )
    write_table(model_controls, table, "model_controls", provenance)


def _of_the_same_graph(base: ScoreFile, path: Path) -> ScoreFile:
    file = read_scores(path)
    if file.graph != base.graph:
        raise DriftError(f"{base.path} is of {base.graph} but {path} of {file.graph}; take the scores of one model")
    return file


if __name__ == "__main__":
    stage.run(main)
