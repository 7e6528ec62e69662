"""Measure how much circuits differ by another seed, by another half of the data, and by chance."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from circuitdrift import stage
from circuitdrift.circuits.score_file import ScoreFile, read_scores
from circuitdrift.circuits.selection import determined_by_scores, select_circuit
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.controls import BASE_SEED, circuit_membership, compare_all_pairs, compare_pair, random_circuit
from circuitdrift.drift.fold_circuits import fold_scores, rows_of_scores
from circuitdrift.drift.reliability import draw_halves
from circuitdrift.drift.series import DriftError
from circuitdrift.provenance import BASE_CHECKPOINT, Provenance
from circuitdrift.storage import write_table

logger = logging.getLogger(__name__)

NO_CHECKPOINT = "none"
HALF_SPLITS = 20
SEED = 0


def main(
    base_scores: Path,
    scores: list[Path],
    controls: Path,
    choice: Selection,
    random_circuits: int,
    provenance: Provenance,
) -> None:
    """Compare circuits that differ by noise or by chance; :mod:`circuitdrift.drift.controls` defines the controls.

    Args:
        base_scores: scores of the base model, whose data_split rows have seed -1 and checkpoint 00.
        scores: scores of the last checkpoint for every seed of one method.
        controls: output; rows of random_circuit have the checkpoint ``none``, and draws in place of seeds.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction``.
        random_circuits: number of random circuits; every pair is compared.
        provenance: origin of the output.

    Raises:
        StorageError: a score file is damaged, or lacks scores from all examples or by fold.
        DriftError: the files belong to different graphs, or two files to one seed.
    """
    base = read_scores(base_scores)
    runs: dict[int, ScoreFile] = {}
    for path in scores:
        run = read_scores(path)
        if run.graph != base.graph:
            raise DriftError(f"{base.path} is of {base.graph} but {path} of {run.graph}; give scores of one model")
        seed = int(run.origin.wildcards["seed"])
        if seed in runs:
            raise DriftError(f"{runs[seed].path} and {path} are both of seed {seed}; give each seed once")
        runs[seed] = run

    graph, selection = base.graph, determined_by_scores(choice)
    finals = {s: circuit_membership(graph, select_circuit(graph, run.scores, selection)) for s, run in runs.items()}
    size = int(select_circuit(graph, base.scores, selection).sum())
    if not size:
        logger.warning("%s: the circuit is empty, so no random circuits match it; raise circuit.fraction", base.path)
    draws = range(random_circuits) if size else ()
    drawn = {draw: circuit_membership(graph, random_circuit(graph, size, draw)) for draw in draws}
    frames = [
        *compare_all_pairs("other_seed", _last_checkpoint(runs), finals),
        *_compare_halves(base, BASE_CHECKPOINT, BASE_SEED, selection),
        *(frame for seed, run in runs.items() for frame in _compare_halves(run, run.checkpoint, seed, selection)),
        *compare_all_pairs("random_circuit", NO_CHECKPOINT, drawn),
    ]
    write_table(controls, pd.concat(frames, ignore_index=True), "controls", provenance)


def _last_checkpoint(runs: dict[int, ScoreFile]) -> str:
    """The checkpoint at which all runs were scored."""
    names = {run.checkpoint for run in runs.values()}
    if len(names) != 1:
        raise DriftError(f"scores of checkpoints {sorted(names)}; give every seed's last checkpoint")
    return names.pop()


def _compare_halves(scored: ScoreFile, checkpoint: str, seed: int, selection: Selection) -> list[pd.DataFrame]:
    """Circuits from random disjoint halves of one checkpoint's folds."""
    folds = fold_scores(scored)
    if folds.n_folds < 2:
        return []
    halves = draw_halves(np.arange(folds.n_folds), folds.n_folds, folds.n_folds // 2, HALF_SPLITS, SEED)
    first, second = (
        select_circuit(scored.graph, rows_of_scores(scored.graph, folds.means(half)), selection) for half in halves
    )
    return [
        compare_pair(
            "data_split",
            checkpoint,
            (seed, seed),
            (circuit_membership(scored.graph, one), circuit_membership(scored.graph, other)),
        )
        for one, other in zip(first, second, strict=True)
    ]


if __name__ == "__main__":
    stage.run(main)
