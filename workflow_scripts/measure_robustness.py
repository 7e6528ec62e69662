"""Measure how robust the circuits of a run's ends are to other prompts: a share replaced, and disjoint splits."""

from circuitdrift import stage

import logging
from pathlib import Path

import pandas as pd

from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import determined_by_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.fold_circuits import check_one_graph, features_of_circuits, fold_scores
from circuitdrift.drift.robustness import tabulate_robustness
from circuitdrift.drift.series import DriftError
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table

logger = logging.getLogger(__name__)


def main(
    scores: list[Path],
    perturbed_scores: list[Path],
    robustness: Path,
    choice: Selection,
    perturbed_draws: int,
    disjoint_splits: int,
    provenance: Provenance,
) -> None:
    """Compare the circuits of each checkpoint from different prompts.

    Args:
        scores: score files of the base model and of the last checkpoint.
        perturbed_scores: score files of the same from the perturbed circuit split; none where no prompts are replaced.
        robustness: output.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction``.
        perturbed_draws: draws of the prompts that are replaced, for each share.
        disjoint_splits: disjoint groups of the prompts; 0 for none.
        provenance: origin of the output.

    Raises:
        DriftError: the files are of different graphs, checkpoints or folds.
    """
    files, replacing = ([read_scores(path) for path in paths] for paths in (scores, perturbed_scores))
    check_one_graph([*files, *replacing])
    if replacing and [file.checkpoint for file in replacing] != [file.checkpoint for file in files]:
        raise DriftError(
            f"{perturbed_scores[0]} and the others are not of the checkpoints of {scores[0]} and the others"
        )
    describe = features_of_circuits(files[0].graph, determined_by_scores(choice))
    frames = []
    for file, fresh in zip(files, replacing or [None] * len(files), strict=True):
        if 0 < len(file.fold_sizes) < disjoint_splits:
            logger.warning(
                "%s: %d folds cannot be dealt into %d splits, so these are left out; raise the task's circuit examples",
                file.path,
                len(file.fold_sizes),
                disjoint_splits,
            )
        perturbed = fold_scores(fresh) if fresh and fresh.fold_sizes else None
        table = tabulate_robustness(fold_scores(file), perturbed, perturbed_draws, disjoint_splits, describe)
        frames.append(table.assign(checkpoint=file.checkpoint))
    write_table(robustness, pd.concat(frames, ignore_index=True), "robustness", provenance)


if __name__ == "__main__":
    stage.run(main)
