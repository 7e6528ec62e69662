"""Reliability of circuits, on simulated scores whose signal and noise are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from circuitdrift.drift import reliability
from circuitdrift.drift.fold_circuits import average_ranks
from circuitdrift.drift.reliability import (
    FoldScores,
    compare_each,
    compare_halves,
    corrected_similarity,
    cross_validated_cosine,
    draw_halves,
    excess_of,
    exchange_p_values,
    interval_of,
    jackknife_errors,
    leave_folds_out,
    prompts_needed,
    similarities_of_pairs,
    similarity,
)

FOLDS, EDGES, KEPT = 16, 300, 30


def describe(scores):
    """Features of both correlations, and of the strongest edges as a circuit."""
    strength = np.abs(scores)
    cut = np.sort(strength, axis=1)[:, -KEPT, None]
    return {
        ("edge", "jaccard"): strength >= cut,
        ("edge", "ruzicka"): strength / strength.sum(axis=1, keepdims=True),
        ("edge", "spearman"): stats.rankdata(strength, axis=1),
        ("edge", "pearson"): scores,
    }


def scores_alone(scores):
    return {("edge", "pearson"): scores}


def folds_of(signal, noise, generator, sizes=None):
    """Fold means of scores that are the signal and noise of a standard deviation for each prompt."""
    sizes = np.full(FOLDS, 10) if sizes is None else sizes
    drawn = generator.normal(size=(len(sizes), len(signal))) * noise / np.sqrt(sizes)[:, None]
    return FoldScores(signal + drawn, sizes)


def halves_of(size=FOLDS // 2, n_splits=20, seed=0):
    return draw_halves(np.arange(FOLDS), FOLDS, size, n_splits, seed)


def heavy(generator, n=EDGES):
    return generator.standard_t(3, size=n)


def test_halves_are_disjoint_and_of_the_size_asked_for():
    first, second = halves_of(size=5)
    assert not (first & second).any()
    assert (first.sum(axis=1) == 5).all()
    assert (second.sum(axis=1) == 5).all()
    assert len({row.tobytes() for row in first}) > 15


def test_means_weigh_folds_by_their_prompts():
    scores = FoldScores(np.array([[1.0], [4.0], [10.0]]), np.array([3, 1, 2]))
    assert scores.means(np.array([[True, True, False]])) == pytest.approx(np.array([[7 / 4]]))


@pytest.mark.parametrize("measure", ["jaccard", "ruzicka", "spearman", "pearson"])
def test_similarity_agrees_with_a_slow_twin_and_is_one_for_equal_rows(measure):
    generator = np.random.default_rng(1)
    one, other = (describe(generator.normal(size=(4, EDGES)))["edge", measure] for _ in range(2))

    def slow(a, b):
        if measure == "jaccard":
            first, second = set(np.flatnonzero(a)), set(np.flatnonzero(b))
            return len(first & second) / len(first | second)
        if measure == "ruzicka":
            return sum(map(min, a, b)) / sum(map(max, a, b))
        return np.corrcoef(a, b)[0, 1]

    assert similarity(measure, one, other) == pytest.approx([slow(a, b) for a, b in zip(one, other, strict=True)])
    assert similarity(measure, one, one) == pytest.approx(np.ones(4))


def test_constant_rows_have_no_correlation():
    generator = np.random.default_rng(12)
    constant, varying = np.ones((1, EDGES)), generator.normal(size=(1, EDGES))
    assert np.isnan(similarity("pearson", constant, varying)).all()
    assert np.isnan(similarity("ruzicka", 0 * constant, 0 * varying)).all()


@pytest.mark.parametrize("n_different", [1, 3, 40, 10_000])
def test_ranks_are_scipys_whatever_is_tied(n_different):
    values = np.random.default_rng(13).integers(n_different, size=(5, 60)) / 7
    assert average_ranks(values).tolist() == stats.rankdata(values, axis=1).tolist()


@pytest.mark.parametrize("sets_at_once", [2, 3, 1000])
def test_each_pair_of_sets_of_folds_is_as_alike_as_by_itself(monkeypatch, sets_at_once):
    monkeypatch.setattr(reliability, "_SCORES_AT_ONCE", sets_at_once * EDGES)
    monkeypatch.setattr(reliability, "_SCORES_DESCRIBED_AT_ONCE", 2 * EDGES)
    generator = np.random.default_rng(14)
    scores = folds_of(heavy(generator), 3.0, generator)
    sets = generator.random((5, FOLDS)) < 0.5
    pairs = sets[generator.integers(len(sets), size=(30, 2))]  # of 25 that are possible, so that some come again
    found = similarities_of_pairs(scores, pairs, describe)
    for place, (one, other) in enumerate(pairs):
        features = [describe(scores.means(folds[None])) for folds in (one, other)]
        for (level, measure), values in found.items():
            alone = similarity(measure, *(each[level, measure] for each in features))[0]
            assert values[place] == pytest.approx(alone, rel=1e-12), measure


def four_by_hand(before, after, halves):
    """The four mean similarities, one half-split after the other."""
    found = {key: {name: [] for name in ("within_before", "within_after", "between", "paired")} for key in KEYS}
    for a, b in zip(*halves, strict=True):
        rows = [describe(scores.means(half[None])) for scores in (before, after) for half in (a, b)]
        for key in KEYS:
            before_a, before_b, after_a, after_b = (row[key] for row in rows)
            found[key]["within_before"].append(similarity(key[1], before_a, before_b)[0])
            found[key]["within_after"].append(similarity(key[1], after_a, after_b)[0])
            for name, one, other in (("between", after_b, after_a), ("paired", after_a, after_b)):
                found[key][name] += [similarity(key[1], before_a, one)[0], similarity(key[1], before_b, other)[0]]
    return {key: {name: np.mean(values) for name, values in numbers.items()} for key, numbers in found.items()}


KEYS = [("edge", measure) for measure in ("jaccard", "ruzicka", "spearman", "pearson")]


def test_halves_that_come_again_are_compared_as_by_hand():
    generator = np.random.default_rng(15)
    before, after = (folds_of(heavy(generator), 5.0, generator) for _ in range(2))
    several = [halves_of(n_splits=5), *leave_folds_out(FOLDS, FOLDS // 2, n_splits=3, seed=0)]
    for halves, found in zip(several, compare_each(before, after, several, describe), strict=True):
        wanted = four_by_hand(before, after, halves)
        for key in KEYS:
            assert found[key] == pytest.approx(wanted[key], rel=1e-12), key


@pytest.mark.parametrize("size", [2, FOLDS // 2])
def test_p_values_are_those_of_scores_that_are_exchanged_fold_by_fold(size):
    generator = np.random.default_rng(16)
    signal = heavy(generator)
    before, after = (folds_of(values, 6.0, generator) for values in (signal, signal + 0.3 * heavy(generator)))
    halves = halves_of(size=size, n_splits=3)
    observed = {key: excess_of(numbers) for key, numbers in four_by_hand(before, after, halves).items()}
    as_large = dict.fromkeys(KEYS, 1)
    exchanges = np.random.default_rng(5).random((19, FOLDS)) < 0.5
    for exchanged in exchanges[..., None]:
        first = FoldScores(np.where(exchanged, after.scores, before.scores), before.sizes)
        second = FoldScores(np.where(exchanged, before.scores, after.scores), before.sizes)
        for key, numbers in four_by_hand(first, second, halves).items():
            as_large[key] += excess_of(numbers) > observed[key] - 1e-9
    found = exchange_p_values(before, after, halves, describe, exchanges=19, seed=5)
    assert found == {key: count / 20 for key, count in as_large.items()}
    assert len(set(found.values())) > 1


def test_two_empty_circuits_have_no_similarity():
    empty = np.zeros((1, 5), dtype=bool)
    assert np.isnan(similarity("jaccard", empty, empty)).all()


def test_identical_checkpoints_are_alike_on_the_same_prompts_and_have_no_excess():
    generator = np.random.default_rng(2)
    scores = folds_of(heavy(generator), 5.0, generator)
    for (_, measure), found in compare_halves(scores, scores, halves_of(), describe).items():
        assert found["paired"] == pytest.approx(1.0), measure
        assert excess_of(found) == pytest.approx(0.0, abs=1e-12), measure
    p_values = exchange_p_values(scores, scores, halves_of(n_splits=4), describe, exchanges=19, seed=0)
    assert set(p_values.values()) == {1.0}


def test_half_splits_without_any_circuit_do_not_count():
    generator = np.random.default_rng(11)
    scores = folds_of(heavy(generator), 1.0, generator)

    def sometimes_empty(rows):
        kept = describe(rows)["edge", "jaccard"].copy()
        kept[0] = False
        return {("edge", "jaccard"): kept}

    found = compare_halves(scores, scores, halves_of(), sometimes_empty)["edge", "jaccard"]
    assert 0 < found["within_before"] <= 1
    nothing = compare_halves(scores, scores, halves_of(), lambda rows: {("edge", "jaccard"): rows > np.inf})
    assert np.isnan(nothing["edge", "jaccard"]["within_before"])


def test_doubled_scores_change_no_similarity():
    generator = np.random.default_rng(3)
    before, after = (folds_of(heavy(generator), 5.0, generator) for _ in range(2))
    doubled = FoldScores(2 * after.scores, after.sizes)
    plain = compare_halves(before, after, halves_of(), describe)
    for key, found in compare_halves(before, doubled, halves_of(), describe).items():
        assert found == pytest.approx(plain[key]), key


@pytest.mark.parametrize("noise", [2.0, 6.0, 12.0])
def test_the_corrected_correlation_is_the_true_one_whatever_the_noise(noise):
    generator = np.random.default_rng(4)
    before = generator.normal(size=20_000)
    after = 0.8 * before + 0.6 * generator.normal(size=20_000)
    true = np.corrcoef(before, after)[0, 1]
    folds = [folds_of(signal, noise, generator) for signal in (before, after)]
    found = compare_halves(*folds, halves_of(), scores_alone)["edge", "pearson"]
    assert corrected_similarity(found) == pytest.approx(true, abs=0.02)
    assert found["between"] < corrected_similarity(found)
    # of true scores with mean zero, cosine and correlation are the same
    assert cross_validated_cosine(*folds) == pytest.approx(true, abs=0.02)


def test_more_noise_lowers_every_similarity_but_not_the_verdict_on_plain_drift():
    generator = np.random.default_rng(5)
    before, after = heavy(generator), heavy(generator)
    for noise in (1.0, 4.0):
        folds = [folds_of(signal, noise, generator) for signal in (before, after)]
        p_values = exchange_p_values(*folds, halves_of(n_splits=4), describe, exchanges=19, seed=0)
        assert set(p_values.values()) == {0.05}


def test_p_values_are_uniform_where_nothing_drifts():
    generator = np.random.default_rng(6)
    below = dict.fromkeys(describe(np.ones((1, EDGES))), 0)
    studies = 400
    for study in range(studies):
        signal = heavy(generator)
        folds = [folds_of(signal, 3.0, generator) for _ in range(2)]
        halves = halves_of(n_splits=3, seed=study)
        for key, value in exchange_p_values(*folds, halves, describe, exchanges=19, seed=study).items():
            below[key] += value <= 0.05
    for key, count in below.items():
        assert stats.binomtest(count, studies, 0.05).pvalue > 0.001, (key, count)


def test_intervals_of_the_excess_cover_zero_where_nothing_drifts_and_not_where_much_does():
    generator = np.random.default_rng(7)
    covered, excluded, studies = 0, 0, 60
    for study in range(studies):
        signal = heavy(generator)
        for after, drifts in ((signal, False), (heavy(generator), True)):
            folds = [folds_of(values, 3.0, generator) for values in (signal, after)]
            key = ("edge", "pearson")
            found = compare_halves(*folds, halves_of(seed=study), scores_alone)[key]
            left_out = leave_folds_out(FOLDS, FOLDS // 2, n_splits=20, seed=study)
            error = jackknife_errors([compare_halves(*folds, halves, scores_alone) for halves in left_out])[key]
            lower, upper = interval_of(excess_of(found), error, FOLDS)
            if drifts:
                excluded += lower > 0
            else:
                covered += lower <= 0 <= upper
    assert covered >= 0.88 * studies
    assert excluded == studies


@pytest.mark.parametrize("wanted", [0.8, 0.9])
def test_prompts_needed_are_those_at_which_simulated_scores_reach_the_reliability(wanted):
    generator = np.random.default_rng(8)
    signal, noise = generator.normal(size=50_000), 7.0

    def reliability(prompts):
        one, other = (signal + generator.normal(size=len(signal)) * noise / np.sqrt(prompts) for _ in range(2))
        return np.corrcoef(one, other)[0, 1]

    needed = prompts_needed(reliability(40), 40, wanted)
    assert reliability(round(needed)) == pytest.approx(wanted, abs=0.015)


def test_prompts_needed_at_the_ends():
    assert prompts_needed(1.0, 50, 0.9) == 0
    assert prompts_needed(0.0, 50, 0.9) == float("inf")
    assert prompts_needed(-0.1, 50, 0.9) == float("inf")
