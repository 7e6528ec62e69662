"""The table of circuits of models that are not trained: size, faithfulness, and whether other prompts give the same."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from circuitdrift.config.study import OWN_RECIPE
from circuitdrift.figures.labels import task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of, prompts_phrase

_KEYS = ["model", "task"]
_NUMBERS = ("", "_lower", "_upper")


def table(untouched_reliability: pd.DataFrame, untouched_faithfulness: pd.DataFrame) -> Table:
    """One row for each model and task.

    Args:
        untouched_reliability: similarity of circuits from disjoint halves of the prompts, by recipe.
        untouched_faithfulness: faithfulness of the circuits from all prompts, by recipe.
    """
    own = untouched_reliability[untouched_reliability["recipe"] == OWN_RECIPE]
    most = own[own["examples"] == own.groupby(_KEYS)["examples"].transform("max")]
    faithful = untouched_faithfulness[
        (untouched_faithfulness["recipe"] == OWN_RECIPE) & (untouched_faithfulness["metric"] == "kl_model_circuit")
    ]
    tidy = _renamed(faithful, "faithfulness", ["n_edges"])
    for level, measure in (("edge", "jaccard"), ("node", "jaccard"), ("edge", "pearson")):
        found = most[(most["level"] == level) & (most["measure"] == measure)]
        of_largest = {"edge_jaccard": ["examples"], "edge_pearson": ["prompts_for_80"]}
        name = f"{level}_{measure}"
        tidy = tidy.merge(_renamed(found.rename(columns={"within": name}), name, of_largest.get(name, [])), on=_KEYS)
    note = (
        "The circuit of each model as it is. Faithfulness: 1 - KL(model || circuit) / KL(model || corrupted) on the "
        "test split, whose prompts chose no edges; brackets: 95 % bootstrap interval over these prompts. Jaccard: mean "
        "index of two circuits from disjoint halves of the prompts, by edges and by nodes. Correlation: Pearson's of "
        "the signed scores of all edges. Brackets of both: 95 % jackknife over folds, which covers other prompts from "
        "the same source; it is symmetric, so it can exceed 1. Prompts for .8: how many the correlation needs to "
        "reach .8."
    )
    return Table(
        "Circuits of models as they are", note, tidy, layout_of([_row(row) for row in tidy.to_dict("records")])
    )


def _renamed(table: pd.DataFrame, value: str, others: list[str]) -> pd.DataFrame:
    """A number with its interval, named after it, and other columns."""
    renamed = table.rename(columns={"lower": f"{value}_lower", "upper": f"{value}_upper"})
    return renamed[[*_KEYS, *others, *(f"{value}{ending}" for ending in _NUMBERS)]]


def _row(row: Mapping[Hashable, Any]) -> dict[str, str]:
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Edges": f"{row['n_edges']:,}",
        "Faithfulness": _with_interval(row, "faithfulness"),
        "Prompts in a half": f"{row['examples']:,}",
        "Jaccard of edges": _with_interval(row, "edge_jaccard"),
        "Jaccard of nodes": _with_interval(row, "node_jaccard"),
        "Correlation": _with_interval(row, "edge_pearson"),
        "Prompts for .8": prompts_phrase(row["prompts_for_80"]),
    }


def _with_interval(row: Mapping[Hashable, Any], name: str) -> str:
    value, lower, upper = (row[f"{name}{ending}"] for ending in _NUMBERS)
    return EMPTY if pd.isna(value) else f"{value:.3f} [{lower:.3f}, {upper:.3f}]"
