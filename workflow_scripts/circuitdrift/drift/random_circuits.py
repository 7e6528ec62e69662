"""Random circuits for the controls: uniform ones of equal size, and ones that keep each node's degrees.

See docs/method.md#controls.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdrift.circuits.selection import prune, strongest_edges, structural_edges
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.series import DriftError

SWAPS_OF_AN_EDGE = 10
"""Accepted swaps for each edge, after which a circuit has forgotten where it began."""

_MOST_ATTEMPTS_OF_AN_EDGE = 1000
"""Where the degrees leave few circuits, or one alone, most swaps are refused; so many attempts are enough there."""


def random_scores(graph: Graph, draw: int) -> Float[Tensor, "writers readers"]:
    """Scores above zero, of which the largest come first in the order of :func:`random_circuit`."""
    return torch.from_numpy(1.0 - np.random.default_rng(draw).random((graph.n_writers, graph.n_readers)))


def random_circuit(graph: Graph, n_edges: int, draw: int) -> Bool[Tensor, "writers readers"]:
    """A pruned circuit from edges in random order: the smallest with at least ``n_edges`` edges left.

    Pruning removes nearly all of a few random edges. So edges are added, one after the other, until enough of them
    lie on paths from ``input`` to ``logits``; more edges never prune to fewer.

    Args:
        graph: the model's graph.
        n_edges: edges to keep after pruning, at most those of the graph.
        draw: seed of the order.

    Raises:
        DriftError: no edges are to be kept.
    """
    _refuse_empty(n_edges)
    scores = random_scores(graph, draw)

    def pruned(n: int) -> Bool[Tensor, "writers readers"]:
        kept: Bool[Tensor, "writers readers"] = prune(graph, strongest_edges(graph, scores, n))
        return kept

    too_few, enough = 0, graph.n_edges
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if int(pruned(middle).sum()) >= n_edges:
            enough = middle
        else:
            too_few = middle
    return pruned(enough)


def degree_preserving_circuit(
    graph: Graph, edges: Bool[np.ndarray, "writers nodes"], draw: int
) -> Bool[np.ndarray, "writers nodes"]:
    """A circuit in which every node has as many edges in and out as in the one given, by double-edge swaps.

    A swap (Maslov and Sneppen 2002) replaces the edges a -> b and c -> d by a -> d and c -> b. It is refused if the
    graph lacks one of them, or if the circuit holds one already. Edges are structural: the q, k and v inputs of a
    head are one. Of a pruned circuit nothing can be pruned afterwards: every node but ``input`` and ``logits`` still
    reads and still writes, and the graph has no cycles. So the size is the same, and so are the nodes.

    Args:
        graph: the model's graph.
        edges: the pruned circuit to start from.
        draw: seed of the swaps.

    Raises:
        DriftError: the circuit is empty.
    """
    sources, targets = ([int(end) for end in ends] for ends in np.nonzero(edges))
    n_edges = len(sources)
    _refuse_empty(n_edges)
    allowed = set(zip(*np.nonzero(structural_edges(graph, graph.edge_mask).numpy()), strict=True))
    held = set(zip(sources, targets, strict=True))
    generator = np.random.default_rng(draw)
    accepted = 0
    for _ in range(_MOST_ATTEMPTS_OF_AN_EDGE):
        for one, other in generator.integers(n_edges, size=(n_edges, 2)).tolist():
            first, second = (sources[one], targets[other]), (sources[other], targets[one])
            if first in held or second in held or first not in allowed or second not in allowed:
                continue
            held -= {(sources[one], targets[one]), (sources[other], targets[other])}
            held |= {first, second}
            targets[one], targets[other] = targets[other], targets[one]
            accepted += 1
        if accepted >= SWAPS_OF_AN_EDGE * n_edges:
            break
    swapped = np.zeros_like(edges)
    swapped[sources, targets] = True
    return swapped


def _refuse_empty(n_edges: int) -> None:
    if not n_edges:
        raise DriftError(
            "the base circuit is empty, so no random circuit matches it; raise circuit.fraction, or lower "
            "circuit.threshold"
        )
