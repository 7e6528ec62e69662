"""95 % confidence intervals of proportions; intervals of ratios are in circuits/metrics.py."""

from __future__ import annotations

import math

from scipy.special import ndtri  # scipy.stats, which has the whole interval, is slow to import

CONFIDENCE = 0.95


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), in [0, 1].

    With the share p of n and the normal quantile z it is  (2np + z^2 +- z sqrt(4np(1 - p) + z^2)) / (2(n + z^2)),
    as in Newcombe (1998, Statistics in Medicine 17, 857-872).

    Args:
        successes: number of successes, from 0 to ``n``.
        n: number of trials, at least 1.
    """
    share = successes / n
    z = float(ndtri(0.5 + 0.5 * CONFIDENCE))
    denominator = 2 * (n + z**2)
    centre = (2 * n * share + z**2) / denominator
    half_width = z / denominator * math.sqrt(4 * n * share * (1 - share) + z**2)
    return 0.0 if successes == 0 else centre - half_width, 1.0 if successes == n else centre + half_width
