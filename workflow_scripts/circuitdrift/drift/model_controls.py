"""Controls that need another model or other prompts (docs/method.md#controls), in the measures of reliability.

- ``wording``: the base model on the circuit split, before, and on the same examples in the second wording, after. It
  answers: how far does a circuit move where nothing but the instruction changes?
- ``untrained``: the base model, before, and a model of its architecture with random weights, after. Its
  ``within_after`` answers: how alike are circuits of a model that has learned nothing? Its ``between``: how much of the
  base model's circuit is there before any training?
- ``untrained_seeds``: two untrained models. It answers: what does the architecture alone fix?
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from circuitdrift.drift.reliability import Describe, FoldScores
from circuitdrift.drift.reliability_table import Resampling, compare_checkpoints, tabulate_reliability

COLUMNS = ["control", "before", "after", "level", "measure", "examples", "within_before", "within_after", "between"]
COLUMNS += ["paired", "excess", "lower", "upper", "p_value"]
BASE, REWORDED = "base", "reworded"


def tabulate_model_controls(
    base: FoldScores,
    reworded: FoldScores | None,
    untrained: Sequence[FoldScores],
    describe: Describe,
    resampling: Resampling,
) -> pd.DataFrame:
    """Compare the base model with each of its controls, and untrained models with one another.

    Args:
        base: the base model's scores by fold.
        reworded: its scores in the second wording, in the same folds; None where the task has no second wording.
        untrained: scores of the untrained models of seeds 0, 1 and so on.
        describe: from :func:`circuitdrift.drift.fold_circuits.features_of_circuits`.
        resampling: how often prompts are resampled.

    Returns:
        Columns of the ``model_controls`` schema, with the numbers of ``tabulate_reliability`` at several numbers of
        prompts. ``before`` and ``after`` name the two sides: ``base``, ``reworded``, ``untrained-0`` and so on.

    Raises:
        DriftError: the folds differ, there are fewer than four of them, or there is nothing to compare.
    """
    models = {f"untrained-{seed}": scores for seed, scores in enumerate(untrained)}
    compared = [("wording", {BASE: base, REWORDED: reworded})] if reworded else []
    compared += [("untrained", {BASE: base, name: scores}) for name, scores in models.items()]
    compared += [("untrained_seeds", {one: models[one], two: models[two]}) for one, two in combinations(models, 2)]
    frames = [
        tabulate_reliability(compare_checkpoints(pair, describe, resampling)).assign(control=name)
        for name, pair in compared
    ]
    names = {"from_checkpoint": "before", "to_checkpoint": "after"}
    return pd.concat(frames, ignore_index=True).rename(columns=names)[COLUMNS]
