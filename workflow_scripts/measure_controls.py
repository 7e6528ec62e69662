"""Measure how much circuits differ by another seed, another half or kind of the prompts, and by chance."""

from circuitdrift import stage

import logging
from pathlib import Path

import pandas as pd

from circuitdrift.circuits.kinds import read_scores_by_kind
from circuitdrift.circuits.score_file import ScoreFile, read_scores
from circuitdrift.circuits.selection import determined_by_scores, select_circuit
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.control_names import BASE_SEED, NO_CHECKPOINT
from circuitdrift.drift.controls import (
    circuit_membership,
    comparable_kinds,
    compare_all_pairs,
    compare_kinds,
    compare_pair,
    compare_seeds,
    compare_split_data,
    structural_membership,
    tabulate_controls,
)
from circuitdrift.drift.fold_circuits import check_one_graph, features_of_circuits
from circuitdrift.drift.random_circuits import degree_preserving_circuit, random_circuit
from circuitdrift.drift.series import DriftError
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table

logger = logging.getLogger(__name__)


def main(
    base_scores: Path,
    kind_scores: Path,
    scores: list[Path],
    controls: Path,
    choice: Selection,
    random_circuits: int,
    provenance: Provenance,
) -> None:
    """Compare circuits that differ by noise or by chance; :mod:`circuitdrift.drift.controls` defines the controls.

    Args:
        base_scores: scores of the base model, whose data_split rows have seed -1 and checkpoint 00.
        kind_scores: scores of the base model by kind of prompt.
        scores: scores of the last checkpoint for every seed of one method.
        controls: output; rows of random circuits have the checkpoint ``none``, and draws in place of seeds.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction``.
        random_circuits: number of random circuits of each sort; every pair is compared.
        provenance: origin of the output.

    Raises:
        StorageError: a score file is damaged, or lacks scores from all examples or by fold.
        DriftError: the files belong to different graphs, or two files to one seed.
    """
    base, kinds = read_scores(base_scores), read_scores_by_kind(kind_scores)
    files = [read_scores(path) for path in scores]
    check_one_graph([base, *kinds.values(), *files])
    runs: dict[int, ScoreFile] = {}
    for run in files:
        seed = int(run.origin.wildcards["seed"])
        if seed in runs:
            raise DriftError(f"{runs[seed].path} and {run.path} are both of seed {seed}; give each seed once")
        runs[seed] = run

    selection = determined_by_scores(choice)
    describe = features_of_circuits(base.graph, selection)
    if len(kinds) > 1 and (left_out := set(kinds) - set(comparable_kinds(kinds))):
        logger.warning("kinds %s have too few circuit prompts to compare; raise the task's circuit", sorted(left_out))
    frames = [
        *compare_seeds(runs, describe),
        *compare_split_data(base, BASE_SEED, describe),
        *(frame for seed, run in runs.items() for frame in compare_split_data(run, seed, describe)),
        *compare_kinds(kinds, describe),
        *_compare_random(base, selection, range(random_circuits)),
    ]
    write_table(controls, tabulate_controls(frames), "controls", provenance)


def _compare_random(base: ScoreFile, selection: Selection, draws: range) -> list[pd.DataFrame]:
    """Random circuits that match the base circuit: uniform ones, and ones that keep its degrees."""
    graph, circuit = base.graph, select_circuit(base.graph, base.scores, selection)
    size, own = int(circuit.sum()), circuit_membership(base.graph, circuit)
    if not size:
        logger.warning("%s: the circuit is empty, so no random circuits match it; raise circuit.fraction", base.path)
        return []
    uniform = {draw: circuit_membership(graph, random_circuit(graph, size, draw)) for draw in draws}
    swapped = {d: structural_membership(degree_preserving_circuit(graph, own.edges, d)) for d in draws}
    against_base = [
        compare_pair("degree_preserving_base", NO_CHECKPOINT, (BASE_SEED, draw), (own, swapped[draw])) for draw in draws
    ]
    independent = [
        *compare_all_pairs("random_circuit", NO_CHECKPOINT, uniform),
        *compare_all_pairs("degree_preserving", NO_CHECKPOINT, swapped),
    ]
    return [
        *(frame.assign(pairing="independent draws") for frame in independent),
        *(frame.assign(pairing="base circuit and a draw") for frame in against_base),
    ]


if __name__ == "__main__":
    stage.run(main)
