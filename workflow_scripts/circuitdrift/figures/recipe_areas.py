"""The table of CPR and CMD of the MIB benchmark by recipe of scoring."""

from __future__ import annotations

import pandas as pd

from circuitdrift.config.study import OWN_RECIPE
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of

_AREAS = {
    "CPR, logit difference": ("cpr", "logit_difference"),
    "CMD, logit difference": ("cmd", "logit_difference"),
    "CPR, KL": ("cpr", "kl_model_circuit"),
    "CMD, KL": ("cmd", "kl_model_circuit"),
}


def table(recipe_areas: pd.DataFrame, labels: MethodLabels) -> Table:
    """One row for each model, task and recipe, the study's own recipe first.

    Args:
        recipe_areas: areas of the recipes' curves, and their differences from the own recipe's.
        labels: of the study's methods.
    """
    rows = []
    for (model, task, recipe), of_recipe in recipe_areas.groupby(["model", "task", "recipe"], sort=False):
        cells: dict[str, str] = {}
        for title, (area, metric) in _AREAS.items():
            numbers = of_recipe[(of_recipe["area"] == area) & (of_recipe["metric"] == metric)].iloc[0]
            cells[title] = _value(numbers)
            cells[f"{title}, less own"] = EMPTY if recipe == OWN_RECIPE else _difference(numbers)
        names = {"Model": str(model), "Task": task_label(str(task)), "Recipe": str(recipe).replace("_", " ")}
        rows.append({**names, **cells})
    sizes = recipe_areas.iloc[0]
    note = (
        "Areas of the MIB benchmark over the share of edges that a circuit keeps, by the trapezoidal rule over "
        f"{sizes['n_sizes']} sizes from {sizes['smallest']:g} to {sizes['largest']:g}. CPR: under the faithfulness "
        "curve (more is better; it may exceed 1). CMD: between the curve and 1 (less is better). Less own: difference "
        "from the study's recipe on the same prompts. Intervals of 95 % are bootstraps over prompts of the test split, "
        "which chose no edges. They do not cover another circuit split, which would give other circuits."
    )
    return Table("CPR and CMD by recipe of scoring", note, recipe_areas, layout_of(rows))


def _value(numbers: pd.Series) -> str:
    return EMPTY if pd.isna(numbers["value"]) else f"{numbers['value']:.3f}"


def _difference(numbers: pd.Series) -> str:
    if pd.isna(numbers["difference"]):
        return EMPTY
    lower, upper = numbers["difference_lower"], numbers["difference_upper"]
    return f"{numbers['difference']:+.3f} [{lower:+.3f}, {upper:+.3f}]"
