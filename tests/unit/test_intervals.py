"""Intervals of proportions are scipy's, to the last bit."""

from __future__ import annotations

from scipy.stats import binomtest

from circuitdrift.intervals import wilson_interval


def test_wilson_s_interval_is_that_of_scipy():
    for n in (1, 2, 7, 30, 97, 1000):
        for successes in {*range(min(n, 40) + 1), n // 2, n - 1, n}:
            expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
            assert wilson_interval(successes, n) == (expected.low, expected.high)
