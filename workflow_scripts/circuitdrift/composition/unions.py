"""The union and the intersection of two tasks' circuits, cut to the size of a third (docs/method.md#composition)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdrift.circuits.selection import prune, strongest_among
from circuitdrift.decoder.graph import Graph

Scale = Literal["raw", "unit_mass"]


@dataclass(frozen=True)
class ScoredCircuit:
    """A circuit, and the scores of all edges of its graph."""

    scores: Float[Tensor, "writers readers"]
    edges: Bool[Tensor, "writers readers"]

    @property
    def size(self) -> int:
        """Number of edges, q, k and v apart."""
        return int(self.edges.sum())


def unite(graph: Graph, circuits: Sequence[ScoredCircuit], size: int, scale: Scale) -> ScoredCircuit:
    """The edges of any of the circuits, of at most ``size`` edges.

    Args:
        graph: the model's graph.
        circuits: the circuits of the sub-tasks.
        size: the most edges that are left after pruning; as many as possible.
        scale: whether scores stay as they are, or are divided by the mass of their circuit.

    Returns:
        The circuit, and the mean score of each edge over the circuits that hold it; 0 where none does.
    """
    held = torch.stack([circuit.edges for circuit in circuits])
    scores = _mean_scores(circuits, held, scale)
    return ScoredCircuit(scores, cut_to_size(graph, scores, held.any(dim=0), size))


def intersect(graph: Graph, circuits: Sequence[ScoredCircuit], size: int, scale: Scale) -> ScoredCircuit:
    """The edges of all of the circuits; else as :func:`unite`."""
    held = torch.stack([circuit.edges for circuit in circuits])
    scores = _mean_scores(circuits, held, scale)
    return ScoredCircuit(scores, cut_to_size(graph, scores, held.all(dim=0), size))


def _mean_scores(
    circuits: Sequence[ScoredCircuit], held: Bool[Tensor, "circuit writers readers"], scale: Scale
) -> Float[Tensor, "writers readers"]:
    """The mean score of each edge over the circuits that hold it."""
    kept = torch.stack([circuit.scores for circuit in circuits]) * held
    if scale == "unit_mass":
        mass = kept.abs().sum(dim=(1, 2), keepdim=True)
        kept = kept / torch.where(mass > 0, mass, torch.ones_like(mass))
    return kept.sum(dim=0) / held.sum(dim=0).clamp(min=1)


def cut_to_size(
    graph: Graph, scores: Float[Tensor, "writers readers"], edges: Bool[Tensor, "writers readers"], size: int
) -> Bool[Tensor, "writers readers"]:
    """As many of the strongest of some edges as leave at most ``size`` edges once they are pruned.

    More edges never prune to fewer, so the number is found by halving.
    """

    def pruned(n: int) -> Bool[Tensor, "writers readers"]:
        kept: Bool[Tensor, "writers readers"] = prune(graph, strongest_among(graph, scores, edges, n))
        return kept

    fits, too_many = 0, int(edges.sum()) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if int(pruned(middle).sum()) <= size:
            fits = middle
        else:
            too_many = middle
    return pruned(fits)
