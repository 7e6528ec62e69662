"""The verdicts of several studies side by side, as a table in Markdown: verdicts_of_studies.py results/STUDY ..."""

import sys
from pathlib import Path

import pandas as pd


def cell(row: pd.Series) -> str:
    """A verdict with the measured value and its interval, where the study has them."""
    if pd.isna(row["measured"]):
        return f"{row['verdict']} (not measured)"
    interval = "" if pd.isna(row["lower"]) else f" [{row['lower']:.3g}, {row['upper']:.3g}]"
    return f"**{row['verdict']}**: {row['measured']:.3g}{interval}"


def claimed(row: pd.Series) -> str:
    """What the claim says of the measured value, such as "above 0 (points)"."""
    side = f"within {row['margin']:g} of" if row["claimed"] == "within" else row["claimed"]
    return f"{side} {row['null']:g} ({row['unit']})"


columns = {}
for study in map(Path, sys.argv[1:]):
    verdicts = pd.read_csv(study / "tables" / "verdicts.csv").set_index("name")
    for model, rows in verdicts.groupby("model"):
        columns["Claim"], columns["Claimed"] = rows["claim"], rows.apply(claimed, axis=1)
        columns["Published"] = rows["published"].fillna("")
        columns[f"{study.name}, {model}"] = rows.apply(cell, axis=1)

lines = [list(columns), ["---"] * len(columns), *pd.DataFrame(columns).to_numpy()]
print("\n".join(f"| {' | '.join(line)} |" for line in lines))
