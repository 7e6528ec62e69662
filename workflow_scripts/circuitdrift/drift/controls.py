"""Noise floors: how much circuits differ that should not differ, or differ by chance alone (docs/method.md#controls).

A change between checkpoints means something only if it exceeds these controls, and "edges change more than nodes" only
if the controls' edges do not exceed their nodes just as much:

- ``other_seed``: two fine-tunings that differ in their seed alone, at the last checkpoint. It answers: would another
  fine-tuning by the same recipe end in the same circuit? It includes everything that the seed decides. It includes
  the error of a finite set of examples only as far as the two models differ on it, because both are scored on the
  same examples.
- ``data_split``: one model, one checkpoint, circuits from two disjoint halves of the circuit examples, over several
  random half-splits of the folds, which hold equal shares of each kind. It answers: how much does the circuit depend on
  the examples? A half has half of the examples, so circuits from all examples have a lower floor.
- ``random_circuit``: circuits from edges drawn uniformly, of the base circuit's size after pruning. It answers: what
  would nodes and edges show if two circuits shared only the graph and the number of edges? It is a ceiling, not a
  floor: with few edges kept out of many, edge sets hardly overlap while nearly every node keeps an edge, so edges
  exceed nodes by combinatorics alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from circuitdrift.circuits.selection import nodes_in, prune, strongest_edges, structural_edges
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.changes import count_change

BASE_SEED = -1


@dataclass(frozen=True)
class Membership:
    """The nodes and structural edges (q, k and v merged) that a circuit holds, on the axes of its graph's nodes."""

    nodes: Bool[np.ndarray, " nodes"]
    edges: Bool[np.ndarray, "writers nodes"]


def circuit_membership(graph: Graph, circuit: Bool[Tensor, "writers readers"]) -> Membership:
    """A circuit with the q, k and v inputs of each head merged."""
    return Membership(nodes=nodes_in(graph, circuit).numpy(), edges=structural_edges(graph, circuit).numpy())


def random_circuit(graph: Graph, n_edges: int, draw: int) -> Bool[Tensor, "writers readers"]:
    """A pruned circuit from edges in random order: the smallest with at least ``n_edges`` edges left.

    Pruning removes nearly all of a few random edges. So edges are added, one after the other, until enough of them
    lie on paths from ``input`` to ``logits``; more edges never prune to fewer.

    Args:
        graph: the model's graph.
        n_edges: edges to keep after pruning, at least one and at most those of the graph.
        draw: seed of the order.
    """
    drawn = 1.0 - np.random.default_rng(draw).random((graph.n_writers, graph.n_readers))
    scores = torch.from_numpy(drawn)

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


def compare_pair(
    control: str, checkpoint: str, seeds: tuple[int, int], circuits: tuple[Membership, Membership]
) -> pd.DataFrame:
    """Compare one pair of circuits of a control as if the second came after the first.

    Returns:
        Columns of the ``controls`` schema, one row for nodes and one row for edges. ``rate`` is changed over initial,
        as for a transition; ``jaccard`` does not depend on the order of the two.
    """
    first, second = circuits
    rows: list[dict[str, Any]] = []
    for level, before, after in (("node", first.nodes, second.nodes), ("edge", first.edges, second.edges)):
        change = count_change(before, after)
        rows.append(
            {
                "control": control,
                "checkpoint": checkpoint,
                "seed_a": seeds[0],
                "seed_b": seeds[1],
                "level": level,
                "initial": change.initial,
                "changed": change.changed,
                "rate": change.rate,
                "jaccard": change.jaccard,
            }
        )
    return pd.DataFrame(rows)


def compare_all_pairs(control: str, checkpoint: str, circuits: Mapping[int, Membership]) -> list[pd.DataFrame]:
    """Every pair of a control's circuits once, the lower seed first; no pair for fewer than two circuits."""
    return [
        compare_pair(control, checkpoint, (first, second), (circuits[first], circuits[second]))
        for first, second in combinations(sorted(circuits), 2)
    ]
