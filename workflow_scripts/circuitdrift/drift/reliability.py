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

from collections.abc import Callable, Iterator, Mapping, Sequence
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
Pairs = Bool[np.ndarray, "pair 2 fold"]
Similarities = Mapping[tuple[str, str], Float[np.ndarray, " pair"]]
"""The similarity of each pair, by level and measure."""

_ROUNDING = 1e-12
"""Two excesses that differ by less are equal: exchanges can give the same scores, summed in another order."""

_SCORES_AT_ONCE = 2**22
"""Scores whose features are in memory at one time, 32 MB in float64 for each of a few arrays."""

_SCORES_DESCRIBED_AT_ONCE = 2**17
"""Scores that are described, or pairs of them compared, in one step; more would leave the caches."""


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
    return similarity_of_prepared(measure, prepared(measure, one), prepared(measure, other))


def prepared(measure: str, rows: np.ndarray) -> np.ndarray:
    """Rows of features in the form that :func:`similarity_of_prepared` takes: once for a row of many pairs.

    Memberships as bits in words of 64, masses as they are, rows to be correlated centred and of unit length.
    """
    if measure == "jaccard":
        bits = np.packbits(rows, axis=1)
        return np.pad(bits, [(0, 0), (0, -bits.shape[1] % 8)]).view(np.uint64)
    if measure == "ruzicka":
        return rows
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", centred, centred))[:, None]
    centred /= np.where(length > 0, length, np.nan)
    return centred


def similarity_of_prepared(measure: str, one: np.ndarray, other: np.ndarray) -> Float[np.ndarray, " row"]:
    """:func:`similarity` of rows that are prepared."""
    if measure == "jaccard":
        return _ratio(*(np.bitwise_count(words).sum(axis=1, dtype=np.int64) for words in (one & other, one | other)))
    if measure == "ruzicka":
        smaller = np.minimum(one, other).sum(axis=1)
        return _ratio(smaller, one.sum(axis=1) + other.sum(axis=1) - smaller)
    return np.einsum("ij,ij->i", one, other)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> Float[np.ndarray, " row"]:
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1), np.nan)


def similarities_of_pairs(scores: FoldScores, pairs: Pairs, describe: Describe) -> Similarities:
    """The similarity of what two sets of folds give, for many pairs of sets.

    Sets and pairs that come again are described and compared once. The features of a few million scores are in memory
    at one time, so pairs that share sets should lie next to each other.

    Args:
        scores: scores by fold; folds of several checkpoints may stand one after the other.
        pairs: the folds of both sets of each pair.
        describe: from scores to features.
    """
    sets, members = _distinct(pairs.reshape(-1, pairs.shape[2]))
    compared, places = _distinct(np.sort(members.reshape(-1, 2), axis=1))
    at_once = max(2, _SCORES_AT_ONCE // scores.scores.shape[1])
    found = [_similarities(scores, sets, some, describe) for some in _few_sets_at_a_time(compared, at_once)]
    return {key: np.concatenate([part[key] for part in found])[places] for key in found[0]}


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, Int[np.ndarray, " row"]]:
    """The distinct rows in the order in which they first come, and for each row its place among them."""
    places: dict[bytes, int] = {}
    where = np.array([places.setdefault(row.tobytes(), len(places)) for row in rows])
    return rows[np.unique(where, return_index=True)[1]], where


def _few_sets_at_a_time(compared: Int[np.ndarray, "pair 2"], at_once: int) -> Iterator[Int[np.ndarray, "some_pairs 2"]]:
    """Successive pairs that have at most so many distinct sets, at least two."""
    start, held = 0, set[int]()
    for place, pair in enumerate(compared.tolist()):
        held.update(pair)
        if len(held) > at_once:
            yield compared[start:place]
            start, held = place, set(pair)
    yield compared[start:]


def _similarities(
    scores: FoldScores, sets: Bool[np.ndarray, "set fold"], compared: Int[np.ndarray, "pair 2"], describe: Describe
) -> Similarities:
    """The similarities of some pairs of sets of folds, each set described once."""
    described, (one, other) = np.unique(compared), compared.T
    features = prepared_features(scores, sets[described], describe)
    places = np.searchsorted(described, one), np.searchsorted(described, other)
    found: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in features}
    at_once = max(1, _SCORES_DESCRIBED_AT_ONCE // scores.scores.shape[1])
    for start in range(0, len(compared), at_once):
        first, second = (place[start : start + at_once] for place in places)
        for key, rows in features.items():
            found[key].append(similarity_of_prepared(key[1], rows[first], rows[second]))
    return {key: np.concatenate(parts) for key, parts in found.items()}


def prepared_features(scores: FoldScores, sets: Bool[np.ndarray, "set fold"], describe: Describe) -> Features:
    """The features of the mean scores of sets of folds, prepared; a few sets at a time, so that caches hold them."""
    at_once = max(1, _SCORES_DESCRIBED_AT_ONCE // scores.scores.shape[1])
    blocks = [describe(scores.means(sets[start : start + at_once])) for start in range(0, len(sets), at_once)]
    return {key: np.concatenate([prepared(key[1], block[key]) for block in blocks]) for key in blocks[0]}


def compare_halves(
    before: FoldScores, after: FoldScores, halves: Halves, describe: Describe
) -> dict[tuple[str, str], dict[str, float]]:
    """The four mean similarities of the module's table, by level and measure."""
    return compare_each(before, after, [halves], describe)[0]


def compare_each(
    before: FoldScores, after: FoldScores, several: Sequence[Halves], describe: Describe
) -> list[dict[tuple[str, str], dict[str, float]]]:
    """:func:`compare_halves` of several sets of half-splits, among which halves may come again."""
    both = _one_after_the_other(before, after)
    ends = np.cumsum([len(halves[0]) for halves in several])
    first, second = (np.concatenate([halves[which] for halves in several]) for which in (0, 1))
    none = np.zeros_like(first)
    before_a, before_b, after_a, after_b = (
        np.concatenate(folds, axis=1) for folds in ((first, none), (second, none), (none, first), (none, second))
    )
    pairs = [
        (before_a, before_b),
        (after_a, after_b),
        *((before_a, after_b), (before_b, after_a)),
        *((before_a, after_a), (before_b, after_b)),
    ]
    columns = {"within_before": [0], "within_after": [1], "between": [2, 3], "paired": [4, 5]}
    by_split = np.stack([np.stack(pair, axis=1) for pair in pairs], axis=1)
    # Half-splits of one number come from one permutation of the folds, and share halves.
    order = np.argsort(np.concatenate([np.arange(len(halves[0])) for halves in several]), kind="stable")
    found = similarities_of_pairs(both, by_split[order].reshape(-1, 2, both.n_folds), describe)
    numbers: list[dict[tuple[str, str], dict[str, float]]] = [{} for _ in several]
    for key, values in found.items():
        similar = np.empty((len(order), len(pairs)))
        similar[order] = values.reshape(-1, len(pairs))
        for number, part in zip(numbers, np.split(similar, ends[:-1]), strict=True):
            number[key] = {name: float(mean_of_defined(part[:, which])) for name, which in columns.items()}
    return numbers


def _one_after_the_other(before: FoldScores, after: FoldScores) -> FoldScores:
    """The folds of the checkpoint before, then those of the checkpoint after."""
    return FoldScores(np.concatenate([before.scores, after.scores]), np.concatenate([before.sizes, after.sizes]))


def mean_of_defined(values: Float[np.ndarray, "*rows split pair"]) -> Float[np.ndarray, "*rows"]:
    """The mean over half-splits and pairs; two empty circuits have no similarity (NaN) and are left out.

    The pairs of a split are added first, so that the mean does not depend on their order, to the last bit.
    """
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0).sum(axis=-1).sum(axis=-1)
    return _ratio(total, defined.sum(axis=(-2, -1)))


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
    both = _one_after_the_other(before, after)
    drawn = np.random.default_rng(seed).random((exchanges, before.n_folds)) < 0.5
    exchanged = np.concatenate([np.zeros((1, before.n_folds), dtype=bool), drawn])[:, None]  # the true labels first
    (first_a, after_a), (first_b, after_b) = (
        [np.concatenate([half & ~labels, half & labels], axis=2) for labels in (exchanged, ~exchanged)]
        for half in halves
    )
    pairs = [(first_a, first_b), (after_a, after_b), (first_a, after_b), (first_b, after_a)]
    by_split = np.stack([np.stack(pair, axis=2) for pair in pairs], axis=2).swapaxes(0, 1)
    found = similarities_of_pairs(both, by_split.reshape(-1, 2, both.n_folds), describe)
    p_values = {}
    for key, values in found.items():
        similar = values.reshape(*by_split.shape[:3]).swapaxes(0, 1)
        within_before, within_after, between = (mean_of_defined(similar[..., which]) for which in ([0], [1], [2, 3]))
        excess = (within_before + within_after) / 2 - between
        p_values[key] = float((~(excess < excess[0] - _ROUNDING)).sum() / (exchanges + 1))
    return p_values


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
