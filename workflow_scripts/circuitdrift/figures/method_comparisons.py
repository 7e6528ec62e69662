"""The table of differences in accuracy between methods of equal size, and of equal compute.

The comparisons that a study is made for, CircuitLoRA against its baselines, are corrected for each other. All other
pairs of equal size stand in a family of their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from circuitdrift.comparisons import holm, paired_difference
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, counts_phrase, layout_of
from circuitdrift.figures.tidy import FigureDataError, at_last_checkpoint
from circuitdrift.method_pairs import EQUAL_COMPUTE, Pair, are_of_equal_size, planned_pairs, runs_with_costs

Family = Literal["planned", "other"]

_TIDY = ["model", "task", "method", "other", "basis", "family", "trainable_parameters", "flops", "other_flops"]
_TIDY += ["difference", "lower", "upper", "p_value", "p_holm", "effect_size", "seeds", "prompts"]
_COLUMNS = ["Task", "Comparison", "Equal in", "Family", "Trainable parameters", "FLOPs with phase 1", "Difference", "p"]
_COLUMNS += ["p (Holm)", "Effect size", "Seeds", "Prompts"]


def table(
    accuracy: pd.DataFrame,
    predictions: pd.DataFrame,
    training_log: pd.DataFrame,
    layer_sets: Mapping[str, Mapping[str, Sequence[int]]],
    phase_1: Mapping[str, str],
    united: Mapping[str, Mapping[str, Sequence[str]]],
    labels: MethodLabels,
) -> Table:
    """Paired differences in percentage points at the end of fine-tuning, positive where the first method is better.

    Methods that are all sets of layers are left out: they are one distribution, which table ``layer_sets`` shows.

    Args:
        accuracy: accuracy tables of all runs, which hold the number of parameters.
        predictions: which test prompts each run answers correctly.
        training_log: training logs of all runs, which hold the FLOPs.
        layer_sets: the methods that are all sets of layers, for each CircuitLoRA that has such a reference.
        phase_1: the method that is the phase 1 of each method that has one.
        united: for each method that follows the union of sub-tasks' circuits, the sub-tasks of each task.
        labels: of the study's methods.

    Raises:
        FigureDataError: methods were tested on different prompts.
    """
    in_sets = {name for sets in layer_sets.values() for name in sets}
    runs = runs_with_costs(accuracy, training_log, phase_1, united)
    compared = compare(runs[~runs["method"].isin(in_sets)], predictions[~predictions["method"].isin(in_sets)], labels)
    if compared.empty:
        note = "No two methods of this study train exactly the same number of parameters: there is nothing to compare."
        return Table("Comparisons of methods", note, compared, pd.DataFrame(columns=_COLUMNS))
    note = (
        "Differences in test accuracy after fine-tuning, in percentage points, positive where the first method is "
        "better. Equal in parameters: both methods train exactly the same number of parameters for as many steps. "
        "Equal in compute: as many parameters, and FLOPs that differ by at most "
        f"{100 * EQUAL_COMPUTE:.0f} %, CircuitLoRA's phase 1 counted; the column has both numbers of FLOPs. Both "
        "methods answer the same prompts with the same seeds, and differences are taken prompt by prompt and seed by "
        f"seed. {_what_is_covered(compared)} Family: planned comparisons are those of a CircuitLoRA with a baseline. "
        "Holm: corrected for the other comparisons of the family in this table. Effect size: the difference over its "
        "standard deviation between seeds."
    )
    rows = [_laid_out(row, labels) for row in compared.to_dict("records")]
    return Table("Comparisons of methods", note, compared, layout_of(rows))


def compare(runs: pd.DataFrame, predictions: pd.DataFrame, labels: MethodLabels) -> pd.DataFrame:
    """All comparisons by model and task, in percentage points, planned ones first; no rows where there are none.

    Args:
        runs: size and cost of each run (:func:`circuitdrift.method_pairs.runs_with_costs`).
        predictions: which test prompts each run answers correctly.
        labels: of the study's methods.

    Raises:
        FigureDataError: methods were tested on different prompts.
    """
    last = at_last_checkpoint(predictions)
    rows = []
    for (model, task), of_task in runs.groupby(["model", "task"], sort=False):
        answers = _answers(last[(last["model"] == model) & (last["task"] == task)], str(model), str(task))
        means = of_task.groupby("method")[["trainable_parameters", "total_flops"]].mean()
        for pair, family in _pairs(of_task, labels):
            one, other = pair.method, pair.other
            found = paired_difference(answers.loc[one].to_numpy(dtype=bool), answers.loc[other].to_numpy(dtype=bool))
            costs = (int(of_task.loc[of_task["method"] == one, "trainable_parameters"].max()),)
            costs += tuple(means.loc[[one, other], "total_flops"])
            percent = (100 * found.value, 100 * found.lower, 100 * found.upper, found.p_value)
            described = (*percent, np.nan, found.effect_size, found.n_seeds, found.n_prompts)
            rows.append((model, task, one, other, pair.basis, family, *costs, *described))
    compared = pd.DataFrame(rows, columns=_TIDY)
    compared["p_holm"] = compared.groupby("family")["p_value"].transform(lambda values: holm(values.tolist()))
    return compared.sort_values("family", ascending=False, kind="stable", ignore_index=True)


def _pairs(runs: pd.DataFrame, labels: MethodLabels) -> Iterator[tuple[Pair, Family]]:
    """The planned pairs of a model and task, and all others that train as many parameters for as many steps.

    Controls on permuted answers do not compete: they would only add comparisons to correct for.
    """
    planned = planned_pairs(runs, labels.methods)
    yield from ((pair, "planned") for pair in planned)
    known = {frozenset((pair.method, pair.other)) for pair in planned}
    competing = [name for name in dict.fromkeys(runs["method"]) if not labels.is_sham(name)]
    for one, other in combinations(sorted(competing, key=lambda name: _place(name, labels)), 2):
        if frozenset((one, other)) not in known and are_of_equal_size(runs, one, other):
            yield Pair(one, other, "parameters"), "other"


def _place(method: str, labels: MethodLabels) -> tuple[bool, tuple[bool, int, tuple[int, ...], str]]:
    """RandomLoRA stands before all others in a comparison."""
    return labels.methods[method].kind != "random_lora", labels.order(method)


def _answers(predictions: pd.DataFrame, model: str, task: str) -> pd.DataFrame:
    """Whether an answer is right: a row for each method and seed, a column for each prompt."""
    answers = predictions.pivot(index=["method", "seed"], columns="example_id", values="correct").sort_index()
    if answers.isna().to_numpy().any():
        raise FigureDataError(
            f"predictions of {model} on {task}: runs were tested on different prompts, so nothing can be paired; run "
            "the fine-tuning rule again"
        )
    return answers


def _what_is_covered(compared: pd.DataFrame) -> str:
    """What the intervals say and do not say, and which differences they can resolve."""
    if compared["seeds"].max() == 1:
        return "With one seed, nothing shows what another seed would give: there is no interval and no test."
    half = (compared["upper"] - compared["lower"]).max() / 2
    if half == 0:
        return "The compared methods answer alike with every seed, so that nothing shows how far they could differ."
    return (
        "Brackets: 95 % intervals for other seeds and other test prompts of the same task; they say nothing about "
        f"another model, task or training recipe. With {counts_phrase(compared['seeds'])} seeds, a difference of less "
        f"than {half:.1f} points (half of the widest interval) could not have been resolved everywhere."
    )


def _laid_out(row: Mapping[Hashable, Any], labels: MethodLabels) -> dict[str, str]:
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Comparison": f"{labels.of(row['method'])} - {labels.of(row['other'])}",
        "Equal in": row["basis"],
        "Family": row["family"],
        "Trainable parameters": f"{row['trainable_parameters']:,}",
        "FLOPs with phase 1": ", ".join(_number(row[name], ".2e") for name in ("flops", "other_flops")),
        "Difference": _difference(row["difference"], row["lower"], row["upper"], row["seeds"]),
        "p": _number(row["p_value"], ".2g"),
        "p (Holm)": _number(row["p_holm"], ".2g"),
        "Effect size": _number(row["effect_size"], ".2f"),
        "Seeds": f"{row['seeds']}",
        "Prompts": f"{row['prompts']:,}",
    }


def _difference(value: float, lower: float, upper: float, seeds: int) -> str:
    interval = "(one seed: no interval)" if seeds == 1 else f"[{lower:+.1f}, {upper:+.1f}]"
    return f"{value:+.1f} {interval}"


def _number(value: float, form: str) -> str:
    return EMPTY if pd.isna(value) else f"{value:{form}}"
