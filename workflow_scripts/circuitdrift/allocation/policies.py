"""Policies: which layers are critical. The tables follow the schema ``critical_layers``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from circuitdrift.allocation.ranks import AllocationError

RANDOM = "random"


def draw_layers(n_layers: int, critical: int, seed: int, draw: int) -> pd.DataFrame:
    """Rank all layers by uniform random values and call the first ``critical`` of them critical.

    Args:
        n_layers: number of decoder blocks.
        critical: number of critical layers.
        seed: seed of the run.
        draw: number of the draw; together with the seed it determines the values.

    Returns:
        One row per layer, in layer order: layer, policy ("random"), value in [0, 1), rank_order (1 = largest value),
        critical.

    Raises:
        AllocationError: there are fewer layers than are to be critical.
    """
    if critical > n_layers:
        raise AllocationError(
            f"critical_layers: {critical} is more than the {n_layers} layers of the model; "
            f"lower it to at most {n_layers}"
        )
    values = np.random.default_rng([seed, draw]).random(n_layers)
    order = np.empty(n_layers, dtype=np.int16)
    order[np.argsort(-values, kind="stable")] = np.arange(1, n_layers + 1)
    return pd.DataFrame(
        {
            "layer": np.arange(n_layers, dtype=np.int16),
            "policy": RANDOM,
            "value": values,
            "rank_order": order,
            "critical": order <= critical,
        }
    )


def critical_layers(table: pd.DataFrame, policy: str, expected: int) -> tuple[int, ...]:
    """The critical layers of one policy, in ascending order.

    Args:
        table: a ``critical_layers`` table, of one or several policies.
        policy: the policy whose rows count.
        expected: how many critical layers the method asks for.

    Raises:
        AllocationError: the table has no such policy, or another number of critical layers.
    """
    rows = table[table["policy"] == policy]
    if rows.empty:
        raise AllocationError(
            f"the table of critical layers has no policy '{policy}', only {sorted(set(table['policy']))}; "
            "set the method's policy to one of them"
        )
    layers = tuple(sorted(int(layer) for layer in rows.loc[rows["critical"], "layer"]))
    if len(layers) != expected:
        raise AllocationError(
            f"policy '{policy}' marks {len(layers)} layers as critical {list(layers)}, the method asks for {expected}; "
            "make the table of critical layers again, or set critical_layers to the number that it marks"
        )
    return layers
