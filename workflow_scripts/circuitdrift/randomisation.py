"""Exact tests of a choice of layers, where every set of as many layers has been trained (docs/method.md#layer-sets).

The null hypothesis is that the drift of a layer says nothing about the worth of rank there. The names of the layers
that drift has chosen could then be exchanged: each relabelling of the layers was as likely as the names that were
found. One relabelling applies to all runs alike, because tasks and seeds share a base model and mostly choose the same
layers: they are no independent draws.
"""

from __future__ import annotations

from itertools import permutations
from math import comb, factorial

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from circuitdrift.errors import CircuitDriftError

MOST_RELABELLINGS = factorial(8)
"""Larger numbers of relabellings are not run through but drawn from."""

DRAWN = 10_000
_TOLERANCE = 1e-9


def places(accuracies: Float[np.ndarray, "run set"]) -> Float[np.ndarray, "run set"]:
    """The place of each set in each run, 1 for the highest accuracy; sets of equal accuracy share their mean place."""
    ranks: Float[np.ndarray, "run set"] = stats.rankdata(-accuracies, axis=1)
    return ranks


def relabellings(n_layers: int) -> Int[np.ndarray, "relabelling layer"]:
    """New names of the layers: all permutations, the identity first; of more than 8 layers the identity and draws."""
    if factorial(n_layers) <= MOST_RELABELLINGS:
        return np.array(list(permutations(range(n_layers))))
    random = np.random.default_rng(0)
    drawn = [random.permutation(n_layers) for _ in range(DRAWN - 1)]
    return np.array([np.arange(n_layers), *drawn])


def p_value_of_choice(
    worth: Float[np.ndarray, "run set"], chosen: Int[np.ndarray, " run"], sets: Bool[np.ndarray, "set layer"]
) -> float:
    """One-sided p-value of the worth of the chosen sets, summed over runs: high worth gives a low p-value.

    It is the share of relabellings whose sum is at least as high. In one run each set is the image of the chosen one
    equally often: the p-value is then the share of sets that are worth at least as much.

    Args:
        worth: what each set is worth in each run, such as its accuracy.
        chosen: the row of ``sets`` that each run chose.
        sets: all sets of a size, True for their layers.

    Raises:
        CircuitDriftError: a set of this size is missing.
    """
    codes, rows = _in_order(sets)
    if len(worth) == 1:
        return _share_at_least(worth[0], float(worth[0, chosen[0]]))
    names = relabellings(sets.shape[1])
    total = np.zeros(len(names))
    for values, own in zip(worth, chosen, strict=True):
        images = names[:, np.flatnonzero(sets[own])]
        total += values[rows[np.searchsorted(codes, (1 << images).sum(axis=1))]]
    return _share_at_least(total, float(total[0]))


def correlation_with_drift(
    accuracies: Float[np.ndarray, "run set"], drift: Float[np.ndarray, "run layer"], sets: Bool[np.ndarray, "set layer"]
) -> tuple[float, float]:
    """Spearman's rank correlation of the drift in a set with its accuracy, mean over runs, and its one-sided p-value.

    The drift in a set is the sum over its layers. Sets share layers, so they are no independent observations; the
    p-value is therefore the share of relabellings of the drift whose correlation is at least as high.

    Args:
        accuracies: of each set in each run.
        drift: of each layer in each run's phase 1.
        sets: all sets of a size, True for their layers.

    Returns:
        The correlation and the p-value; NaN for both where all sets of a run have one accuracy or one drift.
    """
    names = relabellings(sets.shape[1])
    total = np.zeros(len(names))
    for values, of_layers in zip(accuracies, drift, strict=True):
        in_sets = of_layers[names] @ sets.T.astype(float)
        total += _row_correlations(stats.rankdata(in_sets, axis=1), stats.rankdata(values))
    if np.isnan(total).any():
        return float("nan"), float("nan")
    return float(total[0]) / len(accuracies), _share_at_least(total, float(total[0]))


def _share_at_least(values: Float[np.ndarray, " value"], observed: float) -> float:
    """The share of values that are at least as high as one of them; ties count, up to rounding."""
    return float(np.mean(values >= observed - _TOLERANCE))


def _in_order(sets: Bool[np.ndarray, "set layer"]) -> tuple[Int[np.ndarray, " set"], Int[np.ndarray, " set"]]:
    """The code of each set, the sum of 2^layer over its layers, in ascending order, and the row of each.

    Raises:
        CircuitDriftError: a set of this size is missing, or there twice.
    """
    n_layers, size = sets.shape[1], int(sets[0].sum())
    codes = (sets * (1 << np.arange(n_layers))).sum(axis=1)
    if (sets.sum(axis=1) != size).any() or len(set(codes.tolist())) != len(sets) or len(sets) != comb(n_layers, size):
        raise CircuitDriftError(
            f"{len(sets)} sets are not all sets of {size} of {n_layers} layers; train the missing ones"
        )
    rows = np.argsort(codes)
    return codes[rows], rows


def _row_correlations(
    rows: Float[np.ndarray, "relabelling set"], other: Float[np.ndarray, " set"]
) -> Float[np.ndarray, " relabelling"]:
    """Pearson's correlation of each row with ``other``; NaN where either is constant."""
    rows, other = rows - rows.mean(axis=1, keepdims=True), other - other.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return (rows @ other) / np.sqrt((rows**2).sum(axis=1) * (other**2).sum())
