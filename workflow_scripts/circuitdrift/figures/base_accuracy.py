"""The table of the pre-trained model's accuracy on each task, beside guessing."""

from __future__ import annotations

import pandas as pd

from circuitdrift.figures.labels import task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of, percent_with_interval


def table(accuracy: pd.DataFrame, test: pd.DataFrame) -> Table:
    """The pre-trained model's test accuracy on each task, beside what guessing the commonest answer would give.

    Args:
        accuracy: accuracy tables of any runs; their checkpoint 00 is the pre-trained model.
        test: the examples of the test splits.
    """
    start = accuracy[(accuracy["checkpoint"] == accuracy["checkpoint"].min()) & (accuracy["split"] == "test")]
    base = start.drop_duplicates(["model", "task"])[["model", "task", "n", "accuracy", "lower", "upper"]]
    guesses = test.groupby(["model", "task"], sort=False)["answer"].agg(
        majority_share=lambda answers: answers.value_counts(normalize=True).iloc[0],
        commonest_answer=lambda answers: answers.value_counts().sort_index().idxmax().strip(),
    )
    table = base.merge(guesses.reset_index(), on=["model", "task"], how="left")
    rows = [
        {
            "Model": row["model"],
            "Task": task_label(row["task"]),
            "Test prompts": f"{row['n']:,}",
            "Accuracy (%)": percent_with_interval(100 * row["accuracy"], 100 * row["lower"], 100 * row["upper"]),
            "Majority guess (%)": f"{100 * row['majority_share']:.1f}" if pd.notna(row["majority_share"]) else EMPTY,
        }
        for row in table.to_dict("records")
    ]
    note = (
        "Test accuracy of the pre-trained model before any fine-tuning, with 95 % Wilson intervals. Majority guess: "
        "the share of test prompts whose answer is the commonest one, which is what that answer alone would score."
    )
    return Table("Accuracy before fine-tuning", note, table, layout_of(rows))
