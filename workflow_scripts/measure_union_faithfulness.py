"""Run united circuits on the compositional task, over sizes, beside its own circuit and controls."""

from circuitdrift import stage

import logging
import time
from itertools import chain
from pathlib import Path

import pandas as pd

from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.selection import tensors_of_table
from circuitdrift.composition.faithfulness import TaskCircuits, measure_united, united_circuits
from circuitdrift.composition.unions import Scale, ScoredCircuit
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Faithfulness, Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table

logger = logging.getLogger(__name__)


def main(
    *,
    manifest: Path,
    examples: Path,
    edges: list[Path],
    sub_task_edges: list[Path],
    unrelated_edges: list[Path],
    checkpoints: list[Path],
    union_faithfulness: Path,
    size_fractions: list[float],
    random_unions: int,
    scale: Scale,
    choice: Selection,
    measure: Faithfulness,
    device: str,
    provenance: Provenance,
) -> None:
    """Run the circuits in the base model and in the model of the last checkpoint, on prompts that chose no circuit.

    Args:
        manifest: manifest of the base model.
        examples: the test split of the compositional task, of which the first ``measure.examples`` are taken.
        edges: edges tables of a run on the compositional task, of the base model and of the last checkpoint.
        sub_task_edges: the same two of the run on the first sub-task, then those of the second.
        unrelated_edges: the same of two unrelated tasks; none where the study has none.
        checkpoints: folder of the last checkpoint.
        union_faithfulness: output.
        size_fractions: shares of edges at which circuits are selected anew, beside the study's own.
        random_unions: number of unions of random circuits.
        scale: how scores of two tasks are put on one scale.
        choice: the study's selection.
        measure: how circuits run.
        device: device of the models.
        provenance: origin of the output.

    Raises:
        CircuitDriftError: an edges table is of another graph than the model's.
    """
    pairs = prompt_pairs(read_table(examples, "examples").head(measure.examples))
    on = resolve_device(device)
    models = chain.from_iterable(
        checkpoint_anatomies(manifest, folders, measure.precision, on) for folders in ([], checkpoints)
    )
    frames = []
    for place, (name, anatomy) in enumerate(models):
        started = time.monotonic()
        found = TaskCircuits(
            own=_read_circuit(edges[place], anatomy.graph),
            sub_tasks=[_read_circuit(path, anatomy.graph) for path in sub_task_edges[place :: len(edges)]],
            unrelated=[_read_circuit(path, anatomy.graph) for path in unrelated_edges[place :: len(edges)]],
        )
        circuits = united_circuits(anatomy.graph, found, size_fractions, random_unions, scale, choice)
        frames.append(measure_united(anatomy, pairs, circuits, measure).assign(checkpoint=name))
        logger.info("checkpoint %s: %d circuits run in %.1f s", name, len(circuits), time.monotonic() - started)
    table = pd.concat(frames, ignore_index=True)
    write_table(union_faithfulness, table, "union_faithfulness", provenance.on(on, anatomy.dtype))


def _read_circuit(path: Path, graph: Graph) -> ScoredCircuit:
    return ScoredCircuit(*tensors_of_table(graph, read_table(path, "edges")))


if __name__ == "__main__":
    stage.run(main)
