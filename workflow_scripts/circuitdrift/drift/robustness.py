"""How alike circuits of one model stay when prompts are replaced, and over disjoint splits of the prompts.

Two controls from scores by fold (docs/method.md#robustness):

- ``perturbed``: the circuit of all prompts beside that of the same prompts with a share replaced by fresh ones, fold by
  fold. Scores are means over folds, so replacing folds needs no further scoring.
- ``disjoint_splits``: circuits of disjoint groups of folds beside one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from jaxtyping import Int

from circuitdrift.drift.reliability import (
    Describe,
    FoldScores,
    Pairs,
    interval_of,
    jackknife_covariance,
    mean_of_defined,
    similarities_of_pairs,
)
from circuitdrift.drift.series import DriftError

PERTURBED, DISJOINT_SPLITS = "perturbed", "disjoint_splits"
TENTHS = range(1, 10)
DEALINGS = 20
"""How often folds are dealt into disjoint groups."""

SEED = 0

Orders = Int[np.ndarray, "draw fold"]
"""Random orders of the folds: the first ones are replaced, or they are dealt into groups in this order."""


@dataclass(frozen=True)
class Control:
    """Pairs of sets of folds whose circuits one control compares.

    Attributes:
        name: ``perturbed`` or ``disjoint_splits``.
        share: share of the folds that are replaced; NaN for ``disjoint_splits``.
        draws: draws, or dealings, behind ``pairs``.
        examples: prompts behind each circuit.
        pairs: the pairs from all folds.
        replicates: for each fold, pairs in which it and the one that replaces it are left out.
    """

    name: str
    share: float
    draws: int
    examples: int
    pairs: Pairs
    replicates: Sequence[Pairs]


def tabulate_robustness(
    clean: FoldScores, perturbed: FoldScores | None, draws: int, splits: int, describe: Describe
) -> pd.DataFrame:
    """The robustness of one model's circuits.

    Args:
        clean: scores of the circuit split.
        perturbed: scores of the fresh prompts that replace those of each fold; None where there are none.
        draws: draws of the folds that are replaced, for each share.
        splits: disjoint groups of folds; 0 for none.
        describe: from :func:`circuitdrift.drift.fold_circuits.features_of_circuits`.

    Returns:
        Columns of the ``robustness`` schema without the checkpoint.

    Raises:
        DriftError: the folds of the fresh prompts are not as large as those that they replace.
    """
    controls = [] if perturbed is None else list(_replacements(clean.sizes, draws))
    if splits and clean.n_folds >= splits:
        controls.append(_disjoint_splits(clean.sizes, splits))
    both = clean if perturbed is None else _beside(clean, perturbed)
    frames = [_measured(both, control, clean.n_folds, describe) for control in controls]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_COLUMNS)


_COLUMNS = ["control", "share", "draws", "examples", "level", "measure", "similarity", "lower", "upper"]


def numbers_replaced(n_folds: int) -> list[int]:
    """The numbers of folds that come nearest to 10, 20, ..., 90 % of them, each once; neither none nor all."""
    return sorted({min(n_folds - 1, max(1, round(tenths * n_folds / 10))) for tenths in TENTHS})


def _beside(clean: FoldScores, perturbed: FoldScores) -> FoldScores:
    """The folds of the circuit split, then those that replace them."""
    if not np.array_equal(clean.sizes, perturbed.sizes):
        raise DriftError(
            f"the fresh prompts lie in folds of {perturbed.sizes.tolist()}, the circuit split in folds of "
            f"{clean.sizes.tolist()}; score the perturbed split again"
        )
    scores = np.concatenate([clean.scores, perturbed.scores])
    return FoldScores(scores, np.concatenate([clean.sizes, perturbed.sizes]))


def _replacements(sizes: Int[np.ndarray, " fold"], draws: int) -> Iterator[Control]:
    """The control ``perturbed`` at each share; pairs are over the folds of the split and those that replace them."""
    n_folds = len(sizes)
    for number in numbers_replaced(n_folds):
        orders = draw_orders(n_folds, number, draws)
        pairs, balanced = (_replaced(drawn, number) for drawn in (orders, rotations(n_folds)))
        replicates = _leave_folds_out(balanced, n_folds)
        yield Control(PERTURBED, number / n_folds, len(orders), int(sizes.sum()), pairs, replicates)


def draw_orders(n_folds: int, number: int, draws: int) -> Orders:
    """Random orders of the folds whose first ``number`` folds are different sets; fewer where fewer sets exist."""
    generator = np.random.default_rng(SEED)
    orders: dict[frozenset[int], Int[np.ndarray, " fold"]] = {}
    while len(orders) < min(draws, comb(n_folds, number)):
        order = generator.permutation(n_folds)
        orders.setdefault(frozenset(order[:number].tolist()), order)
    return np.stack(list(orders.values()))


def rotations(n_folds: int) -> Orders:
    """As many orders as folds, in which each fold comes once at each place.

    So it is as often replaced, or as often in a group, as any other: replicates of a jackknife that leave out a fold
    then differ by its prompts and not by the draw.
    """
    order = np.random.default_rng(SEED).permutation(n_folds)
    return np.stack([np.roll(order, shift) for shift in range(n_folds)])


def _leave_folds_out(pairs: Pairs, n_folds: int) -> list[Pairs]:
    """The pairs without each fold in turn and the one that replaces it; pairs with an empty side are dropped."""
    replicates = []
    for fold in range(n_folds):
        left = pairs.copy()
        left[:, :, fold::n_folds] = False
        replicates.append(left[np.all(left.any(axis=2), axis=1)])
    return replicates


def _replaced(orders: Orders, number: int) -> Pairs:
    """All folds beside the same with the first ``number`` of each order replaced."""
    n_folds = orders.shape[1]
    pairs = np.zeros((len(orders), 2, 2 * n_folds), dtype=bool)
    pairs[:, 0, :n_folds] = True
    for pair, order in zip(pairs, orders, strict=True):
        pair[1, order[number:]] = True
        pair[1, n_folds + order[:number]] = True
    return pairs


def _disjoint_splits(sizes: Int[np.ndarray, " fold"], splits: int) -> Control:
    """The control ``disjoint_splits``; left-over folds of a dealing are in none of its groups."""
    n_folds, size = len(sizes), len(sizes) // splits
    generator = np.random.default_rng(SEED)
    orders = np.stack([generator.permutation(n_folds) for _ in range(DEALINGS)])
    pairs, balanced = (_dealt(drawn, splits, size) for drawn in (orders, rotations(n_folds)))
    examples = round(size * float(sizes.mean()))
    return Control(DISJOINT_SPLITS, np.nan, DEALINGS, examples, pairs, _leave_folds_out(balanced, n_folds))


def _dealt(orders: Orders, splits: int, size: int) -> Pairs:
    """Every two of the groups into which each order deals the folds."""
    groups = np.zeros((len(orders), splits, orders.shape[1]), dtype=bool)
    dealt = orders[:, : splits * size].reshape(len(orders), splits, size)
    np.put_along_axis(groups, dealt, True, axis=2)
    ends = np.array(list(combinations(range(splits), 2)))
    pairs: Pairs = groups[:, ends].reshape(-1, 2, orders.shape[1])
    return pairs


def _measured(scores: FoldScores, control: Control, n_folds: int, describe: Describe) -> pd.DataFrame:
    """The mean similarities of a control's pairs, with intervals from its replicates."""
    several = [control.pairs, *control.replicates]
    ends = np.cumsum([len(pairs) for pairs in several])[:-1]
    together = np.concatenate(several)
    padded = np.zeros((*together.shape[:2], len(scores.sizes)), dtype=bool)
    padded[..., : together.shape[2]] = together
    rows = []
    for (level, measure), values in similarities_of_pairs(scores, padded, describe).items():
        means = [float(mean_of_defined(part[:, None])) for part in np.split(values, ends)]
        error = float(np.sqrt(jackknife_covariance(np.array(means[1:])[:, None])[0, 0]))
        lower, upper = interval_of(means[0], error, n_folds)
        numbers = (means[0], lower, upper)
        rows.append((control.name, control.share, control.draws, control.examples, level, measure, *numbers))
    return pd.DataFrame(rows, columns=_COLUMNS)
