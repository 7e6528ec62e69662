"""Whether edges drift more than nodes, measured against the same ratio in noise (docs/method.md#nodes-and-edges).

Another sample of prompts, too, changes edges more than nodes, and the ratio depends on the size of the change: sets of
nodes cannot differ as much as sets of edges do. So drift is compared with *simulated drift*: noise of the run's own
scores, amplified, and added to a checkpoint as if fine-tuning had done it. The noise is amplified until the nodes'
excess is that of the real drift. With the excess that the edges have then,

    quotient = edge excess / edge excess of the simulated drift,

which is 1 where drift moves circuits as another dose of noise would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import special

from circuitdrift.compute import progress
from circuitdrift.drift.changes import ratio
from circuitdrift.drift.reliability import (
    MEASURES,
    Describe,
    Features,
    FoldScores,
    Halves,
    draw_halves,
    excess_of,
    jackknife_covariance,
    mean_of_defined,
    noise_of,
    prepared_features,
    similarity_of_prepared,
)
from circuitdrift.drift.reliability_table import Comparison
from circuitdrift.intervals import CONFIDENCE

AMPLIFICATIONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
"""Factors of the noise in simulated drift."""

SIMULATED_DRIFTS = 20
"""Drifts that are simulated, each with its own sample of the noise."""

HALF_SPLITS = 20
SEED = 1

Simulated = Mapping[tuple[str, str], Float[np.ndarray, "draw factor"]]
"""Excess of simulated drifts of no noise and of each of the amplifications, by level and measure."""

MARGIN = 1.25
"""Edges drift no more than noise says if the quotient is surely below this: the usual margin of bioequivalence."""

MORE = "edges drift more than noise's own ratio says"
NO_MORE = "no more than noise"

Squares = Float[np.ndarray, "2 2"]
"""Of the edges' excess and the expected one: squared half-widths and their products, from which those of
combinations follow."""


@dataclass(frozen=True)
class Quotient:
    """The edges' excess over the expected one, of one run or from means over seeds, with its uncertainty.

    Attributes:
        edges: excess of the edges.
        expected: excess that edges would have if drift were noise that moves the nodes as far.
        of_prompts: squared half-widths of 95 % intervals over other samples of prompts.
        of_drifts: the same over other drifts of the same kind: other seeds, and other samples of the noise.
    """

    edges: float
    expected: float
    of_prompts: Squares
    of_drifts: Squares

    @property
    def value(self) -> float:
        """The quotient; NaN where the expected excess cannot be told from 0: nodes do not drift."""
        return ratio(self.edges, self.expected) if self._is_defined() else float("nan")

    def interval(self) -> tuple[float, float]:
        """Fieller's 95 % interval (1954): the quotients q for which edges - q expected cannot be told from 0.

        NaN where the expected excess cannot be told from 0, because no bounded set of quotients has this level then.
        """
        if not self._is_defined():
            return float("nan"), float("nan")
        squares = self.of_prompts + self.of_drifts
        leading = self.expected**2 - squares[1, 1]
        middle = self.edges * self.expected - squares[0, 1]
        width = float(np.sqrt(max(0.0, middle**2 - leading * (self.edges**2 - squares[0, 0]))))
        return (middle - width) / leading, (middle + width) / leading

    def verdict(self, prompts: int) -> str:
        """What the numbers say.

        Judged on the difference edges - q expected, which is defined where the quotient is not: more than noise if it
        is surely positive at q = 1, no more if surely negative at q = :data:`MARGIN`.

        Args:
            prompts: prompts of the study, from which the number needed for a verdict is extrapolated.
        """
        if not np.isfinite([self.edges, self.expected, *self.of_prompts.flat, *self.of_drifts.flat]).all():
            return "unresolved, circuits are empty or do not vary"
        if self._difference(1) > self._half_width(1):
            return MORE
        if self._difference(MARGIN) < -self._half_width(MARGIN):
            return NO_MORE
        needed = self._prompts_needed(prompts)
        if np.isfinite(needed):
            return f"unresolved, needs about {needed:,.0f} prompts"
        return "unresolved, more prompts alone would not do"

    def _is_defined(self) -> bool:
        return self.expected > 0 and self.expected**2 > self.of_prompts[1, 1] + self.of_drifts[1, 1]

    def _difference(self, quotient: float) -> float:
        return self.edges - quotient * self.expected

    def _half_width(self, quotient: float) -> float:
        return float(np.sqrt(_square(self.of_prompts, quotient) + _square(self.of_drifts, quotient)))

    def _prompts_needed(self, prompts: int) -> float:
        """Prompts for the nearer of the two verdicts, if the squares of prompts shrink as 1 / prompts."""
        needed = []
        for quotient, sign in ((1.0, 1), (MARGIN, -1)):
            left = self._difference(quotient) ** 2 - _square(self.of_drifts, quotient)
            if sign * self._difference(quotient) > 0 and left > 0:
                needed.append(float(np.ceil(prompts * _square(self.of_prompts, quotient) / left)))
        return min(needed, default=float("inf"))


def _square(squares: Squares, quotient: float) -> float:
    """The square of edges - quotient x expected."""
    weights = np.array([1.0, -quotient])
    return max(0.0, float(weights @ squares @ weights))


def simulate_drifts(before: FoldScores, after: FoldScores, halves: Halves, describe: Describe) -> Simulated:
    """The excess of drifts that are nothing but amplified noise.

    A random half of the folds less the other half, divided by two, is a sample of the noise that the mean over all
    folds has: with its covariance, and without correlation with that mean. Amplified and added to all scores of a
    checkpoint, it makes the checkpoint after a simulated drift. Drifts start from the two checkpoints in turn.
    """
    n_folds = before.n_folds
    one, other = draw_halves(np.arange(n_folds), n_folds, n_folds // 2, SIMULATED_DRIFTS, SEED)
    starts = [(start, _describe_halves(start, halves, describe)) for start in (before, after)]
    excesses = {key: np.zeros((SIMULATED_DRIFTS, 1 + len(AMPLIFICATIONS))) for key in starts[0][1][0]}
    for draw in progress(range(SIMULATED_DRIFTS), "simulating drifts", SIMULATED_DRIFTS):
        start, unmoved = starts[draw % 2]
        noise = (start.means(one[draw : draw + 1]) - start.means(other[draw : draw + 1])) / 2
        for place, factor in enumerate(AMPLIFICATIONS, start=1):
            moved = FoldScores(start.scores + factor * noise, start.sizes)
            for key, excess in _excess_of_features(unmoved, _describe_halves(moved, halves, describe)).items():
                excesses[key][draw, place] = excess
    return excesses


def _describe_halves(scores: FoldScores, halves: Halves, describe: Describe) -> tuple[Features, Features]:
    """The features of the first and of the second halves, prepared."""
    return prepared_features(scores, halves[0], describe), prepared_features(scores, halves[1], describe)


def _excess_of_features(
    before: tuple[Features, Features], after: tuple[Features, Features]
) -> dict[tuple[str, str], float]:
    """The excess of two checkpoints by level and measure, from prepared features of both halves of each."""
    pairs = [before, after, (before[0], after[1]), (before[1], after[0])]
    found = {}
    for key in before[0]:
        similar = np.stack([similarity_of_prepared(key[1], one[key], other[key]) for one, other in pairs], axis=1)
        within_before, within_after, between = (
            float(mean_of_defined(similar[:, which])) for which in ([0], [1], [2, 3])
        )
        found[key] = (within_before + within_after) / 2 - between
    return found


@dataclass(frozen=True)
class NoiseCurve:
    """How far edges move in simulated drift that moves nodes so far, by one measure.

    Attributes:
        nodes: excess of the nodes at each factor, a mean over simulated drifts.
        edges: excess of the edges; between the factors it is interpolated.
        variances: variance over simulated drifts of the edges' excess about the curve.
    """

    nodes: Float[np.ndarray, " factor"]
    edges: Float[np.ndarray, " factor"]
    variances: Float[np.ndarray, " factor"]

    @classmethod
    def of(cls, simulated: Simulated, measure: str) -> NoiseCurve:
        """The curve of a measure, at the factors at which most simulated drifts leave circuits that are not empty."""
        nodes, edges = simulated["node", measure], simulated["edge", measure]
        lacking = np.isnan(nodes) | np.isnan(edges)
        usable = lacking.mean(axis=0) < 0.5
        nodes, edges = (np.ma.array(drawn, mask=lacking)[:, usable] for drawn in (nodes, edges))
        mean_nodes, mean_edges = (np.maximum.accumulate(np.asarray(drawn.mean(axis=0))) for drawn in (nodes, edges))
        apart = edges - np.interp(nodes.filled(0.0), mean_nodes, mean_edges)
        return cls(mean_nodes, mean_edges, np.asarray(apart.var(axis=0, ddof=1)))

    def expected(self, nodes: float) -> float:
        """The edges' excess where nodes have this one; beyond the largest simulated drift, that of the largest.

        A negative excess of the nodes counts as that of the same size, with the sign changed.
        """
        return float(np.sign(nodes) * np.interp(abs(nodes), self.nodes, self.edges))

    def variance(self, nodes: float) -> float:
        """The variance about the curve of the edges' excess in one such drift."""
        return float(np.interp(abs(nodes), self.nodes, self.variances))


def tabulate_nodes_and_edges(comparisons: Sequence[Comparison], describe: Describe) -> pd.DataFrame:
    """The first against the last checkpoint, at each number of prompts that was compared, by measure.

    Args:
        comparisons: of a run's checkpoints; the first is that of its first checkpoint with its last.
        describe: that of the comparisons.

    Returns:
        Columns of the ``nodes_and_edges`` schema. ``expected`` is the edges' excess in simulated drift, ``ratio_drift``
        is edge over node excess, ``ratio_noise`` expected over node excess, ``ratio_within`` the ratio of plain noise.
        ``edge_variance``, ``expected_variance`` and ``covariance`` are the jackknife's over ``folds``,
        ``drift_variance`` is that of the edges' excess over simulated drifts.
    """
    ends = (comparisons[0].from_checkpoint, comparisons[0].to_checkpoint)
    rows = []
    for comparison in comparisons:
        if (comparison.from_checkpoint, comparison.to_checkpoint) == ends:
            halves = (comparison.halves[0][:HALF_SPLITS], comparison.halves[1][:HALF_SPLITS])
            simulated = simulate_drifts(comparison.before, comparison.after, halves, describe)
            rows += [_row(comparison, NoiseCurve.of(simulated, measure), measure) for measure in MEASURES]
    return pd.DataFrame(rows)


def _row(comparison: Comparison, curve: NoiseCurve, measure: str) -> dict[str, str | float]:
    edge, node = (comparison.found[level, measure] for level in ("edge", "node"))
    pair = np.array([excess_of(edge), curve.expected(excess_of(node))])
    replicates = np.array(
        [
            [excess_of(found["edge", measure]), curve.expected(excess_of(found["node", measure]))]
            for found in comparison.replicates
        ]
    )
    covariance, variance = jackknife_covariance(replicates), curve.variance(excess_of(node))
    quotient = quotient_of_seeds(pair[None], covariance[None], np.array([variance]), len(replicates))
    lower, upper = quotient.interval()
    return {
        "from_checkpoint": comparison.from_checkpoint,
        "to_checkpoint": comparison.to_checkpoint,
        "measure": measure,
        "examples": comparison.examples,
        "folds": len(replicates),
        "edge_excess": excess_of(edge),
        "node_excess": excess_of(node),
        "edge_noise": noise_of(edge),
        "node_noise": noise_of(node),
        "expected": pair[1],
        "ratio_drift": ratio(excess_of(edge), excess_of(node)),
        "ratio_noise": ratio(pair[1], excess_of(node)),
        "ratio_within": ratio(noise_of(edge), noise_of(node)),
        "edge_variance": covariance[0, 0],
        "expected_variance": covariance[1, 1],
        "covariance": covariance[0, 1],
        "drift_variance": variance,
        "quotient": quotient.value,
        "lower": lower,
        "upper": upper,
    }


def quotient_of_seeds(
    pairs: Float[np.ndarray, "seed 2"],
    covariances: Float[np.ndarray, "seed 2 2"],
    variances: Float[np.ndarray, " seed"],
    n_folds: int,
) -> Quotient:
    """The quotient of the seeds' mean excesses.

    The squares of prompts are the mean of the seeds' own, since all seeds have the same prompts, and so are those of
    simulated drifts, since seeds share the task that they drift to. Those of seeds come from their scatter
    (docs/method.md#reliability).

    Args:
        pairs: excess of the edges and the expected one, of each seed.
        covariances: the jackknife's, of each seed.
        variances: over simulated drifts, of each seed.
        n_folds: folds that the jackknife left out one by one.
    """
    seeds = len(pairs)
    of_drifts = np.zeros((2, 2))
    of_drifts[0, 0] = _students_t(SIMULATED_DRIFTS) ** 2 * variances.mean()
    if seeds > 1:
        of_drifts += _students_t(seeds) ** 2 * np.cov(pairs, rowvar=False) / seeds
    edges, expected = pairs.mean(axis=0)
    return Quotient(float(edges), float(expected), _students_t(n_folds) ** 2 * covariances.mean(axis=0), of_drifts)


def _students_t(n: int) -> float:
    """The two-sided 95 % quantile with one degree of freedom less than there are values."""
    return float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2))
