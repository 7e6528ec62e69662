"""Changes layer by layer (docs/method.md#layer-credit)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from circuitdrift.drift.series import CircuitSeries

Scores: TypeAlias = Float[np.ndarray, " edges"]

AT_TARGET = "_at_target"
"""Ends the names of columns that credit changes to the layers that read."""


def score_changes(before: Scores, after: Scores) -> Scores:
    """|score after - score before| of each edge, with score 0 if a circuit lacks the edge."""
    change: Scores = np.abs(after - before)
    return change


def unit_mass(scores: Scores) -> Scores:
    """Scores divided by the sum of their absolute values; if all scores are zero, they stay zero.

    Fine-tuning enlarges the objective, and every score with it. With unit mass a difference shows where the circuit's
    weight moved, not that it grew (docs/method.md#layer-credit).
    """
    mass = np.abs(scores).sum()
    return scores / mass if mass > 0 else scores


def tabulate_layers(series: CircuitSeries) -> pd.DataFrame:
    """Changes in each layer: from each checkpoint to the next, and net from the first to the last.

    A node counts in its own layer, an edge in the layer of its source; the input counts as layer 0. The logits, beyond
    the last layer, are left out: every circuit but the empty one holds them. So the changes of all layers add up to
    the change of the transition. The columns that end in ``_at_target`` count an edge in the layer of its target
    instead, and leave out the edges to the logits, which belong to no layer.

    Returns:
        Columns of the ``layers`` schema, one row for each pair of checkpoints, level and layer. ``score_change`` has
        the unit of the scores; ``score_change_normalised`` is the change with each circuit scaled to unit mass, so
        its sum over layers lies in [0, 2]. These and their ``_at_target`` twins are NaN at the level ``node``.
    """
    frames = []
    for before, after in series.with_net():
        scores_before, scores_after = series.edge_score[before], series.edge_score[after]
        pair = {"from_checkpoint": series.checkpoints[before], "to_checkpoint": series.checkpoints[after]}
        nodes = _membership_changes(
            series.node_kept[before], series.node_kept[after], series.node_layer, series.n_layers
        )
        edges = _membership_changes(
            series.edge_kept[before], series.edge_kept[after], series.edge_source_layer, series.n_layers
        )
        changes = {
            "score_change": score_changes(scores_before, scores_after),
            "score_change_normalised": score_changes(unit_mass(scores_before), unit_mass(scores_after)),
        }
        credited = {
            f"{policy}{ending}": _sum_by_layer(change, layer, series.n_layers)
            for ending, layer in (("", series.edge_source_layer), (AT_TARGET, series.node_layer[series.edge_target]))
            for policy, change in changes.items()
        }
        frames.append(nodes.assign(**pair, level="node", **dict.fromkeys(credited, np.nan)))
        frames.append(edges.assign(**pair, level="edge", **credited))
    return pd.concat(frames, ignore_index=True)


def _membership_changes(
    before: Bool[np.ndarray, " parts"],
    after: Bool[np.ndarray, " parts"],
    layer: Int[np.ndarray, " parts"],
    n_layers: int,
) -> pd.DataFrame:
    """Numbers of parts added and removed in each layer, one row for each layer of the model."""
    return pd.DataFrame(
        {
            "layer": np.arange(n_layers),
            "added": np.bincount(layer[after & ~before], minlength=n_layers)[:n_layers],
            "removed": np.bincount(layer[before & ~after], minlength=n_layers)[:n_layers],
        }
    )


def _sum_by_layer(values: Scores, layer: Int[np.ndarray, " edges"], n_layers: int) -> Float[np.ndarray, " layers"]:
    """Sums over the edges of each layer; those of the logits, beyond the last layer, are left out."""
    return np.bincount(layer, weights=values, minlength=n_layers)[:n_layers]
