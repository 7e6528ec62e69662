"""Measure how alike the circuits of untrained models are over disjoint splits of the prompts."""

from circuitdrift import stage

from pathlib import Path

import pandas as pd

from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import determined_by_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.fold_circuits import check_one_graph, features_of_circuits, fold_scores
from circuitdrift.drift.robustness import tabulate_robustness
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table


def main(
    scores: list[Path],
    untrained_robustness: Path,
    choice: Selection,
    disjoint_splits: int,
    provenance: Provenance,
) -> None:
    """Compare the circuits of each untrained model from disjoint splits.

    Args:
        scores: score files of the untrained models of seeds 0, 1 and so on.
        untrained_robustness: output.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction``.
        disjoint_splits: disjoint groups of the prompts.
        provenance: origin of the output.

    Raises:
        DriftError: the files are of different graphs.
    """
    files = [read_scores(path) for path in scores]
    check_one_graph(files)
    describe = features_of_circuits(files[0].graph, determined_by_scores(choice))
    frames = [
        tabulate_robustness(fold_scores(file), None, 0, disjoint_splits, describe).assign(untrained_seed=seed)
        for seed, file in enumerate(files)
    ]
    write_table(untrained_robustness, pd.concat(frames, ignore_index=True), "untrained_robustness", provenance)


if __name__ == "__main__":
    stage.run(main)
