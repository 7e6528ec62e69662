"""Paired differences of methods, on simulated answers whose true difference is known."""

from __future__ import annotations

import numpy as np
import pytest

from circuitdrift.comparisons import half_width_of_prompts, holm, paired_difference


def answers(generator, n_seeds, n_prompts, gain, seed_spread=0.02, hard=0.5):
    """Answers of a method and a better one: prompts differ in difficulty, seeds in skill."""
    difficulty = generator.beta(hard, hard, size=n_prompts)
    return [
        generator.random((n_seeds, n_prompts))
        < np.clip(difficulty + more + generator.normal(0, seed_spread, size=(n_seeds, 1)), 0, 1)
        for more in (gain, 0.0)
    ]


def test_the_difference_is_that_of_the_accuracies():
    generator = np.random.default_rng(0)
    one, other = answers(generator, 3, 200, gain=0.1)
    found = paired_difference(one, other)
    assert found.value == pytest.approx(one.mean() - other.mean())
    reverse = paired_difference(other, one)
    assert (reverse.value, reverse.lower, reverse.upper) == pytest.approx((-found.value, -found.upper, -found.lower))
    assert reverse.p_value == pytest.approx(found.p_value)


def test_equal_answers_show_no_difference():
    one = np.random.default_rng(1).random((3, 50)) < 0.5
    found = paired_difference(one, one)
    assert (found.value, found.lower, found.upper, found.p_value, found.effect_size) == (0, 0, 0, 1, 0)


def test_one_seed_bounds_nothing():
    one = np.array([[True, False, True]])
    found = paired_difference(one, ~one)
    assert (found.lower, found.upper) == (-np.inf, np.inf)
    assert np.isnan(found.p_value)


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_intervals_cover_the_true_difference_and_the_null_is_rejected_rarely(n_seeds):
    generator = np.random.default_rng(n_seeds)
    studies, rejected = 1000, 0
    for _ in range(studies):
        found = paired_difference(*answers(generator, n_seeds, 200, gain=0.0))
        rejected += found.p_value < 0.05
        assert found.lower <= found.value <= found.upper
    assert rejected <= 0.07 * studies


def test_intervals_are_as_wide_as_repeated_studies_scatter():
    generator = np.random.default_rng(9)
    found = [paired_difference(*answers(generator, 10, 100, gain=0.05)) for _ in range(400)]
    scatter = np.std([difference.value for difference in found])
    half_widths = np.mean([difference.upper - difference.lower for difference in found]) / 2
    assert 1.9 < half_widths / scatter < 2.5  # between the normal 1.96 and the t of nine degrees of freedom, 2.26


def test_more_seeds_find_a_difference_that_two_cannot():
    generator = np.random.default_rng(10)
    found = {n: [paired_difference(*answers(generator, n, 500, gain=0.05)) for _ in range(100)] for n in (2, 5)}
    share = {n: np.mean([difference.p_value < 0.05 for difference in of_n]) for n, of_n in found.items()}
    assert share[5] > share[2] + 0.3


def test_holm_steps_down_and_leaves_what_cannot_be_tested():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    corrected = holm([0.01, float("nan"), 0.02])
    assert corrected[0] == pytest.approx(0.02)
    assert np.isnan(corrected[1])
    assert holm([]) == []


def test_the_half_width_of_prompts_alone_is_as_wide_as_other_prompts_scatter():
    generator = np.random.default_rng(11)
    effects = generator.normal(size=3)  # of three seeds, the same in every study
    means, half_widths = [], []
    for _ in range(2000):
        differences = effects[:, None] + generator.normal(size=100) + 0.1 * generator.normal(size=(3, 100))
        means.append(differences.mean())
        half_widths.append(half_width_of_prompts(differences))
    assert np.mean(half_widths) == pytest.approx(1.984 * np.std(means), rel=0.05)


def test_prompts_that_scatter_no_more_than_the_rest_add_nothing():
    rest = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])
    assert half_width_of_prompts(rest) == 0
    assert np.isnan(half_width_of_prompts(rest[:1]))
