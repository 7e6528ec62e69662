"""The order of the layers by change, from which ranks are allocated (docs/method.md#critical-layers)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitdrift.allocation.policies import EXCESS, above_threshold
from circuitdrift.config.methods import Credit
from circuitdrift.drift.layer_certainty import LayerResamples, intervals_of, top_shares
from circuitdrift.drift.layers import AT_TARGET
from circuitdrift.drift.places import in_order, is_top
from circuitdrift.drift.series import DriftError

POLICIES = ("score_change", "score_change_normalised")
"""Those that need one circuit before and one after."""


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


def order_layers(
    layers: pd.DataFrame, top: int, origin: str, credit: Credit = "source", resampled: LayerResamples | None = None
) -> pd.DataFrame:
    """Order the layers by their net change: raw (the paper's rule), normalised and, from scores by fold, beyond noise.

    A layer is critical if it is among the ``top`` layers of largest change and its change is above zero.

    Args:
        layers: a ``layers`` table, of which only the rows from the first to the last checkpoint count.
        top: number of critical layers.
        origin: source of the table, for messages.
        credit: the layer to which an edge's change counts. With ``counts`` the one policy is ``score_change``, whose
            values are then numbers of edges.
        resampled: the changes of resampled folds, with the same credit; None where no scores by fold exist.

    Returns:
        Columns of the ``critical_layers`` schema: every layer once for each policy, in this order. rank_order 1 is
        the largest change; of equal changes the lower layer comes first. ``in_top``, ``lower`` and ``upper`` are NaN
        without resamples.

    Raises:
        DriftError: ``top`` exceeds the number of layers, a value is not finite, or the table has no net rows or no
            column that the credit needs.
    """
    net = net_edge_changes(layers, origin)
    if not 1 <= top <= len(net):
        raise DriftError(
            f"{origin}: cannot call {top} of {len(net)} layers critical; set critical_layers to 1..{len(net)}"
        )
    changes = _credited_changes(net, credit, origin)
    if resampled is not None and resampled.excess is not None:
        changes[EXCESS] = resampled.excess
    frames = [
        _ordered(policy, credit, values, top, None if resampled is None else resampled.by_policy[policy])
        for policy, values in changes.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _credited_changes(net: pd.DataFrame, credit: Credit, origin: str) -> dict[str, Float[np.ndarray, " layers"]]:
    """The change of each layer by the policies that need one circuit before and one after."""
    if credit == "counts":
        return {POLICIES[0]: net["added"].to_numpy(dtype="float64") + net["removed"].to_numpy(dtype="float64")}
    endings = {"source": ("",), "target": (AT_TARGET,), "both": ("", AT_TARGET)}[credit]
    changes = {}
    for policy in POLICIES:
        columns = [f"{policy}{ending}" for ending in endings]
        if missing := [column for column in columns if column not in net.columns]:
            raise DriftError(f"{origin}: has no columns {missing}, which credit {credit} needs; compare circuits again")
        for column in columns:
            if not np.isfinite(net[column].to_numpy(dtype="float64")).all():
                raise DriftError(
                    f"{origin}: column '{column}' has values that are not finite; compare the circuits again"
                )
        changes[policy] = net[columns].to_numpy(dtype="float64").mean(axis=1)
    return changes


def _ordered(
    policy: str,
    credit: Credit,
    values: Float[np.ndarray, " layers"],
    top: int,
    resampled: Float[np.ndarray, "resample layers"] | None,
) -> pd.DataFrame:
    """The rows of one policy, in order."""
    layers = np.arange(len(values))
    undefined = np.full(len(values), np.nan)
    lower, upper = (undefined, undefined) if resampled is None else intervals_of(resampled)
    table = pd.DataFrame(
        {
            "layer": layers,
            "policy": policy,
            "value": values,
            "rank_order": in_order(values[None])[0] + 1,
            "critical": is_top(values[None], top)[0],
            "credit": credit,
            "above_threshold": above_threshold(values),
            "in_top": undefined if resampled is None else top_shares(resampled, top),
            "lower": lower,
            "upper": upper,
        }
    )
    return table.sort_values("rank_order", ignore_index=True)
