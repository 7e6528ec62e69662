"""The table of CPR and CMD of the MIB benchmark, before and after fine-tuning."""

from __future__ import annotations

import pandas as pd

from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of, seeds_phrase
from circuitdrift.figures.tidy import BASE_MODEL, RUN, of_base_and_last, with_seed_means

_AREAS = {
    "CPR, KL": ("cpr", "kl_model_circuit"),
    "CMD, KL": ("cmd", "kl_model_circuit"),
    "CPR, logit difference": ("cpr", "logit_difference"),
    "CMD, logit difference": ("cmd", "logit_difference"),
}


def table(faithfulness_areas: pd.DataFrame, labels: MethodLabels) -> Table:
    """CPR and CMD by task and method, of the base model and of each run's last checkpoint."""
    shown = of_base_and_last(faithfulness_areas)
    areas = with_seed_means(shown, [*RUN, "checkpoint", "metric", "area"], ["value"])
    means = areas[areas["statistic"] == "mean"]
    rows = []
    for (model, task), of_task in means.groupby(["model", "task"], sort=False):
        methods = set(of_task["method"]) - {BASE_MODEL}
        for method in [BASE_MODEL, *sorted(methods, key=labels.order)]:
            found = of_task[of_task["method"] == method].set_index(["area", "metric"])[["value", "lower", "upper"]]
            found = found.reindex(list(_AREAS.values()))  # a task without answers has no logit difference
            cells = {title: _area(*found.loc[key]) for title, key in _AREAS.items()}
            before = "Before fine-tuning" if methods else "Model as it is"
            name = before if method == BASE_MODEL else labels.of(method)
            rows.append({"Model": str(model), "Task": task_label(str(task)), "Method": name, **cells})
    sizes = shown.iloc[0]
    note = (
        "Areas of the MIB benchmark over the share of edges that a circuit keeps, by the trapezoidal rule over "
        f"{sizes['n_sizes']} sizes from {sizes['smallest']:g} to {sizes['largest']:g}. CPR: under the faithfulness "
        "curve (more is better; it may exceed 1). CMD: between the curve and 1 (less is better). KL: faithfulness is "
        "1 - KL(model || circuit) / KL(model || corrupted). Without answers there is no logit difference. "
        "Methods: their last checkpoint. "
        f"{_what_brackets_hold(means[means['method'] != BASE_MODEL])}"
    )
    return Table("Areas of faithfulness curves", note, areas, layout_of(rows))


def _what_brackets_hold(of_methods: pd.DataFrame) -> str:
    """What stands in brackets: the base model has no seeds, and one seed has an interval of its own."""
    interval = "95 % bootstrap intervals over prompts"
    if of_methods.empty:
        return f"Brackets: {interval}."
    if of_methods["seeds"].max() == 1:
        return f"One seed; brackets: {interval}."
    return f"Mean over {seeds_phrase(of_methods)}; brackets: lowest and highest seed, before fine-tuning {interval}."


def _area(value: float, lower: float, upper: float) -> str:
    return EMPTY if pd.isna(value) else f"{value:.3f} [{lower:.3f}, {upper:.3f}]"
