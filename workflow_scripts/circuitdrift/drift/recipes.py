r"""How reliable recipes of scoring are: circuits of one model from disjoint halves of the prompts, recipe by recipe.

A recipe is reliable if two samples of prompts give the same circuit. All recipes score the same prompts in the same
folds, and are compared on the same half-splits, so that most of what is peculiar to the prompts cancels in the
difference of two recipes. See docs/method.md#recipes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from circuitdrift.drift.reliability import (
    Describe,
    FoldScores,
    draw_halves,
    interval_of,
    jackknife_covariance,
    leave_folds_out,
    prompts_needed,
    similarities_of_pairs,
    similarity,
)
from circuitdrift.drift.reliability_table import SEED, SHARES_OF_HALF, SPLITS_OF_A_REPLICATE

Key = tuple[str, str]
"""Level and measure."""


def tabulate_recipe_reliability(
    recipes: Mapping[str, FoldScores], describe: Describe, half_splits: int
) -> pd.DataFrame:
    """Similarity within each recipe at three numbers of prompts, and its difference from the first recipe's.

    Args:
        recipes: fold scores by recipe, the study's own first, all from the same prompts.
        describe: from :func:`circuitdrift.drift.fold_circuits.features_of_circuits`.
        half_splits: random half-splits that a similarity is averaged over.

    Returns:
        Columns of the ``recipe_reliability`` schema. ``examples`` counts the prompts of a half. ``lower`` and
        ``upper`` bound ``within``, the other two bounds ``difference``: 95 %, from the jackknife over folds.
        ``similarity_to_own`` is that of the two recipes' circuits or scores from all prompts. ``prompts_for_80`` is
        null but for ``pearson``.
    """
    own = next(iter(recipes.values()))
    n_folds = own.n_folds
    to_own = {name: _similarity_to(own, scores, describe) for name, scores in recipes.items()}
    rows = []
    for size in sorted({max(1, n_folds // 2 // share) for share in SHARES_OF_HALF}):
        within, replicates = {}, {}
        for name, scores in recipes.items():
            within[name], replicates[name] = similarity_and_replicates(scores, size, half_splits, describe)
        examples = round(size * float(own.sizes.mean()))
        first, first_replicates = next(iter(within.values())), next(iter(replicates.values()))
        for name in recipes:
            for key, found in within[name].items():
                difference = found - first[key]
                lower, upper = interval_of(found, jackknife_error(replicates[name][key]), n_folds)
                error = jackknife_error(replicates[name][key] - first_replicates[key])
                difference_lower, difference_upper = interval_of(difference, error, n_folds)
                level, measure = key
                rows.append(
                    {
                        "recipe": name,
                        "level": level,
                        "measure": measure,
                        "examples": examples,
                        "within": found,
                        "lower": lower,
                        "upper": upper,
                        "difference": difference,
                        "difference_lower": difference_lower,
                        "difference_upper": difference_upper,
                        "similarity_to_own": to_own[name][key],
                        "prompts_for_80": prompts_needed(found, examples, 0.8) if measure == "pearson" else np.nan,
                    }
                )
    return pd.DataFrame(rows)


def similarity_and_replicates(
    scores: FoldScores, size: int, half_splits: int, describe: Describe
) -> tuple[dict[Key, float], dict[Key, Float[np.ndarray, " fold"]]]:
    """Mean similarity of what the halves of each split give, and the same without each fold in turn.

    Pairs of two empty circuits are left out. Halves have ``size`` folds, those of replicates as many, or as many as
    there are. Many halves come in several replicates, so all are compared together.
    """
    n_folds = scores.n_folds
    halves = draw_halves(np.arange(n_folds), n_folds, size, half_splits, SEED)
    left_out = leave_folds_out(n_folds, size, SPLITS_OF_A_REPLICATE, SEED)
    every = [np.stack(each, axis=1) for each in (halves, *left_out)]
    splits = np.concatenate([np.arange(len(pairs)) for pairs in every])
    # Half-splits of one number come from one permutation of the folds, and share halves.
    order = np.argsort(splits, kind="stable")
    found = similarities_of_pairs(scores, np.concatenate(every)[order], describe)
    within, replicates = {}, {}
    for key, values in found.items():
        similar = np.empty(len(order))
        similar[order] = values
        within[key] = _mean(similar[:half_splits])
        by_fold = similar[half_splits:].reshape(n_folds, SPLITS_OF_A_REPLICATE)
        replicates[key] = np.array([_mean(values_without_fold) for values_without_fold in by_fold])
    return within, replicates


def _similarity_to(own: FoldScores, scores: FoldScores, describe: Describe) -> dict[Key, float]:
    everything: Bool[np.ndarray, "row fold"] = np.ones((1, own.n_folds), dtype=bool)
    one, other = (describe(each.means(everything)) for each in (own, scores))
    return {key: _mean(similarity(key[1], one[key], other[key])) for key in one}


def _mean(values: Float[np.ndarray, " row"]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def jackknife_error(replicates: Float[np.ndarray, " fold"]) -> float:
    """Standard error from values that each leave one fold out (Tukey 1958)."""
    return float(np.sqrt(jackknife_covariance(replicates[:, None])[0, 0]))
