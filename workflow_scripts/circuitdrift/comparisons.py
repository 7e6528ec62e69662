r"""Differences between two methods, paired by seed and by test prompt.

Both methods answer the same prompts with the same seeds, so their difference is taken prompt by prompt and seed by
seed: what is hard for both cancels. With d_sp the difference of seed s on prompt p, of S seeds and P prompts,

    d_sp = difference + seed effect + prompt effect + rest,

the mean over all has the variance  MS_seed / (S P) + MS_prompt / (S P) - MS_rest / (S P),  MS being the mean squares
of the two-way analysis of variance without replication (crossed random effects). The interval is Student's t with
Satterthwaite's degrees of freedom (1946). It covers what another seed or other prompts of the same task would give,
not another model, task or recipe. A bootstrap over seeds and prompts does worse for a handful of seeds: resampling S of
them loses a share 1/S of the variance between them, while the variance of the rest counts three times (Owen 2007, the
pigeonhole bootstrap). See docs/method.md#comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from circuitdrift.intervals import CONFIDENCE


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two methods.

    Attributes:
        value: mean over seeds and prompts, a share in [-1, 1].
        lower: of the 95 % interval.
        upper: of the 95 % interval.
        p_value: two-sided, of no difference; NaN where nothing varies, as with one seed.
        effect_size: the difference over its standard deviation between seeds (Cohen's d of pairs); NaN for one seed.
        n_seeds: seeds.
        n_prompts: prompts.
    """

    value: float
    lower: float
    upper: float
    p_value: float
    effect_size: float
    n_seeds: int
    n_prompts: int


def paired_difference(one: Bool[np.ndarray, "seed prompt"], other: Bool[np.ndarray, "seed prompt"]) -> PairedDifference:
    """How much more often one method is right than another; positive where ``one`` is better.

    With one seed, nothing says what another seed would give: the interval is then unbounded.

    Args:
        one: whether each seed's model answers each prompt correctly.
        other: the same of the other method, seeds and prompts in the same order.
    """
    differences = one.astype(float) - other.astype(float)
    n_seeds, n_prompts = differences.shape
    value = float(differences.mean())
    if n_seeds == 1:
        return PairedDifference(value, -np.inf, np.inf, np.nan, np.nan, n_seeds, n_prompts)
    of_seeds = differences.mean(axis=1)
    error, freedom = _standard_error(differences)
    spread = float(of_seeds.std(ddof=1))
    effect = value / spread if spread > 0 else (0.0 if value == 0 else float(np.copysign(np.inf, value)))
    if error == 0:
        return PairedDifference(value, value, value, 1.0 if value == 0 else 0.0, effect, n_seeds, n_prompts)
    width = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    p_value = 2 * float(special.stdtr(freedom, -abs(value) / error))
    return PairedDifference(value, value - width, value + width, p_value, effect, n_seeds, n_prompts)


@dataclass(frozen=True)
class _MeanSquare:
    """A mean square of the two-way analysis of variance without replication, and its degrees of freedom."""

    value: float
    freedom: int


def _mean_squares(differences: Float[np.ndarray, "seed prompt"]) -> tuple[_MeanSquare, _MeanSquare, _MeanSquare]:
    """The mean squares of seeds, of prompts and of the rest."""
    n_seeds, n_prompts = differences.shape
    total = differences.mean()
    of_seeds, of_prompts = differences.mean(axis=1) - total, differences.mean(axis=0) - total
    rest = differences - total - of_seeds[:, None] - of_prompts[None, :]
    sums = (n_prompts * (of_seeds**2).sum(), n_seeds * (of_prompts**2).sum(), (rest**2).sum())
    freedoms = (n_seeds - 1, max(1, n_prompts - 1), max(1, (n_seeds - 1) * (n_prompts - 1)))
    seed, prompt, residual = (_MeanSquare(float(s) / f, f) for s, f in zip(sums, freedoms, strict=True))
    return seed, prompt, residual


def half_width_of_prompts(differences: Float[np.ndarray, "seed prompt"]) -> float:
    """The half-width of a 95 % interval of the mean difference for other prompts and the same seeds.

    It is Student's t times the root of (MS_prompt - MS_rest) / (S P), the variance of the prompts' effects over their
    number, and 0 where prompts scatter no more than the rest does. NaN for one seed, where the two cannot be told
    apart.
    """
    n_seeds, n_prompts = differences.shape
    if n_seeds == 1:
        return float("nan")
    _, prompt, rest = _mean_squares(differences)
    error = np.sqrt(max(0.0, prompt.value - rest.value) / (n_seeds * n_prompts))
    return float(special.stdtrit(prompt.freedom, (1 + CONFIDENCE) / 2)) * float(error)


def _standard_error(differences: Float[np.ndarray, "seed prompt"]) -> tuple[float, float]:
    """The standard error of the mean of crossed random effects, and its degrees of freedom.

    The variance is never taken as less than that of either effect alone, which subtracting the rest could make it.
    """
    squares = _mean_squares(differences)
    n = differences.size
    seed, prompt, residual = (square.value / n for square in squares)
    variance = max(seed + prompt - residual, seed, prompt)
    if variance == 0:
        return 0.0, 1.0
    spread = sum((square.value / n) ** 2 / square.freedom for square in squares)
    return float(np.sqrt(variance)), max(float(len(differences) - 1), float(variance**2 / spread))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several comparisons (1979): p-values that hold the family-wise error rate.

    NaN, a comparison that cannot be tested, stays NaN and does not count.
    """
    tested = [place for place, value in enumerate(p_values) if not np.isnan(value)]
    adjusted = [float("nan")] * len(p_values)
    largest = 0.0
    for done, place in enumerate(sorted(tested, key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(tested) - done) * p_values[place]))
        adjusted[place] = largest
    return adjusted
