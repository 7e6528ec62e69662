"""The circuits of one run compared, from the files of the circuits to the tables of their changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from circuitdrift.drift.changes import summarise, tabulate_transitions
from circuitdrift.drift.layers import tabulate_layers
from circuitdrift.drift.series import DriftError, StructuralCircuit, stack_circuits, structural_circuit
from circuitdrift.provenance import Provenance
from circuitdrift.storage import provenance_of, read_table, write_table


def compare_circuit_files(
    edges: Sequence[Path],
    nodes: Sequence[Path],
    transitions: Path,
    summary: Path,
    layers: Path,
    provenance: Provenance,
) -> None:
    """Compare the circuits of one run.

    Args:
        edges: edges tables in the order of the checkpoints, the base model's first.
        nodes: nodes tables of the same circuits in the same order.
        transitions: output, changes from each checkpoint to the next.
        summary: output, single numbers for the whole run.
        layers: output, changes layer by layer, from each checkpoint to the next and from the first to the last.
        provenance: origin of the outputs.

    Raises:
        DriftError: the circuits cannot be compared.
    """
    if len(edges) != len(nodes):
        raise DriftError(f"{len(edges)} edges tables but {len(nodes)} nodes tables; give one of each per checkpoint")
    series = stack_circuits([_read_circuit(*tables) for tables in zip(edges, nodes, strict=True)])
    write_table(transitions, tabulate_transitions(series), "transitions", provenance)
    write_table(summary, summarise(series), "summary", provenance)
    write_table(layers, tabulate_layers(series), "layers", provenance)


def _read_circuit(edges: Path, nodes: Path) -> StructuralCircuit:
    """One checkpoint's circuit, named by the checkpoint that both files carry in their provenance."""
    edges_table, nodes_table = read_table(edges, "edges"), read_table(nodes, "nodes")
    checkpoint, checkpoint_of_nodes = _checkpoint_of(edges), _checkpoint_of(nodes)
    if checkpoint != checkpoint_of_nodes:
        raise DriftError(
            f"{edges} is of checkpoint '{checkpoint}' but {nodes} of '{checkpoint_of_nodes}'; "
            "list edges and nodes in the same order"
        )
    return structural_circuit(edges_table, nodes_table, checkpoint, str(edges))


def _checkpoint_of(table: Path) -> str:
    """The checkpoint that a table's provenance names."""
    checkpoint = provenance_of(table).wildcards.get("checkpoint")
    if checkpoint is None:
        raise DriftError(f"{table}: names no checkpoint in its provenance; delete it and select the circuit again")
    return checkpoint
