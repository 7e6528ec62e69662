"""Whether edges drift more than nodes, on simulated scores whose drift is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from circuitdrift.drift import nodes_and_edges
from circuitdrift.drift.nodes_and_edges import (
    AMPLIFICATIONS,
    MARGIN,
    MORE,
    NO_MORE,
    SEED,
    NoiseCurve,
    Quotient,
    quotient_of_seeds,
    simulate_drifts,
    tabulate_nodes_and_edges,
)
from circuitdrift.drift.reliability import FoldScores, compare_halves, draw_halves, excess_of
from circuitdrift.drift.reliability_table import Resampling, compare_checkpoints
from circuitdrift.schemas import SCHEMAS

FOLDS, NODES, EDGES_OF_A_NODE, KEPT = 16, 12, 10, 24
NOTHING = np.zeros((2, 2))


def describe(rows):
    """The strongest edges as a circuit with the nodes that they leave, and masses."""
    strength = np.abs(rows)
    kept = strength >= np.sort(strength, axis=1)[:, -KEPT, None]
    outgoing = strength.reshape(len(rows), NODES, EDGES_OF_A_NODE).sum(axis=2)
    total = strength.sum(axis=1, keepdims=True)
    return {
        ("edge", "jaccard"): kept,
        ("edge", "ruzicka"): strength / total,
        ("node", "jaccard"): kept.reshape(len(rows), NODES, EDGES_OF_A_NODE).any(axis=2),
        ("node", "ruzicka"): outgoing / total,
    }


@pytest.fixture
def few_simulations(monkeypatch):
    """Two measures and fewer simulated drifts, so that hundreds of studies take seconds."""
    monkeypatch.setattr(nodes_and_edges, "MEASURES", ("jaccard", "ruzicka"))
    monkeypatch.setattr(nodes_and_edges, "SIMULATED_DRIFTS", 8)
    monkeypatch.setattr(nodes_and_edges, "HALF_SPLITS", 4)


def signal(generator):
    """Heavy-tailed scores, more of them at some nodes than at others."""
    of_nodes = np.repeat(np.exp(0.7 * generator.normal(size=NODES)), EDGES_OF_A_NODE)
    return generator.standard_t(3, size=NODES * EDGES_OF_A_NODE) * of_nodes


def folds_of(scores, noise, generator):
    return FoldScores(scores + noise * generator.normal(size=(FOLDS, len(scores))), np.full(FOLDS, 10))


def compared(before, after):
    return compare_checkpoints({"00": before, "10": after}, describe, Resampling(half_splits=8, exchanges=0))


def verdicts(before, after):
    """The verdict on each measure at the largest number of prompts."""
    table = tabulate_nodes_and_edges(compared(before, after), describe)
    found = {}
    for row in table[table["examples"] == 80].to_dict("records"):
        covariance = np.array(
            [[row["edge_variance"], row["covariance"]], [row["covariance"], row["expected_variance"]]]
        )
        pair = np.array([[row["edge_excess"], row["expected"]]])
        quotient = quotient_of_seeds(pair, covariance[None], np.array([row["drift_variance"]]), row["folds"])
        found[row["measure"]] = quotient.verdict(160)
        assert (row["quotient"], row["lower"]) == pytest.approx((quotient.value, quotient.interval()[0]), nan_ok=True)
    return found


# ----------------------------------------------------------------------------------------- the verdict on studies


@pytest.mark.parametrize("size", [0.0, 1.0, 4.0])
def test_drift_that_is_more_noise_seldom_counts_as_more_in_edges(few_simulations, size):
    """At most 2.5 % of studies, the rate of a one-sided error at a 95 % interval."""
    generator = np.random.default_rng(int(size))
    studies, more = 100, Counter()
    for _ in range(studies):
        before = signal(generator)
        after = before + size * generator.normal(size=len(before))
        found = verdicts(folds_of(before, 2.0, generator), folds_of(after, 2.0, generator))
        more.update(measure for measure, verdict in found.items() if verdict == MORE)
    for measure in ("jaccard", "ruzicka"):
        assert stats.binomtest(more[measure], studies, 0.025, alternative="greater").pvalue > 0.01, more


def test_edges_that_move_within_their_nodes_drift_more(few_simulations):
    generator = np.random.default_rng(3)
    found = Counter()
    for _ in range(10):
        before = signal(generator)
        after = generator.permuted(before.reshape(NODES, -1), axis=1).ravel()
        found.update([verdicts(folds_of(before, 1.0, generator), folds_of(after, 1.0, generator))["ruzicka"]])
    assert found == {MORE: 10}


def test_nodes_that_grow_as_a_whole_do_not_count_as_drift_of_edges(few_simulations):
    generator = np.random.default_rng(4)
    found = Counter()
    for _ in range(10):
        before = signal(generator)
        after = before * np.repeat(np.exp(generator.normal(size=NODES)), EDGES_OF_A_NODE)
        found.update([verdicts(folds_of(before, 1.0, generator), folds_of(after, 1.0, generator))["ruzicka"]])
    assert found[MORE] == 0
    assert found[NO_MORE] >= 8


def test_identical_checkpoints_leave_the_question_open(few_simulations):
    generator = np.random.default_rng(5)
    folds = folds_of(signal(generator), 2.0, generator)
    table = tabulate_nodes_and_edges(compared(folds, folds), describe)
    assert table["edge_excess"].tolist() == pytest.approx([0.0] * len(table), abs=1e-12)
    assert table[["quotient", "lower", "upper"]].isna().all(axis=None)
    assert set(table.groupby("examples").size()) == {2}
    assert set(SCHEMAS["nodes_and_edges"].names) == set(table.columns)
    assert all(verdict.startswith("unresolved") for verdict in verdicts(folds, folds).values())


def test_doubled_scores_change_nothing(few_simulations):
    generator = np.random.default_rng(6)
    before, after = (folds_of(signal(generator), 1.0, generator) for _ in range(2))
    plain, doubled = (
        tabulate_nodes_and_edges(compared(*(FoldScores(scale * f.scores, f.sizes) for f in (before, after))), describe)
        for scale in (1, 2)
    )
    numbers = [name for name in plain.columns if name not in ("from_checkpoint", "to_checkpoint", "measure")]
    assert doubled[numbers].to_numpy(dtype=float) == pytest.approx(plain[numbers].to_numpy(dtype=float), nan_ok=True)


# ----------------------------------------------------------------------------------------- simulated drift


def test_simulated_drifts_agree_with_a_slow_twin():
    """One fold after the other: a random half of the folds counts +1, the other -1."""
    generator = np.random.default_rng(7)
    before, after = (folds_of(signal(generator), 1.0, generator) for _ in range(2))
    halves = draw_halves(np.arange(FOLDS), FOLDS, 8, 3, seed=0)
    found = simulate_drifts(before, after, halves, describe)
    one, other = draw_halves(np.arange(FOLDS), FOLDS, 8, nodes_and_edges.SIMULATED_DRIFTS, SEED)
    for draw, start in ((0, before), (1, after), (2, before)):
        noise = np.zeros(NODES * EDGES_OF_A_NODE)
        for fold in range(FOLDS):
            noise += start.scores[fold] * (int(one[draw, fold]) - int(other[draw, fold])) / FOLDS
        for place, factor in enumerate((0.0, *AMPLIFICATIONS)):
            moved = FoldScores(np.array([row + factor * noise for row in start.scores]), start.sizes)
            for key, numbers in compare_halves(start, moved, halves, describe).items():
                assert found[key][draw, place] == pytest.approx(excess_of(numbers), abs=1e-12)


def test_a_sample_of_the_noise_has_its_size_and_does_not_depend_on_the_mean():
    generator = np.random.default_rng(8)
    scores = generator.normal(size=(FOLDS, 20_000))
    one, other = draw_halves(np.arange(FOLDS), FOLDS, 8, 1, SEED)
    folds = FoldScores(scores, np.full(FOLDS, 10))
    noise = ((folds.means(one) - folds.means(other)) / 2)[0]
    mean = folds.means(np.ones((1, FOLDS), dtype=bool))[0]
    assert noise.std() == pytest.approx(mean.std(), rel=0.03)
    assert np.corrcoef(noise, mean)[0, 1] == pytest.approx(0, abs=0.03)


def test_the_curve_reads_edges_off_nodes_and_ignores_factors_that_empty_the_circuits():
    nodes = np.array([[0.0, 0.1, 0.3, np.nan], [0.0, 0.1, 0.3, np.nan], [0.0, 0.1, 0.3, 0.9]])
    edges = np.array([[0.0, 0.2, 0.4, np.nan], [0.0, 0.3, 0.4, np.nan], [0.0, 0.4, 0.4, 0.9]])
    curve = NoiseCurve.of({("node", "jaccard"): nodes, ("edge", "jaccard"): edges}, "jaccard")
    assert curve.edges.tolist() == pytest.approx([0.0, 0.3, 0.4])
    assert curve.expected(0.05) == pytest.approx(0.15)
    assert curve.expected(-0.05) == pytest.approx(-0.15)
    assert curve.expected(0.2) == pytest.approx(0.35)
    assert curve.expected(5.0) == pytest.approx(0.4)
    assert np.isnan(curve.expected(np.nan))
    assert curve.variance(0.1) == pytest.approx(0.01)
    assert curve.variance(0.3) == pytest.approx(0.0)


# ----------------------------------------------------------------------------------------- the quotient


@pytest.mark.parametrize(
    ("edges", "expected", "covariance"), [(0.4, 0.2, 0.0), (0.3, 0.3, 0.0004), (0.1, 0.2, -0.0002)]
)
def test_fieller_s_interval_agrees_with_a_slow_twin(edges, expected, covariance):
    """Try quotients one after the other: those that the difference cannot be told from belong to the interval."""
    squares = np.array([[0.001, covariance], [covariance, 0.0008]])
    quotient = Quotient(edges, expected, squares / 2, squares / 2)
    inside = [
        q
        for q in np.linspace(-2, 5, 700_001)
        if (edges - q * expected) ** 2 <= squares[0, 0] - 2 * q * covariance + q * q * squares[1, 1]
    ]
    assert quotient.interval() == pytest.approx((min(inside), max(inside)), abs=1e-4)
    assert quotient.value == edges / expected


def test_fieller_s_interval_covers_the_true_quotient_at_its_rate():
    generator = np.random.default_rng(9)
    covariance = np.array([[0.0004, 0.0001], [0.0001, 0.0003]])
    t, covered, studies = stats.t.ppf(0.975, 15), 0, 1000
    for _ in range(studies):
        sample = generator.multivariate_normal([0.3, 0.2], 16 * covariance, size=16)
        edges, expected = sample.mean(axis=0)
        lower, upper = Quotient(edges, expected, t**2 * np.cov(sample, rowvar=False) / 16, NOTHING).interval()
        covered += lower <= 1.5 <= upper
    assert stats.binomtest(covered, studies, 0.95).pvalue > 0.001


@pytest.mark.parametrize(
    ("edges", "expected", "width", "verdict"),
    [
        (0.4, 0.2, 0.01, MORE),
        (0.4, 0.0, 0.01, MORE),
        (0.2, 0.2, 0.01, NO_MORE),
        (0.1, 0.2, 0.01, NO_MORE),
        (np.nan, 0.2, 0.01, "unresolved, circuits are empty or do not vary"),
        (0.0, 0.0, 0.01, "unresolved, more prompts alone would not do"),
    ],
)
def test_verdicts(edges, expected, width, verdict):
    assert Quotient(edges, expected, width**2 * np.eye(2), NOTHING).verdict(100) == verdict


@pytest.mark.parametrize("edges", [0.1, 0.19, 0.21, 0.23, 0.3])
def test_with_the_prompts_that_it_asks_for_a_verdict_falls(edges):
    squares, of_drifts = 0.02**2 * np.array([[1.0, 0.2], [0.2, 1.0]]) * 40, 1e-6 * np.eye(2)
    open_question = Quotient(edges, 0.2, squares, of_drifts).verdict(100)
    assert open_question.startswith("unresolved, needs about")
    needed = int(open_question.split()[3].replace(",", ""))
    for prompts, resolved in ((needed * 1.001, True), (needed * 0.98, False)):
        verdict = Quotient(edges, 0.2, squares * 100 / prompts, of_drifts).verdict(100)
        assert (verdict in {MORE, NO_MORE}) == resolved


def test_scatter_of_drifts_is_not_cured_by_prompts():
    assert Quotient(0.22, 0.2, NOTHING, np.eye(2)).verdict(100) == "unresolved, more prompts alone would not do"


def test_the_verdict_s_margin_is_that_of_its_interval():
    quotient = Quotient(0.2, 0.2, 0.01**2 * np.eye(2), NOTHING)
    assert quotient.interval()[1] < MARGIN


def test_seeds_add_their_scatter_to_the_error_of_prompts():
    covariances, variances = np.array([0.0001 * np.eye(2)] * 3), np.zeros(3)
    alike = quotient_of_seeds(np.array([[0.4, 0.2]] * 3), covariances, variances, 16)
    one = quotient_of_seeds(np.array([[0.4, 0.2]]), covariances[:1], variances[:1], 16)
    assert alike.interval() == pytest.approx(one.interval())
    apart = quotient_of_seeds(np.array([[0.3, 0.2], [0.4, 0.2], [0.5, 0.2]]), covariances, variances, 16)
    assert apart.value == pytest.approx(2)
    assert apart.of_drifts[0, 0] == pytest.approx(stats.t.ppf(0.975, 2) ** 2 * 0.01 / 3)
    assert apart.interval()[0] < one.interval()[0]
