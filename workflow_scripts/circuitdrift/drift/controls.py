"""Noise floors: how much circuits differ that nothing, or nothing of interest, should set apart.

A change between checkpoints means something only where it exceeds what these controls show, and "edges change more
than nodes" only where the controls' edges do not exceed their nodes just as much (PAPER section 7):

- ``other_seed``: two fine-tunings that differ in their seed alone, at the last checkpoint. It answers: would another
  run of the same recipe have ended in the same circuit? It holds everything that the seed decides, and the error of a
  finite set of examples only as far as the two models differ on it, since both are scored on the same examples.
- ``data_split``: one model, one checkpoint, circuits from two disjoint halves of the circuit examples. It answers:
  how far does the circuit depend on which examples it was extracted from? Each half has half of the examples, so
  this floor is somewhat higher than that of circuits from all of them.
- ``random_circuit``: circuits of the study's size from edges drawn uniformly, pruned as every circuit is. It answers:
  what would nodes and edges show if two circuits had nothing in common but the graph and the number of edges? It is
  a ceiling, not a floor: with few edges kept out of many, edge sets hardly meet while nearly every node keeps an edge,
  so that edges exceed nodes by combinatorics alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdrift.circuits.selection import nodes_in, select_circuit
from circuitdrift.config.circuits import Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.changes import count_change

BASE_SEED = -1


@dataclass(frozen=True)
class Membership:
    """Which nodes and structural edges (q, k and v merged) a circuit holds, on the axes of its graph's nodes."""

    nodes: Bool[np.ndarray, " nodes"]
    edges: Bool[np.ndarray, "writers nodes"]


def circuit_membership(graph: Graph, scores: Float[Tensor, "writers readers"], fraction: float) -> Membership:
    """Select the top circuit of a share of edges, and merge the q, k and v inputs of each head.

    Studies of another selection are compared by their top circuits too, so that all circuits of a control keep
    equally many edges before pruning.

    Args:
        graph: the model's graph.
        scores: signed edge scores.
        fraction: share of all edges that the circuit keeps before pruning.

    Raises:
        ValueError: the scores do not fit the graph or are not finite.
    """
    circuit = select_circuit(graph, scores, Selection(fraction=fraction))
    inputs_kept = torch.zeros(graph.n_writers, len(graph.nodes), dtype=torch.int32)
    inputs_kept.index_add_(1, graph.node_of_reader, circuit.to(torch.int32))
    return Membership(nodes=nodes_in(graph, circuit).numpy(), edges=(inputs_kept > 0).numpy())


def random_scores(graph: Graph, draw: int) -> Float[Tensor, "writers readers"]:
    """Scores without any meaning: uniform in (0, 1], float64.

    The strongest of them are a uniformly drawn set of edges, so that selecting from them as from real scores gives a
    random circuit of exactly the size that real ones have before pruning.

    Args:
        graph: the model's graph.
        draw: seed of the generator; each draw has its own.
    """
    drawn = 1.0 - np.random.default_rng(draw).random((graph.n_writers, graph.n_readers))
    return torch.from_numpy(drawn)


def compare_pair(
    control: str, checkpoint: str, seeds: tuple[int, int], circuits: tuple[Membership, Membership]
) -> pd.DataFrame:
    """One pair of circuits of a control, compared as if the second came after the first.

    Returns:
        Columns of the ``controls`` schema, one row for nodes and one for edges. ``rate`` is changed over initial, as
        for a transition; ``jaccard`` does not depend on which of the two comes first.
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
    """Every pair of a control's circuits once, the lower seed first; none for fewer than two circuits."""
    return [
        compare_pair(control, checkpoint, (first, second), (circuits[first], circuits[second]))
        for first, second in combinations(sorted(circuits), 2)
    ]
