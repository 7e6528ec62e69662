"""Policies: the critical layers, and the weight of each layer. Tables follow the schema ``critical_layers``."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from circuitdrift.allocation.ranks import AllocationError

RANDOM = "random"
EXCESS = "excess"


def draw_layers(
    n_layers: int,
    critical: int,
    seed: int,
    draw: int,
    drawn_for: str,
    include: Collection[int] = (),
    exclude: Collection[int] = (),
) -> pd.DataFrame:
    """Order all layers by uniform random values and mark the first ``critical`` layers as critical.

    Args:
        n_layers: number of decoder blocks.
        critical: number of critical layers.
        seed: seed of the fine-tuning.
        draw: number of the draw.
        drawn_for: names of the model and the task. They determine the values together with the seed and the draw, so
            that draws for several tasks are independent.
        include: layers that come before all others, whatever their values.
        exclude: layers that come after all others and are never critical.

    Returns:
        One row per layer, in layer order: layer, policy ("random"), value in [0, 1), rank_order (position in the
        order, from 1), critical. The columns that describe drift are null.

    Raises:
        AllocationError: there are too few layers to draw from, or the model lacks a named layer.
    """
    if unknown := sorted({*include, *exclude} - set(range(n_layers))):
        raise AllocationError(
            f"include_layers, exclude_layers: {unknown} are not layers of this model, which has layers "
            f"0..{n_layers - 1}; name other layers"
        )
    if critical > n_layers:
        raise AllocationError(
            f"critical_layers: {critical} is more than the {n_layers} layers of the model; "
            f"lower it to at most {n_layers}"
        )
    if critical > n_layers - len(set(exclude)):
        raise AllocationError(
            f"critical_layers: {critical} cannot be drawn from {n_layers} layers without {sorted(set(exclude))}; "
            "lower it, or exclude fewer layers"
        )
    names = int.from_bytes(hashlib.sha256(drawn_for.encode()).digest()[:8], "big")
    values = np.random.default_rng([seed, draw, names]).random(n_layers)
    order = np.empty(n_layers, dtype=np.int16)
    layers = np.arange(n_layers)
    group = np.isin(layers, list(exclude)).astype(int) - np.isin(layers, list(include)).astype(int)
    order[np.lexsort((-values, group))] = np.arange(1, n_layers + 1)
    return pd.DataFrame(
        {
            "layer": np.arange(n_layers, dtype=np.int16),
            "policy": RANDOM,
            "value": values,
            "rank_order": order,
            "critical": order <= critical,
            "credit": None,
            "above_threshold": None,
            "in_top": np.nan,
            "lower": np.nan,
            "upper": np.nan,
        }
    )


def above_threshold(values: Float[np.ndarray, " layers"]) -> Bool[np.ndarray, " layers"]:
    """Which values exceed the mean of all by more than one standard deviation."""
    above: Bool[np.ndarray, " layers"] = values > values.mean() + values.std()
    return above


def critical_layers(table: pd.DataFrame, policy: str, expected: int) -> tuple[int, ...]:
    """The critical layers of one policy, in ascending order.

    Args:
        table: a ``critical_layers`` table of one or several policies.
        policy: the policy whose rows count.
        expected: number of critical layers that the method asks for.

    Raises:
        AllocationError: the table lacks the policy, marks no layer because nothing changed, or marks another number of
            layers.
    """
    rows = _rows_of(table, policy)
    layers = tuple(sorted(int(layer) for layer in rows.loc[rows["critical"], "layer"]))
    if not layers:
        raise AllocationError(
            f"policy '{policy}' marks no layer as critical: nothing changed between the first circuit and the last, so "
            "ranks cannot follow the change; train phase_1 longer, import circuits that differ, or use lora or "
            "random_lora"
        )
    if len(layers) != expected:
        raise AllocationError(
            f"policy '{policy}' marks {len(layers)} layers as critical {list(layers)}, the method asks for {expected}; "
            "set critical_layers to this number (a layer without change is never critical), or make the table again"
        )
    return layers


def layer_weights(table: pd.DataFrame, policy: str, allocation: str, count: int) -> dict[int, float]:
    """The weight of every layer in the rank above the common rank.

    Args:
        table: a ``critical_layers`` table.
        policy: the policy whose values count, such as ``score_change``.
        allocation: ``top`` (weight 1 for the ``count`` layers of the largest values), ``inverted`` (for the layers of
            the smallest), ``threshold`` (weight 1 for values above the mean by more than a standard deviation, or for
            the largest value if there are none), or ``proportional`` (the values themselves; a negative excess, which
            noise alone explains, counts as 0).
        count: number of critical layers.

    Raises:
        AllocationError: the table lacks the policy, has fewer layers than ``count``, or has values that are not
            finite, negative (but for ``excess``) or (for ``proportional``) nowhere above zero.
    """
    rows = _rows_of(table, policy).sort_values("rank_order")
    layers, values = rows["layer"].to_numpy(), rows["value"].to_numpy(dtype="float64")
    if count > len(layers):
        raise AllocationError(f"critical_layers: {count} is more than the {len(layers)} layers of the model; lower it")
    if not (np.isfinite(values).all() and (policy == EXCESS or (values >= 0).all())):
        raise AllocationError(f"policy '{policy}' has values that are negative or not finite; order the layers again")
    match allocation:
        case "top":
            weights = np.arange(len(layers)) < count
        case "inverted":
            weights = np.arange(len(layers)) >= len(layers) - count
        case "threshold":
            above = above_threshold(values)
            weights = above if above.any() else np.arange(len(layers)) == 0
        case "proportional":
            weights = np.maximum(values, 0)
        case other:
            raise AllocationError(f"allocation: '{other}' is unknown; choose top, threshold, proportional or inverted")
    if not weights.any():
        raise AllocationError(
            f"policy '{policy}' gives no layer any weight: all values are zero or below; use allocation: top"
        )
    return {int(layer): float(weight) for layer, weight in zip(layers, weights, strict=True)}


def _rows_of(table: pd.DataFrame, policy: str) -> pd.DataFrame:
    rows = table[table["policy"] == policy]
    if rows.empty:
        raise AllocationError(
            f"the table of critical layers has no policy '{policy}', only {sorted(set(table['policy']))}; "
            "set the method's policy to one of them"
        )
    return rows
