"""Changes layer by layer, and the order of the layers by change, from which ranks are allocated."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from circuitdrift.drift.series import CircuitSeries, DriftError

Scores: TypeAlias = Float[np.ndarray, " edges"]

POLICIES = ("score_change", "score_change_normalised")


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
    the change of the transition.

    Returns:
        Columns of the ``layers`` schema, one row for each pair of checkpoints, level and layer. ``score_change`` has
        the unit of the scores; ``score_change_normalised`` is the change with each circuit scaled to unit mass, so
        its sum over layers lies in [0, 2]. Both are NaN at the level ``node``.
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
        change = score_changes(scores_before, scores_after)
        normalised = score_changes(unit_mass(scores_before), unit_mass(scores_after))
        frames.append(nodes.assign(**pair, level="node", score_change=np.nan, score_change_normalised=np.nan))
        frames.append(
            edges.assign(
                **pair,
                level="edge",
                score_change=_sum_by_layer(change, series.edge_source_layer, series.n_layers),
                score_change_normalised=_sum_by_layer(normalised, series.edge_source_layer, series.n_layers),
            )
        )
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
    return np.bincount(layer, weights=values, minlength=n_layers)


def net_edge_changes(layers: pd.DataFrame, origin: str) -> pd.DataFrame:
    """The edge rows of a ``layers`` table from the first to the last checkpoint, by layer.

    Raises:
        DriftError: the table has no such rows.
    """
    first, last = layers["from_checkpoint"].min(), layers["to_checkpoint"].max()
    spans = (layers["from_checkpoint"] == first) & (layers["to_checkpoint"] == last) & (layers["level"] == "edge")
    if not spans.any():
        raise DriftError(
            f"{origin}: has no edge rows from checkpoint '{first}' to '{last}'; compare the circuits again"
        )
    net: pd.DataFrame = layers.loc[spans].sort_values("layer").reset_index(drop=True)
    return net


def order_layers(layers: pd.DataFrame, top: int, origin: str) -> pd.DataFrame:
    """Order the layers by the net change of their outgoing edges, raw (the paper's rule) and normalised.

    Definitions: docs/method.md#critical-layers.

    Args:
        layers: a ``layers`` table, of which only the rows from the first to the last checkpoint count.
        top: number of critical layers.
        origin: source of the table, for messages.

    Returns:
        Columns of the ``critical_layers`` schema: every layer once for each policy, in this order. rank_order 1 is
        the largest change; of equal changes the lower layer comes first.

    Raises:
        DriftError: ``top`` exceeds the number of layers, a value is not finite, or the table has no net rows.
    """
    net = net_edge_changes(layers, origin)
    if not 1 <= top <= len(net):
        raise DriftError(
            f"{origin}: cannot call {top} of {len(net)} layers critical; set critical_layers to 1..{len(net)}"
        )
    frames = []
    for policy in POLICIES:
        if not np.isfinite(net[policy].to_numpy(dtype="float64")).all():
            raise DriftError(f"{origin}: column '{policy}' has values that are not finite; compare the circuits again")
        ordered = net[["layer", policy]].rename(columns={policy: "value"})
        ordered = ordered.sort_values(["value", "layer"], ascending=[False, True]).reset_index(drop=True)
        order = np.arange(1, len(ordered) + 1)
        frames.append(ordered.assign(policy=policy, rank_order=order, critical=order <= top))
    return pd.concat(frames, ignore_index=True)[["layer", "policy", "value", "rank_order", "critical"]]
