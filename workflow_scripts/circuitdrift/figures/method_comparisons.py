"""The table of differences in accuracy between methods that train exactly the same number of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import pandas as pd

from circuitdrift.comparisons import holm, paired_difference
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, counts_phrase, layout_of
from circuitdrift.figures.tidy import RUN, FigureDataError, final_accuracy

_FIRST = ("circuit_lora", "random_lora")
"""The kinds of method that stand before all others in a comparison, in this order."""

_TIDY = ["model", "task", "method", "other", "trainable_parameters", "difference", "lower", "upper"]
_TIDY += ["p_value", "p_holm", "effect_size", "seeds", "prompts"]
_COLUMNS = ["Task", "Comparison", "Trainable parameters", "Difference", "p", "p (Holm)", "Effect size", "Seeds"]
_COLUMNS += ["Prompts"]


def table(
    accuracy: pd.DataFrame,
    predictions: pd.DataFrame,
    layer_sets: Mapping[str, Mapping[str, Sequence[int]]],
    labels: MethodLabels,
) -> Table:
    """Paired differences in percentage points at the end of fine-tuning, positive where the first method is better.

    Methods that are all sets of layers are left out: they are one distribution, which table ``layer_sets`` shows.

    Args:
        accuracy: accuracy tables of all runs, which hold the number of parameters.
        predictions: which test prompts each run answers correctly.
        layer_sets: the methods that are all sets of layers, for each CircuitLoRA that has such a reference.
        labels: of the study's methods.

    Raises:
        FigureDataError: methods were tested on different prompts.
    """
    in_sets = {name for sets in layer_sets.values() for name in sets}
    compared = compare(
        accuracy[~accuracy["method"].isin(in_sets)], predictions[~predictions["method"].isin(in_sets)], labels
    )
    if compared.empty:
        note = "No two methods of this study train exactly the same number of parameters: there is nothing to compare."
        return Table("Comparisons of methods", note, compared, pd.DataFrame(columns=_COLUMNS))
    rows = [
        {
            "Model": row["model"],
            "Task": task_label(row["task"]),
            "Comparison": f"{labels.of(row['method'])} - {labels.of(row['other'])}",
            "Trainable parameters": f"{row['trainable_parameters']:,}",
            "Difference": _difference(row["difference"], row["lower"], row["upper"], row["seeds"]),
            "p": _number(row["p_value"], ".2g"),
            "p (Holm)": _number(row["p_holm"], ".2g"),
            "Effect size": _number(row["effect_size"], ".2f"),
            "Seeds": f"{row['seeds']}",
            "Prompts": f"{row['prompts']:,}",
        }
        for row in compared.to_dict("records")
    ]
    note = (
        "Differences in test accuracy after fine-tuning, in percentage points, between methods that train exactly the "
        "same number of parameters; positive where the first method is better. Both methods answer the same prompts "
        "with the same seeds, and differences are taken prompt by prompt and seed by seed. "
        f"{_what_is_covered(compared)} Holm: corrected for all comparisons of this table. Effect size: the difference "
        "over its standard deviation between seeds."
    )
    return Table("Comparisons of methods", note, compared, layout_of(rows))


def compare(accuracy: pd.DataFrame, predictions: pd.DataFrame, labels: MethodLabels) -> pd.DataFrame:
    """All pairs of methods of equal size by model and task, in percentage points; no rows where there are none.

    Raises:
        FigureDataError: methods were tested on different prompts.
    """
    final = final_accuracy(accuracy).query("statistic == 'seed'")
    last = predictions[predictions["checkpoint"] == predictions.groupby([*RUN, "seed"])["checkpoint"].transform("max")]
    rows = []
    for (model, task), of_task in final.groupby(["model", "task"], sort=False):
        answers = _answers(last[(last["model"] == model) & (last["task"] == task)], str(model), str(task))
        for one, other, parameters in _pairs_of_equal_size(of_task, labels):
            found = paired_difference(answers.loc[one].to_numpy(dtype=bool), answers.loc[other].to_numpy(dtype=bool))
            percent = (100 * found.value, 100 * found.lower, 100 * found.upper, found.p_value)
            counts = (found.effect_size, found.n_seeds, found.n_prompts)
            rows.append((model, task, one, other, parameters, *percent, float("nan"), *counts))
    compared = pd.DataFrame(rows, columns=_TIDY)
    return compared.assign(p_holm=holm(compared["p_value"].tolist()))


def _pairs_of_equal_size(final: pd.DataFrame, labels: MethodLabels) -> Iterator[tuple[str, str, int]]:
    """Pairs of methods that train equally many parameters with every seed, and the largest such number of any seed.

    Controls on permuted answers do not compete: they would only add comparisons to correct for.
    """

    def place(method: str) -> tuple[int, tuple[bool, int, tuple[int, ...], str]]:
        kind = labels.methods[method].kind
        return _FIRST.index(kind) if kind in _FIRST else len(_FIRST), labels.order(method)

    by_seed = {str(method): rows.set_index("seed")["trainable_parameters"] for method, rows in final.groupby("method")}
    competing = [method for method in by_seed if not labels.is_sham(method)]
    for one, other in combinations(sorted(competing, key=place), 2):
        if by_seed[one].to_dict() == by_seed[other].to_dict():
            yield one, other, int(by_seed[one].max())


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


def _difference(value: float, lower: float, upper: float, seeds: int) -> str:
    interval = "(one seed: no interval)" if seeds == 1 else f"[{lower:+.1f}, {upper:+.1f}]"
    return f"{value:+.1f} {interval}"


def _number(value: float, form: str) -> str:
    return EMPTY if pd.isna(value) else f"{value:{form}}"
