"""The comparisons of a run's checkpoints with the noise of its circuits, and the table ``reliability`` of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.compute import progress
from circuitdrift.drift.reliability import (
    Describe,
    FoldScores,
    Halves,
    Numbers,
    compare_each,
    corrected_similarity,
    cross_validated_cosine,
    draw_halves,
    excess_of,
    exchange_p_values,
    interval_of,
    jackknife_errors,
    leave_folds_out,
    prompts_needed,
)
from circuitdrift.drift.series import DriftError

SEED = 0
SHARES_OF_HALF = (4, 2, 1)
"""Halves of a quarter, a half and all of the folds that one of two halves can have."""

SPLITS_OF_AN_EXCHANGE = 5
"""Half-splits behind each exchange of a test; more would raise its power a little and its cost in proportion."""

SPLITS_OF_A_REPLICATE = 20
"""Half-splits behind each jackknife replicate. Fewer widen the intervals by the scatter of the draws."""


@dataclass(frozen=True)
class Resampling:
    """How often prompts are resampled.

    Attributes:
        half_splits: random half-splits that a similarity is averaged over.
        exchanges: exchanges of before and after behind a p-value.
    """

    half_splits: int
    exchanges: int


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints compared on disjoint halves of the prompts.

    Attributes:
        from_checkpoint: name of the checkpoint before.
        to_checkpoint: name of the checkpoint after.
        before: scores of the checkpoint before.
        after: scores of the checkpoint after.
        examples: prompts of a half.
        halves: the half-splits.
        replicate_halves: half-splits without each fold in turn.
        found: mean similarities by level and measure.
        replicates: the same from each of ``replicate_halves``.
        p_values: of the excess, by level and measure.
        cosine: cross-validated cosine of the edges' scores.
    """

    from_checkpoint: str
    to_checkpoint: str
    before: FoldScores
    after: FoldScores
    examples: int
    halves: Halves
    replicate_halves: Sequence[Halves]
    found: Numbers
    replicates: Sequence[Numbers]
    p_values: Mapping[tuple[str, str], float]
    cosine: float


def compare_checkpoints(
    checkpoints: Mapping[str, FoldScores], describe: Describe, resampling: Resampling
) -> list[Comparison]:
    """Compare the first with the last checkpoint at several numbers of prompts, and neighbours at the largest.

    Args:
        checkpoints: fold scores by name, in order, the base model's first.
        describe: from :func:`circuitdrift.drift.fold_circuits.features_of_circuits`.
        resampling: how often.

    Raises:
        DriftError: fewer than two checkpoints, or folds that differ between them, or fewer than four folds.
    """
    names = list(checkpoints)
    if len(names) < 2:
        raise DriftError(f"reliability needs the scores of at least two checkpoints; given: {names}")
    sizes = checkpoints[names[0]].sizes
    for name, scores in checkpoints.items():
        if not np.array_equal(scores.sizes, sizes):
            raise DriftError(
                f"checkpoint '{name}' was scored in folds of {scores.sizes.tolist()} prompts, '{names[0]}' in folds "
                f"of {sizes.tolist()}; score all checkpoints on the same prompts"
            )
    if len(sizes) < 4:
        raise DriftError(
            f"{len(sizes)} folds are too few to split in halves; raise the task's circuit to 4 prompts or more"
        )
    largest = len(sizes) // 2
    halves = sorted({max(1, largest // share) for share in SHARES_OF_HALF})
    compared = [(names[0], names[-1], folds) for folds in halves]
    compared += [(*pair, largest) for pair in pairwise(names) if pair != (names[0], names[-1])]
    shown = progress(compared, "comparing checkpoints, pairs", len(compared))
    return [_compare(checkpoints, before, after, folds, describe, resampling) for before, after, folds in shown]


def _compare(
    checkpoints: Mapping[str, FoldScores],
    from_checkpoint: str,
    to_checkpoint: str,
    folds: int,
    describe: Describe,
    resampling: Resampling,
) -> Comparison:
    """Compare two checkpoints on halves of so many folds."""
    before, after = checkpoints[from_checkpoint], checkpoints[to_checkpoint]
    n_folds = before.n_folds
    halves = draw_halves(np.arange(n_folds), n_folds, folds, resampling.half_splits, SEED)
    replicate_halves = leave_folds_out(n_folds, folds, SPLITS_OF_A_REPLICATE, SEED)
    few = (halves[0][:SPLITS_OF_AN_EXCHANGE], halves[1][:SPLITS_OF_AN_EXCHANGE])
    found, *replicates = compare_each(before, after, [halves, *replicate_halves], describe)
    return Comparison(
        from_checkpoint=from_checkpoint,
        to_checkpoint=to_checkpoint,
        before=before,
        after=after,
        halves=halves,
        replicate_halves=replicate_halves,
        examples=round(folds * float(before.sizes.mean())),
        found=found,
        replicates=replicates,
        p_values=exchange_p_values(before, after, few, describe, resampling.exchanges, SEED),
        cosine=cross_validated_cosine(before, after),
    )


def tabulate_reliability(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """The comparisons of a run's checkpoints, one row for each level and measure.

    Returns:
        Columns of the ``reliability`` schema; ``examples`` counts the prompts of a half. ``corrected`` is null but for
        ``pearson``, ``prompts_for_80`` and ``prompts_for_90`` are the prompts at which the noisier of the two
        checkpoints would reach a split-half correlation of .8 and .9 (``pearson`` alone). The column
        ``cross_validated_cosine`` is that of all edge scores, in the rows of edges and ``pearson``.
    """
    return pd.DataFrame([row for comparison in comparisons for row in _rows(comparison)])


def _rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """One row for each level and measure."""
    errors = jackknife_errors(comparison.replicates)
    examples = comparison.examples
    for (level, measure), found in comparison.found.items():
        excess = excess_of(found)
        lower, upper = interval_of(excess, errors[level, measure], len(comparison.replicates))
        noisier = min(found["within_before"], found["within_after"])
        is_correlation = measure == "pearson"
        yield {
            "from_checkpoint": comparison.from_checkpoint,
            "to_checkpoint": comparison.to_checkpoint,
            "level": level,
            "measure": measure,
            "examples": examples,
            **found,
            "excess": excess,
            "lower": lower,
            "upper": upper,
            "corrected": corrected_similarity(found) if is_correlation else np.nan,
            "p_value": comparison.p_values[level, measure],
            "prompts_for_80": prompts_needed(noisier, examples, 0.8) if is_correlation else np.nan,
            "prompts_for_90": prompts_needed(noisier, examples, 0.9) if is_correlation else np.nan,
            "cross_validated_cosine": comparison.cosine if (level, measure) == ("edge", "pearson") else np.nan,
        }
