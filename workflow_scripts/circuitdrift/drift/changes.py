"""Changes between checkpoints: transitions, change rates, and how far node changes account for edge changes.

Definitions: docs/method.md#change-measures. Every denominator counts parts of a circuit, never all parts of the graph.
A ratio with denominator zero is undefined: NaN in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from circuitdrift.drift.series import CircuitSeries

LEVELS = ("node", "edge")


@dataclass(frozen=True)
class Change:
    """How one set of parts became another, in numbers of nodes or of edges."""

    initial: int
    final: int
    added: int
    removed: int

    @property
    def changed(self) -> int:
        """Size of the symmetric difference."""
        return self.added + self.removed

    @property
    def rate(self) -> float:
        """Changed parts over the parts held before; NaN if there were none. It can exceed 1."""
        return ratio(self.changed, self.initial)

    @property
    def jaccard(self) -> float:
        """Size of the intersection over size of the union, in [0, 1]; 1 for two empty sets."""
        union = self.initial + self.added
        return (self.initial - self.removed) / union if union else 1.0


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN if the denominator is zero."""
    return numerator / denominator if denominator else float("nan")


def count_change(before: Bool[np.ndarray, "*parts"], after: Bool[np.ndarray, "*parts"]) -> Change:
    """Count the changes between two circuits, given as the membership of each part of one graph."""
    return Change(
        initial=int(before.sum()),
        final=int(after.sum()),
        added=int((after & ~before).sum()),
        removed=int((before & ~after).sum()),
    )


def membership(series: CircuitSeries, level: str) -> Bool[np.ndarray, "checkpoints parts"]:
    """Which nodes (level ``node``) or structural edges (level ``edge``) each checkpoint's circuit holds."""
    return series.node_kept if level == "node" else series.edge_kept


def node_induced_changes(series: CircuitSeries, before: int, after: int) -> int:
    """Number of edges that change between two checkpoints and touch a node that changes too.

    The arrival or loss of a node brings about at least these changes; all others happen between nodes that stay.
    """
    node_changed = series.node_kept[before] ^ series.node_kept[after]
    edge_changed = series.edge_kept[before] ^ series.edge_kept[after]
    touched = node_changed[series.edge_source] | node_changed[series.edge_target]
    return int((edge_changed & touched).sum())


def tabulate_transitions(series: CircuitSeries) -> pd.DataFrame:
    """The changes of nodes and of edges from each checkpoint to the next.

    Returns:
        Columns of the ``transitions`` schema, and ``rate`` (changed over initial) and ``node_induced`` (int, the
        number of changed edges that touch a changed node; for nodes the number changed itself).
    """
    rows = []
    for before, after in series.consecutive():
        for level in LEVELS:
            kept = membership(series, level)
            change = count_change(kept[before], kept[after])
            rows.append(
                {
                    "from_checkpoint": series.checkpoints[before],
                    "to_checkpoint": series.checkpoints[after],
                    "level": level,
                    "initial": change.initial,
                    "added": change.added,
                    "removed": change.removed,
                    "changed": change.changed,
                    "jaccard": change.jaccard,
                    "rate": change.rate,
                    "node_induced": node_induced_changes(series, before, after) if level == "edge" else change.changed,
                }
            )
    return pd.DataFrame(rows)


def summarise(series: CircuitSeries) -> pd.DataFrame:
    """A whole fine-tuning in single numbers, in long format: level, measure, value.

    Measures at the levels ``node`` and ``edge`` (docs/method.md#change-measures):

    - ``initial``, ``final``: parts in the first and in the last circuit.
    - ``changed_cumulative``: changes summed over the transitions; ``rate_cumulative``: over ``initial``. It grows with
      the number of checkpoints, because a part that comes and goes counts each time.
    - ``rate_mean``: mean over transitions of the changes over the parts held at the start of the transition.
    - ``added_net``, ``removed_net``, ``changed_net``: the last circuit against the first; ``rate_net``: over
      ``initial``.
    - ``jaccard_distance_net``: 1 - Jaccard index of the first and the last circuit; ``jaccard_distance_mean``: the
      mean of that distance over transitions.

    At the level ``edge`` also, both ``_cumulative`` and ``_net``:

    - ``node_induced``: changed edges that touch a changed node; ``node_induced_share``: over the changed edges.
    - ``node_based_estimate``: changed nodes times the edges per node of the first circuit;
      ``excess_over_estimate``: changed edges over that estimate. By its arithmetic this excess is the edges' rate over
      the nodes' rate, so it is no evidence beyond the ratio below.

    At the level ``edge_over_node``: each rate and distance of the edges over that of the nodes, under the same name.

    Returns:
        Columns of the ``summary`` schema; from_checkpoint is the first checkpoint, to_checkpoint the last.
    """
    nodes, edges = (_measures(membership(series, level)) for level in LEVELS)
    quotients = {name: ratio(edges[name], nodes[name]) for name in nodes if name.startswith(("rate_", "jaccard_"))}
    edges |= _node_accounts(series, nodes, edges)
    rows: list[dict[str, Any]] = [
        {"level": level, "measure": measure, "value": float(value)}
        for level, measures in (("node", nodes), ("edge", edges), ("edge_over_node", quotients))
        for measure, value in measures.items()
    ]
    ends = {"from_checkpoint": series.checkpoints[0], "to_checkpoint": series.checkpoints[-1]}
    return pd.DataFrame([{**ends, **row} for row in rows])


def _measures(kept: Bool[np.ndarray, "checkpoints parts"]) -> dict[str, float]:
    """The measures that nodes and edges share."""
    transitions = [count_change(kept[after - 1], kept[after]) for after in range(1, len(kept))]
    net = count_change(kept[0], kept[-1])
    cumulative = sum(change.changed for change in transitions)
    return {
        "initial": net.initial,
        "final": net.final,
        "changed_cumulative": cumulative,
        "added_net": net.added,
        "removed_net": net.removed,
        "changed_net": net.changed,
        "rate_cumulative": ratio(cumulative, net.initial),
        "rate_mean": float(np.mean([change.rate for change in transitions])),
        "rate_net": net.rate,
        "jaccard_distance_net": 1.0 - net.jaccard,
        "jaccard_distance_mean": float(np.mean([1.0 - change.jaccard for change in transitions])),
    }


def _node_accounts(series: CircuitSeries, nodes: dict[str, float], edges: dict[str, float]) -> dict[str, float]:
    """Edge changes that node changes account for, over all transitions and net."""
    induced = {
        "cumulative": sum(node_induced_changes(series, *pair) for pair in series.consecutive()),
        "net": node_induced_changes(series, 0, len(series.checkpoints) - 1),
    }
    edges_per_node = ratio(edges["initial"], nodes["initial"])
    accounts: dict[str, float] = {}
    for span, count in induced.items():
        changed = edges[f"changed_{span}"]
        estimate = nodes[f"changed_{span}"] * edges_per_node
        accounts[f"node_induced_{span}"] = count
        accounts[f"node_induced_share_{span}"] = ratio(count, changed)
        accounts[f"node_based_estimate_{span}"] = estimate
        accounts[f"excess_over_estimate_{span}"] = ratio(changed, estimate)
    return accounts
