"""Whole ranks that have exactly a given number of parameters, as near as possible to the ranks that are wanted."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from circuitdrift.allocation.ranks import AllocationError

NEGLIGIBLE = 1e-12
"""A weight below this share of the largest counts as zero."""


def bounded_shares(
    cost: Int[np.ndarray, " module"],
    weights: Float[np.ndarray, " module"],
    smallest: Int[np.ndarray, " module"],
    largest: Int[np.ndarray, " module"],
    budget: int,
) -> Float[np.ndarray, " module"]:
    """Real ranks in proportion to the weights, cut at their bounds, that cost the budget up to rounding.

    Args:
        cost: parameters of a unit of rank in each module.
        weights: finite and not negative.
        smallest: lower bounds of the ranks.
        largest: upper bounds of the ranks.
        budget: parameters of all adapters together.

    Raises:
        AllocationError: a weight is negative or not finite, or no factor of the weights costs the budget.
    """
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise AllocationError("a value that ranks follow is negative or not finite; measure the values again")

    relative = weights / max(weights.max(), np.finfo(float).tiny)
    relative[relative < NEGLIGIBLE] = 0.0
    least, most = int(cost @ smallest), int(cost @ np.where(relative > 0, largest, smallest))
    if not least <= budget <= most:
        raise AllocationError(
            f"ranks within their bounds have {least:,} to {most:,} parameters, so none have the {budget:,} wanted; "
            "choose another critical_rank or critical_layers, or another allocation"
        )

    def shares(factor: float) -> Float[np.ndarray, " module"]:
        return np.clip(factor * relative, smallest, largest)

    low, high = 0.0, largest.max() / NEGLIGIBLE
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if cost @ shares(middle) < budget else (low, middle)
    return shares(high)


def nearest_ranks(
    cost: Int[np.ndarray, " module"],
    wanted: Float[np.ndarray, " module"],
    smallest: Int[np.ndarray, " module"],
    largest: Int[np.ndarray, " module"],
    budget: int,
) -> Int[np.ndarray, " module"]:
    """The whole ranks of exactly the budget with the smallest sum of cost x (rank - wanted)^2.

    The search looks at ranks within a window around the wanted ones, and doubles it until no rank outside could be in
    a better solution: such a rank alone would add more than the whole sum found. In the window the minimum is found by
    dynamic programming over the parameters spent, in units of the greatest common divisor of the costs. Of equally near
    solutions the same one is found each time.

    Args:
        cost: parameters of a unit of rank in each module.
        wanted: real ranks within the bounds.
        smallest: lower bounds of the ranks.
        largest: upper bounds of the ranks.
        budget: parameters of all adapters together.

    Raises:
        AllocationError: no whole ranks within the bounds have exactly the budget.
    """
    unit = math.gcd(*cost.tolist())
    units, spent = cost // unit, budget // unit
    window, widest = 1, int((largest - smallest).max()) + 1
    while budget % unit == 0:
        low = np.maximum(smallest, np.floor(wanted).astype(np.int64) - window)
        high = np.minimum(largest, np.ceil(wanted).astype(np.int64) + window)
        ranks = _nearest_between(units, wanted, low, high, spent)
        distance = math.inf if ranks is None else float(units @ (ranks - wanted) ** 2)
        if ranks is not None and (distance <= units.min() * window**2 or window >= widest):
            return ranks
        if window >= widest:
            break
        window *= 2
    raise AllocationError(
        f"no whole ranks of the {int((largest > 0).sum())} modules to adapt have exactly {budget:,} parameters (a unit "
        f"of rank has {', '.join(f'{value:,}' for value in sorted(set(cost[largest > 0].tolist())))}); choose another "
        "rank, critical_rank or critical_layers, or another allocation"
    )


def _nearest_between(
    cost: Int[np.ndarray, " module"],
    wanted: Float[np.ndarray, " module"],
    low: Int[np.ndarray, " module"],
    high: Int[np.ndarray, " module"],
    budget: int,
) -> Int[np.ndarray, " module"] | None:
    """The nearest ranks of exactly the budget between two bounds; None if there are none."""
    distance = np.full(budget + 1, np.inf)
    distance[0] = 0.0
    chosen = np.zeros((len(cost), budget + 1), dtype=np.int32)
    for module, (price, share) in enumerate(zip(cost.tolist(), wanted.tolist(), strict=True)):
        best = np.full(budget + 1, np.inf)
        for rank in range(int(low[module]), min(int(high[module]), budget // price) + 1):
            start = rank * price
            reached = distance[: budget + 1 - start] + price * (rank - share) ** 2
            better = reached < best[start:]
            best[start:][better] = reached[better]
            chosen[module, start:][better] = rank
        distance = best
    if not np.isfinite(distance[budget]):
        return None
    ranks, left = np.zeros(len(cost), dtype=np.int64), budget
    for module in reversed(range(len(cost))):
        ranks[module] = chosen[module, left]
        left -= int(ranks[module] * cost[module])
    return ranks
