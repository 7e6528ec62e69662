"""The table of what moves a circuit by how much: fine-tuning, another wording, and the lack of any training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.figures.drift_reliability import interval_over_seeds
from circuitdrift.figures.labels import MethodLabels, control_label, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import base_against_last, of_most_prompts

_LEVELS = {"edge": "edges", "node": "nodes"}
_SIMILARITIES = ["within_before", "within_after", "between", "paired"]
_POINT = ["model", "task", "kind", "name", "level", "measure"]
_CONTROLS = ("wording", "untrained", "untrained_seeds")
_DEPENDENT = "untrained_seeds"
"""The control whose pairs share models, so that their scatter gives no interval."""


def table(reliability: pd.DataFrame, model_controls: pd.DataFrame, labels: MethodLabels) -> Table:
    """Similarities and excess of each method's drift and, below, of each control, by task and level.

    Args:
        reliability: reliability tables of all runs with circuits.
        model_controls: model_controls tables of all models and tasks that have one.
        labels: of the study's methods.
    """
    tidy = compare(reliability, model_controls)
    shown = tidy[tidy["measure"] == "jaccard"]
    ordered = [
        row
        for _, of_task in shown.groupby(["model", "task"], sort=False)
        for row in sorted(of_task.to_dict("records"), key=lambda row: _place(row, labels))
    ]
    note = (
        "Jaccard index of circuits from disjoint halves of the prompts; same prompts: of two circuits from one half; "
        "excess: drift beyond noise, 0 where nothing differs. Fine-tuning: base model, then last checkpoint; n counts "
        "seeds. Another wording: the base model on the same operands before and after the instruction is replaced. "
        "Untrained: the base model, then its architecture with random weights. Two untrained models: with weights of "
        "two seeds. Brackets: 95 % intervals; of fine-tunings as in table drift_reliability, of the wording for other "
        "prompts alone, of untrained models for other weights too. Several pairs of untrained models share models and "
        "have no interval. A wording is one example: another one may move the circuit more or less."
    )
    return Table("What moves a circuit", note, tidy, layout_of([_laid_out(row, labels) for row in ordered]))


def compare(reliability: pd.DataFrame, model_controls: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds or pairs at the largest number of prompts, for tasks that have controls.

    Returns:
        model, task, kind (fine-tuning or control), name (of the method or control), level, measure, n (seeds, or pairs
        of circuits), examples, the similarities, excess, lower and upper.
    """
    drift = of_most_prompts(base_against_last(reliability)).assign(kind="fine-tuning")
    drift = drift.rename(columns={"method": "name"})
    drift = drift.merge(model_controls[["model", "task"]].drop_duplicates())
    most = model_controls.groupby(["model", "task"])["examples"].transform("max")
    controls = model_controls[model_controls["examples"] == most].assign(kind="control")
    controls = controls.rename(columns={"control": "name"})
    rows = []
    for found in (drift, controls):
        for point, group in found.groupby(_POINT, sort=False):
            named = dict(zip(_POINT, point, strict=True))
            lower, upper = _interval(str(named["name"]), group)
            numbers = group[[*_SIMILARITIES, "excess"]].mean(skipna=False).to_dict()
            counts = {"n": len(group), "examples": int(group["examples"].max())}
            rows.append(named | counts | numbers | {"lower": lower, "upper": upper})
    return pd.DataFrame(rows)


def _interval(name: str, group: pd.DataFrame) -> tuple[float, float]:
    if name == _DEPENDENT and len(group) > 1:
        return float("nan"), float("nan")
    return interval_over_seeds(group)


def _place(row: Mapping[Hashable, Any], labels: MethodLabels) -> tuple[Any, ...]:
    """Methods in the order of legends, then controls; edges before nodes."""
    level = list(_LEVELS).index(row["level"])
    if row["kind"] == "control":
        return True, _CONTROLS.index(row["name"]), level
    return False, labels.order(row["name"]), level


def _laid_out(row: Mapping[Hashable, Any], labels: MethodLabels) -> dict[str, str]:
    is_control = row["kind"] == "control"
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Comparison": f"Control: {control_label(row['name']).lower()}" if is_control else labels.of(row["name"]),
        "Level": _LEVELS[row["level"]],
        "n": str(row["n"]),
        "Within, before": _number(row["within_before"]),
        "Within, after": _number(row["within_after"]),
        "Between": _number(row["between"]),
        "Same prompts": _number(row["paired"]),
        "Excess": _with_interval(row),
    }


def _number(value: float) -> str:
    return EMPTY if np.isnan(value) else f"{value:.3f}"


def _with_interval(row: Mapping[Hashable, Any]) -> str:
    if np.isnan(row["excess"]) or np.isnan(row["lower"]):
        return _number(row["excess"])
    return f"{row['excess']:.3f} [{row['lower']:.3f}, {row['upper']:.3f}]"
