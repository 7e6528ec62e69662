"""95 % confidence intervals of proportions, through scipy; intervals of ratios are in circuits/metrics.py."""

from __future__ import annotations

from scipy import stats

CONFIDENCE = 0.95


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), in [0, 1]."""
    interval = stats.binomtest(successes, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
