"""95 % confidence intervals: Wilson's for proportions, the bootstrap's for means. Thin covers over scipy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), in [0, 1]."""
    interval = stats.binomtest(successes, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_mean_interval(values: NDArray[np.float64], resamples: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` (shape: examples), in the unit of the values.

    Constant or single values have an interval of zero width.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        mean = float(np.mean(values))
        return mean, mean
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
