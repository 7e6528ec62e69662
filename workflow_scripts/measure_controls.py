"""Stage ``measure_controls``: how much circuits differ by another seed, by another half of the data, and by chance."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from circuitdrift import stage
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.controls import BASE_SEED, circuit_membership, compare_all_pairs, compare_pair, random_scores
from circuitdrift.drift.series import DriftError
from circuitdrift.provenance import BASE_CHECKPOINT, Provenance
from circuitdrift.storage import StorageError, read_tensors, write_table

HALVES = ("scores_half_a", "scores_half_b")
NO_CHECKPOINT = "none"


@dataclass(frozen=True)
class ScoreFile:
    """One checkpoint's scores: from all examples, and from each half of them."""

    path: Path
    graph: Graph
    origin: Provenance
    tensors: dict[str, Tensor]


def main(
    base_scores: Path, scores: list[Path], controls: Path, fraction: float, random_circuits: int, provenance: Provenance
) -> None:
    """Compare circuits that differ by noise or by chance; ``circuitdrift.drift.controls`` says what each answers.

    Args:
        base_scores: scores of the base model; its data_split rows have the seed -1 and the checkpoint 00.
        scores: scores of the last checkpoint of every seed of one method.
        controls: output; the rows of random_circuit have the checkpoint ``none``, and draws in place of seeds.
        fraction: share of all edges that a circuit keeps before pruning.
        random_circuits: how many random circuits to draw; every pair of draws is compared.
        provenance: origin of the output.

    Raises:
        StorageError: a file holds no edge scores, or none from halves of the examples.
        DriftError: the files are of different graphs, or two of one seed.
    """
    base = _read_scores(base_scores)
    runs: dict[int, ScoreFile] = {}
    for path in scores:
        run = _read_scores(path)
        if run.graph != base.graph:
            raise DriftError(f"{base.path} is of {base.graph} but {path} of {run.graph}; take the scores of one model")
        seed = int(run.origin.wildcards["seed"])
        if seed in runs:
            raise DriftError(f"{runs[seed].path} and {path} are both of seed {seed}; give each seed once")
        runs[seed] = run

    finals = {seed: circuit_membership(run.graph, run.tensors["scores"], fraction) for seed, run in runs.items()}
    drawn = {
        draw: circuit_membership(base.graph, random_scores(base.graph, draw), fraction)
        for draw in range(random_circuits)
    }
    frames = [
        *compare_all_pairs("other_seed", _last_checkpoint(runs), finals),
        _compare_halves(base, BASE_CHECKPOINT, BASE_SEED, fraction),
        *(_compare_halves(run, run.origin.wildcards["checkpoint"], seed, fraction) for seed, run in runs.items()),
        *compare_all_pairs("random_circuit", NO_CHECKPOINT, drawn),
    ]
    write_table(controls, pd.concat(frames, ignore_index=True), "controls", provenance)


def _read_scores(path: Path) -> ScoreFile:
    tensors, metadata = read_tensors(path)
    missing = [name for name in ("scores", *HALVES) if name not in tensors]
    if missing or "graph" not in metadata or "provenance" not in metadata:
        raise StorageError(f"{path}: not a whole file of edge scores (missing: {missing}); delete it and run again")
    origin = Provenance.model_validate_json(metadata["provenance"])
    return ScoreFile(path=path, graph=Graph(**json.loads(metadata["graph"])), origin=origin, tensors=tensors)


def _last_checkpoint(runs: dict[int, ScoreFile]) -> str:
    """The checkpoint that all runs were scored at."""
    names = {run.origin.wildcards["checkpoint"] for run in runs.values()}
    if len(names) != 1:
        raise DriftError(f"scores of checkpoints {sorted(names)}; give every seed's last checkpoint")
    return names.pop()


def _compare_halves(scored: ScoreFile, checkpoint: str, seed: int, fraction: float) -> pd.DataFrame:
    first, second = (circuit_membership(scored.graph, scored.tensors[half], fraction) for half in HALVES)
    return compare_pair("data_split", checkpoint, (seed, seed), (first, second))


if __name__ == "__main__":
    stage.run(main)
