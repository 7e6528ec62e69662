"""The table of edges that change at nodes that come or go, beside circuits of the same degrees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import RUN

_NUMBERS = ["changed", "node_induced", "expected", "lower", "upper", "node_based_estimate"]


def table(node_induced: pd.DataFrame, labels: MethodLabels) -> Table:
    """Means over seeds by task and method.

    Args:
        node_induced: node_induced tables of all runs with circuits.
        labels: of the study's methods.
    """
    runs = node_induced.groupby(RUN, sort=False)
    numbers = runs[_NUMBERS].mean().assign(seeds=runs["seed"].nunique()).reset_index()
    rows = [
        _laid_out(row, labels)
        for _, of_task in numbers.groupby(["model", "task"], sort=False)
        for row in sorted(of_task.to_dict("records"), key=lambda row: labels.order(row["method"]))
    ]
    note = (
        "Edges that change between base model and last checkpoint, means over seeds. At changed nodes: those that "
        "touch a node that comes or goes. Same degrees: the same number after the edges of both circuits were "
        "swapped at random with every node's degrees kept, with the middle 95 % of the draws in brackets. All edges "
        "of a node that comes or goes change, so this number follows from the degrees, but for edges between two "
        "such nodes: it is below that of the same degrees where changed nodes are joined with one another. "
        "Estimate: changed nodes times the edges per node of the base circuit; it is larger where changed nodes "
        "have fewer edges than the others."
    )
    return Table("Edges that change at changed nodes", note, numbers, layout_of(rows))


def _laid_out(row: Mapping[Any, Any], labels: MethodLabels) -> dict[str, str]:
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Method": labels.of(row["method"]),
        "Seeds": str(row["seeds"]),
        "Edges changed": _number(row["changed"]),
        "At changed nodes": _number(row["node_induced"]),
        "Same degrees": f"{_number(row['expected'])} [{_number(row['lower'])}, {_number(row['upper'])}]",
        "Estimate": _number(row["node_based_estimate"]),
    }


def _number(value: float) -> str:
    return EMPTY if np.isnan(value) else f"{value:,.1f}"
