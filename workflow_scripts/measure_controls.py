"""Measure how much circuits differ by another seed, by another half of the data, and by chance."""

from pathlib import Path

import pandas as pd

from circuitdrift import stage
from circuitdrift.circuits.score_file import ScoreFile, read_scores
from circuitdrift.drift.controls import BASE_SEED, circuit_membership, compare_all_pairs, compare_pair, random_scores
from circuitdrift.drift.series import DriftError
from circuitdrift.provenance import BASE_CHECKPOINT, Provenance
from circuitdrift.storage import write_table

NO_CHECKPOINT = "none"


def main(
    base_scores: Path, scores: list[Path], controls: Path, fraction: float, random_circuits: int, provenance: Provenance
) -> None:
    """Compare circuits that differ by noise or by chance; :mod:`circuitdrift.drift.controls` defines the controls.

    Args:
        base_scores: scores of the base model, whose data_split rows have seed -1 and checkpoint 00.
        scores: scores of the last checkpoint for every seed of one method.
        controls: output; rows of random_circuit have the checkpoint ``none``, and draws in place of seeds.
        fraction: share of all edges that a circuit keeps before pruning.
        random_circuits: number of random circuits; every pair is compared.
        provenance: origin of the output.

    Raises:
        StorageError: a score file is damaged, or lacks scores from all examples or from a half of them.
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

    finals = {seed: circuit_membership(run.graph, run.scores, fraction) for seed, run in runs.items()}
    drawn = {
        draw: circuit_membership(base.graph, random_scores(base.graph, draw), fraction)
        for draw in range(random_circuits)
    }
    frames = [
        *compare_all_pairs("other_seed", _last_checkpoint(runs), finals),
        _compare_halves(base, BASE_CHECKPOINT, BASE_SEED, fraction),
        *(_compare_halves(run, run.checkpoint, seed, fraction) for seed, run in runs.items()),
        *compare_all_pairs("random_circuit", NO_CHECKPOINT, drawn),
    ]
    write_table(controls, pd.concat(frames, ignore_index=True), "controls", provenance)


def _last_checkpoint(runs: dict[int, ScoreFile]) -> str:
    """The checkpoint at which all runs were scored."""
    names = {run.checkpoint for run in runs.values()}
    if len(names) != 1:
        raise DriftError(f"scores of checkpoints {sorted(names)}; give every seed's last checkpoint")
    return names.pop()


def _compare_halves(scored: ScoreFile, checkpoint: str, seed: int, fraction: float) -> pd.DataFrame:
    first, second = (circuit_membership(scored.graph, half, fraction) for half in (scored.half_a, scored.half_b))
    return compare_pair("data_split", checkpoint, (seed, seed), (first, second))


if __name__ == "__main__":
    stage.run(main)
