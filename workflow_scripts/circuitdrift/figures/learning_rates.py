"""The table of every learning rate that was tried, by task and method."""

from __future__ import annotations

import pandas as pd

from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, counts_phrase, layout_of, percent_with_interval


def table(trials: pd.DataFrame, labels: MethodLabels) -> Table:
    """Every learning rate that was tried, by task and method.

    Args:
        trials: trials tables with model, task and method.
        labels: of the study's methods.
    """
    rows = []
    for row in trials.to_dict("records"):
        diverged = pd.isna(row["accuracy"])
        accuracy = [100 * row[column] for column in ("accuracy", "lower", "upper")]
        rows.append(
            {
                "Model": row["model"],
                "Task": task_label(row["task"]),
                "Method": labels.of(row["method"]),
                "Factor": f"{row['factor']:g}",
                "Learning rate": f"{row['learning_rate']:.3g}",
                "Validation accuracy (%)": "diverged" if diverged else percent_with_interval(*accuracy),
                "Validation loss": EMPTY if diverged else f"{row['loss']:.3f}",
                "Chosen": "yes" if row["chosen"] else "",
            }
        )
    counts = counts_phrase(trials.groupby(["model", "task", "method"], sort=False).size())
    note = (
        f"{counts} trials for each method, at multiples (factor) of its own learning rate, trained on a part of the "
        f"train split and judged by the {counts_phrase(trials['n'])} prompts held out of it, with 95 % Wilson "
        "intervals. Chosen: highest accuracy, then lowest loss in nats per answer token, then lowest rate. Test "
        "prompts and the study's seeds have no part in it."
    )
    columns = [
        "model",
        "task",
        "method",
        "factor",
        "learning_rate",
        "n",
        "accuracy",
        "lower",
        "upper",
        "loss",
        "chosen",
    ]
    return Table("Learning rates tried", note, trials[columns], layout_of(rows))
