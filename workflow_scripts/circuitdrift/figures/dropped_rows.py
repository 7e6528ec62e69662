"""The table of the rows of task files that were left out, by reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import pandas as pd

from circuitdrift.figures.labels import task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.tasks.prompt_file import Reason

_KEYS = ["model", "task", "reason"]


def table(dropped: pd.DataFrame, dropping: Sequence[Mapping[str, str]]) -> Table:
    """How many rows of each task's file were left out, in all and by reason.

    Args:
        dropped: the rows that were left out.
        dropping: model and task of each list of them, also of empty ones.
    """
    counts = dropped.groupby(_KEYS).size().to_dict()
    tidy = pd.DataFrame(
        [(pair["model"], pair["task"], reason, counts.get((pair["model"], pair["task"], reason), 0))
         for pair in dropping for reason in get_args(Reason)],
        columns=[*_KEYS, "rows"],
    )  # fmt: skip
    rows = [
        {
            "Model": str(model),
            "Task": task_label(str(task)),
            "Rows left out": f"{found['rows'].sum():,}",
            "Reasons": _reasons(found),
        }
        for (model, task), found in tidy.groupby(["model", "task"], sort=False)
    ]
    note = (
        "Rows of task files with invalid_rows: drop that do not fit. A row counts once, by the first reason in the "
        "order of the table's CSV file; of equal rows the first is kept. What fits depends on the model's tokenizer."
    )
    return Table("Rows left out of task files", note, tidy, layout_of(rows))


def _reasons(of_task: pd.DataFrame) -> str:
    found = of_task[of_task["rows"] > 0]
    return ", ".join(f"{reason}: {n:,}" for reason, n in zip(found["reason"], found["rows"], strict=True)) or EMPTY
