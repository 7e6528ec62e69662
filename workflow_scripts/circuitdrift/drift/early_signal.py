"""How alike two orders of layers are: rank correlation, and what their first layers share, beside chance. No torch.

See docs/method.md#early-signal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitdrift.drift.places import is_top

Values = Float[np.ndarray, " layers"]
"""The change of each layer, in the order of the layers."""


def rank_correlation(one: Values, other: Values) -> float:
    """Spearman's correlation of two orders of layers; equal values share their mean rank. NaN where all are equal."""
    ranks = np.stack([pd.Series(values).rank().to_numpy() for values in (one, other)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    product = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return float(ranks[0] @ ranks[1]) / product if product > 0 else float("nan")


def shared_layers(one: Values, other: Values, top: int) -> int:
    """How many layers are among the ``top`` layers of largest change in both orders, their change above zero."""
    first, second = (is_top(values[None], top)[0] for values in (one, other))
    return int((first & second).sum())


def shared_by_chance(one: Values, other: Values, top: int) -> float:
    """The mean of :func:`shared_layers` over random orders: K^2 / L, the mean of a hypergeometric distribution.

    Where fewer than K layers have a change above zero, their number stands for K.
    """
    first, second = (int(is_top(values[None], top).sum()) for values in (one, other))
    return first * second / len(one)


def nearest_to_first_epoch(epochs: Sequence[float]) -> int | None:
    """The place of the checkpoint nearest to the end of the first epoch; of two equally near, the earlier.

    None where that is the last checkpoint, so that nothing comes later, or where no epochs are known.
    """
    distances = np.abs(np.asarray(epochs, dtype="float64") - 1)
    if not len(distances) or np.isnan(distances).any():
        return None
    nearest = int(distances.argmin())
    return nearest if nearest < len(distances) - 1 else None
