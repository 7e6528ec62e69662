"""Intervals over seeds and over tasks, and the verdicts that follow from them, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitdrift.verdicts.decision import Measured, decide, estimate, nothing_measured

NAN = float("nan")
T_2 = 4.302652729911275  # two-sided 95 % quantile of two degrees of freedom


def runs(values, half_width=None):
    """A row for each value: {task: [value of each seed]}."""
    rows = [(task, seed, value) for task, seeds in values.items() for seed, value in enumerate(seeds)]
    table = pd.DataFrame(rows, columns=["task", "seed", "value"])
    return table if half_width is None else table.assign(half_width=table["task"].map(half_width))


def of(values, half_width=None, **more):
    return Measured(runs(values, half_width), **more)


def test_the_interval_is_students_over_seeds_of_means_over_tasks():
    found = estimate(of({"a": [1, 2, 3], "b": [3, 2, 7]}), null=0, scale="linear")
    means = [2, 2, 5]
    half = T_2 * np.sqrt(3) / np.sqrt(3)  # their variance is 3
    assert (found.value, found.lower, found.upper) == pytest.approx((3, 3 - half, 3 + half))
    assert found.p_value == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert (found.replicates, found.over, found.tasks, found.remark) == (3, "seeds", 2, "")


def test_an_interval_is_cut_where_the_quantity_can_have_no_value():
    found = estimate(of({"a": [0.6, 0.8, 0.95]}), null=0, scale="linear")
    assert found.upper > 1
    cut = found.within(-1, 1)
    assert (cut.value, cut.lower, cut.upper, cut.p_value) == (found.value, found.lower, 1.0, found.p_value)
    alone = estimate(of({"a": [0.6]}), null=0, scale="linear").within(-1, 1)
    assert np.isnan([alone.lower, alone.upper]).all()


def test_methods_of_a_task_are_averaged_first():
    one, other = runs({"a": [1, 2, 3], "b": [0, 0, 0]}), runs({"a": [3, 4, 5]})
    found = estimate(Measured(pd.concat([one, other])), null=0, scale="linear")
    assert found.value == pytest.approx(np.mean([(2 + 0) / 2, (3 + 0) / 2, (4 + 0) / 2]))


def test_what_seeds_share_is_added_once_for_each_task():
    values = {"a": [1, 2, 3], "b": [1, 2, 3]}
    half = estimate(of(values), 0, "linear").upper - 2
    found = estimate(of(values, {"a": 3.0, "b": 4.0}), 0, "linear")
    assert found.upper - 2 == pytest.approx(np.sqrt(half**2 + (9 + 16) / 4))
    error = (found.upper - found.value) / T_2
    assert found.p_value == pytest.approx(2 * stats.t.sf(2 / error, 2))


def test_p_is_below_5_percent_exactly_where_the_interval_excludes_the_null():
    values = {"a": [1.0, 2.0, 3.5], "b": [0.5, 2.0, 3.0]}
    bound = estimate(of(values, {"a": 0.5, "b": 1.0}), 0, "linear").lower
    for null, excluded in ((bound - 1e-6, True), (bound + 1e-6, False)):
        assert (estimate(of(values, {"a": 0.5, "b": 1.0}), null, "linear").p_value < 0.05) == excluded


def test_ratios_are_averaged_as_logarithms():
    found = estimate(of({"a": [2.0, 4.0, 8.0]}), null=1, scale="logarithmic")
    half = T_2 * np.log(2) / np.sqrt(3)
    assert (found.value, found.lower, found.upper) == pytest.approx((4, 4 * np.exp(-half), 4 * np.exp(half)))
    assert found.p_value == pytest.approx(stats.ttest_1samp(np.log([2, 4, 8]), 0).pvalue)


@pytest.mark.parametrize("undefined", [NAN, 0.0, -1.0, np.inf])
def test_a_task_without_a_defined_ratio_for_one_seed_is_left_out(undefined):
    found = estimate(of({"a": [2, 4, 8], "b": [3, undefined, 3]}), null=1, scale="logarithmic")
    assert found.value == pytest.approx(4)
    assert (found.tasks, found.remark) == (1, "undefined on 1 of 2 tasks")


def test_a_task_that_lacks_a_seed_or_a_half_width_is_left_out():
    lacking = estimate(of({"a": [1, 2, 3], "b": [1, 2]}), 0, "linear")
    assert (lacking.tasks, lacking.value) == (1, 2)
    assert estimate(of({"a": [1, 2, 3], "b": [1, 2, 3]}, {"a": 1.0, "b": NAN}), 0, "linear").tasks == 1
    nowhere = estimate(of({"a": [NAN, 2, 3]}), 0, "linear")
    assert np.isnan([nowhere.value, nowhere.lower, nowhere.p_value]).all()
    assert nowhere.remark == "undefined on 1 of 1 tasks"


def test_one_seed_has_an_interval_over_three_tasks_but_not_over_two():
    three = estimate(of({"a": [1], "b": [2], "c": [3]}, {"a": 9.0, "b": 9.0, "c": 9.0}), 0, "linear")
    assert (three.lower, three.upper) == pytest.approx((2 - T_2 / np.sqrt(3), 2 + T_2 / np.sqrt(3)))
    assert (three.replicates, three.over, three.remark) == (3, "tasks", "the interval is over tasks, not over seeds")
    two = estimate(of({"a": [1], "b": [2]}), 0, "linear")
    assert (two.value, two.replicates) == (1.5, 1)
    assert np.isnan([two.lower, two.upper, two.p_value]).all()
    assert "neither two seeds nor 3 tasks" in two.remark


def test_seeds_that_agree_exactly_have_no_interval():
    found = estimate(of({"a": [0.3, 0.1 + 0.2, 0.3]}), 0, "linear")
    assert found.value == pytest.approx(0.3)
    assert np.isnan([found.lower, found.p_value]).all()
    assert "agree exactly" in found.remark


def test_a_reference_with_seeds_of_its_own_is_compared_as_welch_does():
    values, others = [0.7, 0.8, 0.75], [0.5, 0.6]
    found = estimate(of({"a": values}, reference=runs({"a": others})), 0, "linear")
    expected = stats.ttest_ind(values, others, equal_var=False)
    interval = expected.confidence_interval()
    assert (found.value, found.lower, found.upper) == pytest.approx((0.2, interval.low, interval.high))
    assert found.p_value == pytest.approx(expected.pvalue)
    alone = estimate(of({"a": values}, reference=runs({"a": [0.5]})), 0, "linear")
    assert np.isnan(alone.lower)
    assert "one untrained model" in alone.remark
    elsewhere = estimate(of({"a": values, "b": values}, reference=runs({"a": others})), 0, "linear")
    assert (elsewhere.value, elsewhere.tasks) == (pytest.approx(0.2), 1)


def test_nothing_measured_is_an_estimate_of_nothing():
    found = estimate(nothing_measured("no such task"), 0, "linear")
    assert np.isnan([found.value, found.lower]).all()
    assert (found.replicates, found.tasks, found.remark) == (0, 0, "no such task")


def test_intervals_of_nothing_hold_the_null_in_95_percent_of_studies():
    generator = np.random.default_rng(0)
    held = []
    for _ in range(500):
        by_seed = generator.normal(size=3)  # seeds move all tasks alike, prompts each task by itself for all seeds
        shared = generator.normal(size=4)
        values = {str(t): by_seed + shared[t] + generator.normal(size=3) for t in range(4)}
        found = estimate(of(values, dict.fromkeys(values, 1.959964)), 0, "linear")
        held.append(found.lower <= 0 <= found.upper)
    assert 0.92 < np.mean(held) < 0.99


@pytest.mark.parametrize(
    ("lower", "upper", "claimed", "verdict"),
    [
        (0.81, 0.9, "above", "supported"),
        (0.7, 0.79, "above", "not supported"),
        (0.7, 0.9, "above", "undecided"),
        (0.8, 0.9, "above", "undecided"),
        (0.7, 0.79, "below", "supported"),
        (0.81, 0.9, "below", "not supported"),
        (0.7, 0.9, "below", "undecided"),
        (0.71, 0.89, "within", "supported"),
        (0.91, 0.95, "within", "not supported"),
        (0.5, 0.69, "within", "not supported"),
        (0.85, 0.95, "within", "undecided"),
        (0.5, 0.95, "within", "undecided"),
        (NAN, NAN, "above", "undecided"),
        (NAN, NAN, "within", "undecided"),
    ],
)
def test_a_verdict_follows_from_the_interval(lower, upper, claimed, verdict):
    assert decide(lower, upper, 0.8, claimed, margin=0.1) == verdict


@pytest.mark.parametrize(("p_holm", "verdict"), [(0.049, "supported"), (0.05, "undecided"), (NAN, "undecided")])
def test_a_comparison_of_accuracy_also_needs_the_corrected_p_value(p_holm, verdict):
    assert decide(0.1, 2.0, 0.0, "above", p_corrected=p_holm) == verdict
