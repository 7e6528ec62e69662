r"""Drift measured against its own noise: similarities of circuits from disjoint halves of the prompts.

A circuit is estimated from a sample of prompts, so two circuits of one model differ when their prompts do. A change
between two checkpoints counts as drift only as far as it exceeds that difference. Scores are kept by fold: disjoint
groups of prompts, the same at every checkpoint. A random half-split draws two disjoint sets A and B of as many folds
each; with s a similarity, b the checkpoint before and a the checkpoint after,

    within_before  s(b on A, b on B)                                the noise of the earlier circuit
    within_after   s(a on A, a on B)                                the noise of the later circuit
    between        mean of s(b on A, a on B) and s(b on B, a on A)  noise and drift
    paired         mean of s(b on A, a on A) and s(b on B, a on B)  the same prompts: the estimate of drift
    excess         (within_before + within_after) / 2 - between     drift beyond noise; 0 where nothing drifts

each averaged over the half-splits. See docs/method.md#reliability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from circuitdrift.intervals import CONFIDENCE

MEASURES = ("jaccard", "ruzicka", "spearman", "pearson")
NUMBERS = ("within_before", "within_after", "between", "paired")

Halves = tuple[Bool[np.ndarray, "split fold"], Bool[np.ndarray, "split fold"]]
Features = Mapping[tuple[str, str], np.ndarray]
"""What each (level, measure) compares, one row for each half: [row, part]."""
Numbers = Mapping[tuple[str, str], Mapping[str, float]]
"""The mean similarities of :data:`NUMBERS`, by level and measure."""
Describe = Callable[[Float[np.ndarray, "row edge"]], Features]
"""From mean scores to features."""


@dataclass(frozen=True)
class FoldScores:
    """One checkpoint's scores by fold.

    Attributes:
        scores: mean score of each edge over the prompts of each fold.
        sizes: prompts in each fold.
    """

    scores: Float[np.ndarray, "fold edge"]
    sizes: Int[np.ndarray, " fold"]

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return len(self.sizes)

    def means(
        self, chosen: Bool[np.ndarray, "row fold"] | Int[np.ndarray, "row fold"]
    ) -> Float[np.ndarray, "row edge"]:
        """The mean over the prompts of the chosen folds; a fold that is chosen several times counts as often."""
        weights = chosen * self.sizes
        return weights @ self.scores / weights.sum(axis=1, keepdims=True)


def draw_halves(folds: Int[np.ndarray, " fold"], n_folds: int, size: int, n_splits: int, seed: int) -> Halves:
    """Random pairs of disjoint sets of ``size`` folds each, out of those given.

    With one seed, fewer folds give the same pairs less the folds that are missing, as far as that is possible: the
    replicates of a jackknife then differ by the fold left out and hardly by the draw.

    Args:
        folds: numbers of the folds to draw from, at least twice ``size``.
        n_folds: how many folds there are in all, the width of the masks.
        size: folds in each half.
        n_splits: how many pairs to draw.
        seed: seed of the draw.
    """
    generator = np.random.default_rng(seed)
    first = np.zeros((n_splits, n_folds), dtype=bool)
    second = np.zeros((n_splits, n_folds), dtype=bool)
    for split in range(n_splits):
        order = generator.permutation(n_folds)
        order = order[np.isin(order, folds)]
        first[split, order[:size]] = True
        second[split, order[size : 2 * size]] = True
    return first, second


def similarity(measure: str, one: np.ndarray, other: np.ndarray) -> Float[np.ndarray, " row"]:
    """Row by row, how alike two sets of features are; 1 for equal rows.

    ``jaccard`` compares memberships; two empty circuits have no similarity (NaN). ``ruzicka`` compares masses, sum of
    the smaller over sum of the larger. ``spearman`` (given ranks) and ``pearson`` are correlations, NaN where a row is
    constant.
    """
    if measure == "jaccard":
        return _ratio((one & other).sum(axis=1), (one | other).sum(axis=1))
    if measure == "ruzicka":
        return _ratio(np.minimum(one, other).sum(axis=1), np.maximum(one, other).sum(axis=1))
    one, other = (values - values.mean(axis=1, keepdims=True) for values in (one, other))
    return _ratio((one * other).sum(axis=1), np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> Float[np.ndarray, " row"]:
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1), np.nan)


def compare_halves(
    before: FoldScores, after: FoldScores, halves: Halves, describe: Describe
) -> dict[tuple[str, str], dict[str, float]]:
    """The four mean similarities of the module's table, by level and measure."""
    return compare_features(features_of_halves(before, halves, describe), features_of_halves(after, halves, describe))


def features_of_halves(scores: FoldScores, halves: Halves, describe: Describe) -> tuple[Features, Features]:
    """What is compared of one checkpoint, for the first and for the second halves."""
    return describe(scores.means(halves[0])), describe(scores.means(halves[1]))


def compare_features(
    before: tuple[Features, Features], after: tuple[Features, Features]
) -> dict[tuple[str, str], dict[str, float]]:
    """The four mean similarities of two checkpoints, from the features of both halves of each."""
    return {key: _four(key[1], *(half[key] for half in (*before, *after))) for key in before[0]}


def _four(
    measure: str, before_a: np.ndarray, before_b: np.ndarray, after_a: np.ndarray, after_b: np.ndarray
) -> dict[str, float]:
    def mean(*pairs: tuple[np.ndarray, np.ndarray]) -> float:
        values = np.concatenate([similarity(measure, *pair) for pair in pairs])
        defined = values[~np.isnan(values)]  # two empty circuits have no similarity
        return float(defined.mean()) if len(defined) else float("nan")

    return {
        "within_before": mean((before_a, before_b)),
        "within_after": mean((after_a, after_b)),
        "between": mean((before_a, after_b), (before_b, after_a)),
        "paired": mean((before_a, after_a), (before_b, after_b)),
    }


def excess_of(numbers: Mapping[str, float]) -> float:
    """Drift beyond noise: mean similarity within the checkpoints less that between them."""
    return (numbers["within_before"] + numbers["within_after"]) / 2 - numbers["between"]


def noise_of(numbers: Mapping[str, float]) -> float:
    """How far circuits of one checkpoint differ: 1 less the mean similarity within the checkpoints."""
    return 1 - (numbers["within_before"] + numbers["within_after"]) / 2


def corrected_similarity(numbers: Mapping[str, float]) -> float:
    """The similarity that scores without noise would have: between / sqrt(within_before x within_after).

    Spearman's correction for attenuation (1904). It holds for ``pearson``, where noise that is independent between the
    halves shrinks every correlation by the same factor. NaN where a within-similarity is not positive.
    """
    product = numbers["within_before"] * numbers["within_after"]
    positive = numbers["within_before"] > 0 and numbers["within_after"] > 0
    return numbers["between"] / float(np.sqrt(product)) if positive else float("nan")


def exchange_p_values(
    before: FoldScores, after: FoldScores, halves: Halves, describe: Describe, exchanges: int, seed: int
) -> dict[tuple[str, str], float]:
    """One-sided p-values of the excess, by exchanging before and after within folds.

    Where nothing drifted, each fold's two scores are two draws of the same thing, and exchanging them changes no
    distribution; so the excess with the true labels ranks anywhere among those with exchanged labels, equally likely.
    """
    generator = np.random.default_rng(seed)
    observed = {key: excess_of(found) for key, found in compare_halves(before, after, halves, describe).items()}
    as_large = dict.fromkeys(observed, 1)
    for _ in range(exchanges):
        exchanged = (generator.random(before.n_folds) < 0.5)[:, None]
        first = FoldScores(np.where(exchanged, after.scores, before.scores), before.sizes)
        second = FoldScores(np.where(exchanged, before.scores, after.scores), before.sizes)
        for key, found in compare_halves(first, second, halves, describe).items():
            as_large[key] += not excess_of(found) < observed[key]
    return {key: count / (exchanges + 1) for key, count in as_large.items()}


def leave_folds_out(n_folds: int, size: int, n_splits: int, seed: int) -> list[Halves]:
    """Half-splits without each fold in turn, for the replicates of the delete-one jackknife over folds.

    Each leaves a fold out and draws halves of ``size`` folds from the others, or of as many as there are.
    """
    every = np.arange(n_folds)
    return [
        draw_halves(np.delete(every, left_out), n_folds, min(size, (n_folds - 1) // 2), n_splits, seed)
        for left_out in every
    ]


def jackknife_covariance(replicates: Float[np.ndarray, "replicate number"]) -> Float[np.ndarray, "number number"]:
    """Covariances of some numbers over samples of prompts, from their replicates."""
    apart = replicates - replicates.mean(axis=0)
    covariance: Float[np.ndarray, "number number"] = (len(replicates) - 1) / len(replicates) * apart.T @ apart
    return covariance


def jackknife_errors(replicates: Sequence[Numbers]) -> dict[tuple[str, str], float]:
    """Standard errors of the excess over samples of prompts.

    In simulations the errors are right for correlations of drifting scores and too large, by up to a factor of two,
    where nothing drifts and for Jaccard indices: the intervals are conservative there.
    """
    keys = list(replicates[0])
    covariance = jackknife_covariance(np.array([[excess_of(numbers[key]) for key in keys] for numbers in replicates]))
    return dict(zip(keys, np.sqrt(np.diag(covariance)).tolist(), strict=True))


def interval_of(excess: float, error: float, n_folds: int) -> tuple[float, float]:
    """The 95 % interval of an excess: Student's t with one degree of freedom less than there are folds."""
    width = float(special.stdtrit(n_folds - 1, (1 + CONFIDENCE) / 2)) * error
    return excess - width, excess + width


def prompts_needed(reliability: float, prompts: int, wanted: float) -> float:
    """How many prompts a correlation of ``wanted`` between two samples of prompts needs.

    Spearman-Brown (1910): if samples of n prompts correlate r, samples of k n correlate k r / (1 + (k - 1) r).

    Args:
        reliability: the correlation of scores from two disjoint samples.
        prompts: prompts in each sample.
        wanted: the correlation to reach, in (0, 1).

    Returns:
        The number of prompts, infinite where the reliability is not positive.
    """
    if not 0 < reliability < 1:
        return 0.0 if reliability >= 1 else float("inf")
    return prompts * wanted * (1 - reliability) / (reliability * (1 - wanted))


def cross_validated_cosine(before: FoldScores, after: FoldScores) -> float:
    """Cosine of two checkpoints' true scores, from products over folds f != g, in which noise has mean zero.

    For folds of equal size, the mean over f != g of b_f . a_g estimates the product of the true scores without bias,
    as does that of b_f . b_g their square (Walther et al. 2016, crossnobis). NaN where a square is not positive.
    """
    product, first, second = (_cross_product(*pair) for pair in ((before, after), (before, before), (after, after)))
    return product / float(np.sqrt(first * second)) if first > 0 and second > 0 else float("nan")


def _cross_product(one: FoldScores, other: FoldScores) -> float:
    """Mean over pairs of different folds of the products of their scores."""
    n_folds = one.n_folds
    total = one.scores.sum(axis=0) @ other.scores.sum(axis=0)
    same = np.einsum("fe,fe->", one.scores, other.scores)
    return float((total - same) / (n_folds * (n_folds - 1)))
