"""What is measured of the union of the sub-tasks' circuits, on compositional tasks (docs/method.md#verdicts)."""

from __future__ import annotations

import pandas as pd

from circuitdrift.verdicts.decision import Measured, measured_in, nothing_measured
from circuitdrift.verdicts.tables import RUN, Tables, at_last_checkpoint

NO_COMPOSITION = "the study has no compositional task with circuits of its sub-tasks"
_METRIC = "kl_from_corrupted"
_MERGED = ("own", "union", "intersection")
"""Circuits on a compositional task that are no sub-task's."""

_FIRST_EDGES = 100


def union_less_own(tables: Tables) -> Measured:
    """Faithfulness of the union of the sub-tasks' circuits less that of the task's own circuit."""
    return _union_less(tables, "own", "the study has no own circuit beside the union")


def union_less_random(tables: Tables) -> Measured:
    """Faithfulness of the union less the mean of random unions of equal size."""
    return _union_less(tables, "random_union", "the study has no random unions")


def _union_less(tables: Tables, other: str, lacking: str) -> Measured:
    """Differences at the last checkpoint, at the size nearest to the configured fraction."""
    found = tables.supervised(tables.union_faithfulness)
    if found.empty:
        return nothing_measured(NO_COMPOSITION)
    found = _nearest(at_last_checkpoint(found[found["metric"] == _METRIC]), "size_fraction", tables.fraction)
    means = found.groupby([*RUN, "circuit"])["faithfulness"].mean().unstack("circuit")
    if not {"union", other} <= set(means.columns):
        return nothing_measured(lacking)
    remark = f"union {means['union'].mean():.3f}, {_in_words(other)} {means[other].mean():.3f}"
    return measured_in(means.reset_index(), means["union"] - means[other], remark)


def union_overlap(tables: Tables) -> Measured:
    """Edges that the union and the task's own circuit share, less those that the two sub-tasks' circuits share."""
    found = tables.supervised(tables.overlaps)
    if found.empty:
        return nothing_measured(NO_COMPOSITION)
    found = _nearest(at_last_checkpoint(found), "k", _FIRST_EDGES)
    merged = found[["first", "second"]].isin(_MERGED)
    of_union = found[["first", "second"]].isin(["own", "union"]).all(axis=1)
    union, parts = (found[rows].groupby(RUN)["overlap"].mean() for rows in (of_union, ~merged.any(axis=1)))
    means = pd.DataFrame({"union": union, "parts": parts}).dropna()
    remark = f"of the first {found['k'].iloc[0]} edges: union {means['union'].mean():.1f}"
    return measured_in(
        means.reset_index(), means["union"] - means["parts"], f"{remark}, sub-tasks {means['parts'].mean():.1f}"
    )


def _nearest(table: pd.DataFrame, column: str, wanted: float) -> pd.DataFrame:
    """The rows of the value of a column that is nearest to another."""
    apart = (table[column] - wanted).abs()
    return table[apart == apart.min()]


def _in_words(circuit: str) -> str:
    return circuit.replace("_", " ")
