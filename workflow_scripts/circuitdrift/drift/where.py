"""Where circuits change: layer by layer, and at nodes that come or go, each beside what chance gives.

See docs/method.md#where-changes-happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from circuitdrift.circuits.selection import nodes_in, structural_edges, tensors_of_table
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.changes import ratio
from circuitdrift.drift.random_circuits import degree_preserving_circuit
from circuitdrift.intervals import CONFIDENCE


@dataclass(frozen=True)
class MergedCircuit:
    """A circuit with the q, k and v inputs of each head merged, on the axes of its graph's nodes.

    Attributes:
        nodes: the nodes that it holds.
        edges: the structural edges that it holds.
        scores: signed sum of the scores of the edges that are merged; 0 where it holds none.
    """

    nodes: Bool[np.ndarray, " nodes"]
    edges: Bool[np.ndarray, "writers nodes"]
    scores: Float[np.ndarray, "writers nodes"]


def merged_circuit(graph: Graph, edges: pd.DataFrame) -> MergedCircuit:
    """The circuit of an edges table.

    Raises:
        CircuitDriftError: the table's edges are not those of the graph.
    """
    scores, circuit = tensors_of_table(graph, edges)
    merged = torch.zeros(graph.n_writers, len(graph.nodes), dtype=torch.float64)
    merged.index_add_(-1, graph.node_of_reader, scores.double() * circuit)
    return MergedCircuit(nodes_in(graph, circuit).numpy(), structural_edges(graph, circuit).numpy(), merged.numpy())


def tabulate_where(graph: Graph, before: MergedCircuit, after: MergedCircuit) -> pd.DataFrame:
    """What came and went in each layer, beside what would have come by chance.

    The input counts as layer 0; ``logits`` is in no layer, and in every circuit but the empty one. An edge counts in
    the layer that writes.

    Returns:
        Columns of the ``where`` schema, every layer once for each level.
    """
    return pd.concat(list(_by_layer(graph, before, after)), ignore_index=True)


def _by_layer(graph: Graph, before: MergedCircuit, after: MergedCircuit) -> Iterator[pd.DataFrame]:
    writers = graph.layer_of_node[: graph.n_writers].numpy()
    possible = structural_edges(graph, graph.edge_mask).numpy()
    of_edge = np.broadcast_to(writers[:, None], possible.shape)
    n = graph.n_writers
    yield _counted("node", writers, np.ones(n, dtype=bool), before.nodes[:n], after.nodes[:n])
    yield _counted(
        "edge", of_edge[possible], np.ones(possible.sum(), dtype=bool), before.edges[possible], after.edges[possible]
    )


def _counted(
    level: str,
    layer: Int[np.ndarray, " parts"],
    possible: Bool[np.ndarray, " parts"],
    before: Bool[np.ndarray, " parts"],
    after: Bool[np.ndarray, " parts"],
) -> pd.DataFrame:
    """The rows of one level, from the layer and the membership of every part of the graph."""
    n_layers = int(layer.max()) + 1
    held, added, removed, all_parts = (
        np.bincount(layer[parts], minlength=n_layers) for parts in (before, after & ~before, before & ~after, possible)
    )
    addable = all_parts - held
    return pd.DataFrame(
        {
            "layer": np.arange(n_layers),
            "level": level,
            "present_before": held,
            "possible": all_parts,
            "addable": addable,
            "added": added,
            "removed": removed,
            "expected_added": added.sum() * addable / max(1, addable.sum()),
        }
    )


def tabulate_node_induced(graph: Graph, before: MergedCircuit, after: MergedCircuit, draws: int) -> pd.DataFrame:
    """The changed edges that touch a changed node, beside the number in circuits with the same degrees.

    Args:
        graph: the graph of both circuits.
        before: the circuit of the base model, pruned.
        after: the circuit of the last checkpoint, pruned.
        draws: pairs of circuits whose edges are swapped at random, each of the two by itself.

    Returns:
        The one row of the ``node_induced`` schema. ``lower`` and ``upper`` enclose the middle 95 % of the draws.
    """
    node_changed = before.nodes ^ after.nodes
    drawn = [
        _touching(
            node_changed, *(_swapped(graph, c.edges, 2 * draw + place) for place, c in enumerate((before, after)))
        )
        for draw in range(draws)
    ]
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.quantile(drawn, (tail, 1 - tail))
    edges_per_node = ratio(float(before.edges.sum()), float(before.nodes.sum()))
    return pd.DataFrame(
        {
            "changed": [int((before.edges ^ after.edges).sum())],
            "node_induced": [_touching(node_changed, before.edges, after.edges)],
            "expected": [float(np.mean(drawn))],
            "lower": [lower],
            "upper": [upper],
            "node_based_estimate": [float(node_changed.sum()) * edges_per_node],
        }
    )


def _swapped(graph: Graph, edges: Bool[np.ndarray, "writers nodes"], draw: int) -> Bool[np.ndarray, "writers nodes"]:
    """A random circuit of the same degrees; of the empty circuit, that one."""
    return degree_preserving_circuit(graph, edges, draw) if edges.any() else edges


def _touching(
    node_changed: Bool[np.ndarray, " nodes"],
    before: Bool[np.ndarray, "writers nodes"],
    after: Bool[np.ndarray, "writers nodes"],
) -> int:
    """The edges that one of two circuits holds, at one of the nodes or more."""
    touched = node_changed[: len(before), None] | node_changed[None, :]
    return int(((before ^ after) & touched).sum())
