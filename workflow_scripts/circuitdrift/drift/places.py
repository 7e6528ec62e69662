"""The places of layers by their change: the order, and those on top. No torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int


def in_order(values: Float[np.ndarray, "row layers"]) -> Int[np.ndarray, "row layers"]:
    """Each layer's place by value, from 0 for the largest; of equal values the lower layer comes first."""
    order = np.argsort(-values, axis=1, kind="stable")
    return np.argsort(order, axis=1)


def is_top(values: Float[np.ndarray, "row layers"], top: int) -> Bool[np.ndarray, "row layers"]:
    """Whether a layer is among the ``top`` layers of largest value, its own value above zero."""
    return (in_order(values) < top) & (values > 0)
