"""Exact tests of a choice of layers, beside slow twins that enumerate, and on simulated studies without an effect."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats

from circuitdrift.randomisation import (
    DRAWN,
    correlation_with_drift,
    p_value_of_choice,
    places,
    relabellings,
)


def all_sets(n_layers, size):
    sets = np.zeros((0, n_layers), dtype=bool)
    for layers in combinations(range(n_layers), size):
        sets = np.vstack([sets, np.isin(np.arange(n_layers), layers)])
    return sets


def slow_p_value(worth, chosen, sets):
    """Rename the layers of each chosen set in every possible way, and look up the set that has the new names."""
    row_of = {frozenset(np.flatnonzero(layers).tolist()): row for row, layers in enumerate(sets)}
    own = [set(np.flatnonzero(sets[row]).tolist()) for row in chosen]
    sums = []
    for names in permutations(range(sets.shape[1])):
        images = [row_of[frozenset(names[layer] for layer in layers)] for layers in own]
        sums.append(sum(worth[run][image] for run, image in enumerate(images)))
    return sum(total >= sums[0] - 1e-9 for total in sums) / len(sums)


def test_the_p_value_of_one_run_is_the_share_of_sets_that_are_as_good():
    sets = all_sets(3, 2)
    worth = np.array([[0.5, 0.7, 0.5]])
    found = [p_value_of_choice(worth, np.array([row]), sets) for row in range(3)]
    assert found == pytest.approx([1, 1 / 3, 1])


def test_two_runs_that_choose_alike_count_as_one_choice():
    sets = all_sets(4, 1)
    worth = np.array([[0.9, 0.1, 0.2, 0.3], [0.8, 0.3, 0.2, 0.1]])
    assert p_value_of_choice(worth, np.array([0, 0]), sets) == 1 / 4
    # Other choices: twelve ordered pairs of names; only layers 0 and 1 together are worth as much.
    assert p_value_of_choice(worth, np.array([0, 1]), sets) == 1 / 12


@pytest.mark.parametrize(("n_layers", "size", "n_runs"), [(4, 2, 3), (5, 2, 2), (5, 3, 4), (6, 2, 2)])
def test_p_values_are_those_of_the_enumeration(n_layers, size, n_runs):
    random = np.random.default_rng(n_layers + size)
    sets = random.permutation(all_sets(n_layers, size))
    worth = random.integers(0, 6, size=(n_runs, len(sets))) / 5  # with ties
    chosen = random.integers(0, len(sets), size=n_runs)
    assert p_value_of_choice(worth, chosen, sets) == pytest.approx(slow_p_value(worth, chosen, sets))


def test_the_correlation_and_its_p_value_are_those_of_the_enumeration():
    random = np.random.default_rng(3)
    sets = all_sets(5, 2)
    accuracies, drift = random.random((2, len(sets))), random.random((2, 5))
    correlations = [
        np.mean([
            stats.spearmanr([run[list(names)][layers].sum() for layers in sets], values).statistic
            for run, values in zip(drift, accuracies, strict=True)
        ])
        for names in permutations(range(5))
    ]  # fmt: skip
    value, p_value = correlation_with_drift(accuracies, drift, sets)
    assert value == pytest.approx(correlations[0])
    assert p_value == pytest.approx(np.mean(np.array(correlations) >= correlations[0] - 1e-9))


def test_accuracy_that_follows_drift_has_the_lowest_p_value_that_is_possible():
    sets, drift = all_sets(6, 2), np.array([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]])
    accuracies = drift @ sets.T
    assert correlation_with_drift(accuracies, drift, sets) == pytest.approx((1.0, 1 / 720))
    assert p_value_of_choice(accuracies, np.array([len(sets) - 1]), sets) == pytest.approx(1 / 15)


def test_equal_accuracies_have_no_correlation():
    sets = all_sets(4, 2)
    assert np.isnan(correlation_with_drift(np.ones((1, 6)), np.arange(4.0)[None], sets)).all()


def simulated(random, n_runs=6):
    """A study without an effect: runs share the worth of sets and the drift of layers, as seeds and tasks do."""
    sets = all_sets(6, 2)
    accuracies = random.normal(size=len(sets)) + random.normal(size=(n_runs, len(sets)))
    drift = random.normal(size=6) + 0.3 * random.normal(size=(n_runs, 6))
    chosen = np.array([np.flatnonzero(sets[:, np.argsort(-own)[:2]].all(axis=1))[0] for own in drift])
    return accuracies, drift, chosen, sets


def test_a_choice_without_an_effect_is_significant_no_more_often_than_it_says():
    random = np.random.default_rng(5)
    found = []
    for _ in range(1000):
        accuracies, drift, chosen, sets = simulated(random)
        found.append((
            p_value_of_choice(accuracies[:1], chosen[:1], sets),
            p_value_of_choice(-places(accuracies), chosen, sets),
            correlation_with_drift(accuracies, drift, sets)[1],
        ))  # fmt: skip
    one_run, all_runs, correlation = np.array(found).T
    for level in (0.05, 0.1, 0.2):
        error = 3 * np.sqrt(level * (1 - level) / 1000)
        assert np.mean(one_run <= level + 1e-9) <= level + error
        assert np.mean(all_runs <= level + 1e-9) <= level + error
        assert np.mean(correlation <= level + 1e-9) == pytest.approx(level, abs=error)
    assert np.mean(one_run <= 0.2 + 1e-9) == pytest.approx(0.2, abs=0.04)  # three of the fifteen sets


def test_tied_sets_share_their_place():
    assert places(np.array([[0.5, 0.9, 0.5, 0.1]])).tolist() == [[2.5, 1, 2.5, 4]]


def test_relabellings_start_with_the_names_as_they_are():
    assert len(relabellings(4)) == 24
    many = relabellings(9)
    assert len(many) == DRAWN
    for names in (relabellings(4), many):
        assert names[0].tolist() == list(range(names.shape[1]))
        assert (np.sort(names, axis=1) == names[0]).all()
    assert (many == relabellings(9)).all()


def test_a_missing_set_is_refused():
    sets = all_sets(4, 2)
    for wrong in (sets[1:], np.vstack([sets[1:], sets[1:2]]), np.vstack([sets[1:], all_sets(4, 3)[:1]])):
        with pytest.raises(ValueError, match="are not all sets of"):
            p_value_of_choice(np.zeros((1, len(wrong))), np.array([0]), wrong)
