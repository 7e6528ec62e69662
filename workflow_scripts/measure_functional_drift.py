"""Stage ``measure_functional_drift``: circuits of a run's checkpoints, run in the models of its other checkpoints."""

from circuitdrift import stage

import logging
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd

from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.selection import tensors_of_table
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Faithfulness
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.functional import SHARED, CheckpointCircuit, compare_in_model, shared_circuit
from circuitdrift.provenance import BASE_CHECKPOINT, Provenance
from circuitdrift.storage import provenance_of, read_table, write_table

logger = logging.getLogger(__name__)


def main(
    manifest: Path,
    examples: Path,
    edges: list[Path],
    other_seeds_edges: list[Path],
    checkpoints: list[Path],
    functional: Path,
    measure: Faithfulness,
    device: str,
    provenance: Provenance,
) -> None:
    """Run circuits in the base model and in the models of some checkpoints, on prompts that chose no circuit.

    Args:
        manifest: manifest of the base model.
        examples: the test split, of which the first ``measure.examples`` are taken.
        edges: edges tables of all checkpoints of the run, the base model's first; all of them make up the shared
            circuit.
        other_seeds_edges: edges tables of the last checkpoints of other seeds, which run in this run's last model.
        checkpoints: folders of the checkpoints whose models run, and whose circuits run in each of them, in order; the
            base model comes on top.
        functional: output.
        measure: how circuits run.
        device: device of the models.
        provenance: origin of the output; its wildcards hold the run's seed.

    Raises:
        CircuitDriftError: an edges table is of another graph than the model's.
    """
    pairs = prompt_pairs(read_table(examples, "examples").head(measure.examples))
    seed, on = int(provenance.wildcards["seed"]), resolve_device(device)
    names = [BASE_CHECKPOINT, *(folder.name for folder in checkpoints)]
    models = chain.from_iterable(
        checkpoint_anatomies(manifest, folders, measure.precision, on) for folders in ([], checkpoints)
    )
    circuits: _Circuits | None = None
    frames = []
    for name, anatomy in models:
        started = time.monotonic()
        circuits = circuits or _read_circuits(anatomy.graph, edges, other_seeds_edges, seed)
        foreign = [*(circuits.of_run[other] for other in names if other != name), circuits.shared]
        foreign += circuits.of_other_seeds if name == names[-1] else []
        table = compare_in_model(anatomy, pairs, circuits.of_run[name], foreign, measure)
        frames.append(table.assign(model_checkpoint=name))
        logger.info("checkpoint %s: %d circuits run in %.1f s", name, len(foreign) + 1, time.monotonic() - started)
    write_table(functional, pd.concat(frames, ignore_index=True), "functional", provenance.on(on, anatomy.dtype))


@dataclass(frozen=True)
class _Circuits:
    """The circuits of a run by checkpoint, what they all share, and the last circuits of other seeds."""

    of_run: dict[str, CheckpointCircuit]
    shared: CheckpointCircuit
    of_other_seeds: list[CheckpointCircuit]


def _read_circuits(graph: Graph, edges: list[Path], other_seeds_edges: list[Path], seed: int) -> _Circuits:
    own = [_read_circuit(path, graph, seed) for path in edges]
    return _Circuits(
        of_run={circuit.checkpoint: circuit for circuit in own},
        shared=CheckpointCircuit(SHARED, seed, shared_circuit(graph, [circuit.edges for circuit in own])),
        of_other_seeds=[_read_circuit(path, graph, seed) for path in other_seeds_edges],
    )


def _read_circuit(path: Path, graph: Graph, own_seed: int) -> CheckpointCircuit:
    """A circuit with the checkpoint and the seed that its table names; the base model's, which has none, gets ours."""
    origin = provenance_of(path).wildcards
    _, circuit = tensors_of_table(graph, read_table(path, "edges"))
    return CheckpointCircuit(origin["checkpoint"], int(origin.get("seed", own_seed)), circuit)


if __name__ == "__main__":
    stage.run(main)
