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
    """Faithfulness of the union of the sub-tasks' circuits less that of the task's own circuit, prompt by prompt."""
    found = _of_last_circuits(tables)
    union = found[found["circuit"] == "union"] if len(found) else found
    if union.empty:
        return nothing_measured(NO_COMPOSITION)
    means = _means(found)
    remark = f"union {means['union'].mean():.3f}, own {means['own'].mean():.3f}"
    half_width = (union["difference_upper"] - union["difference_lower"]) / 2
    return measured_in(union, union["difference"], remark).with_half_width(half_width)


def union_less_random(tables: Tables) -> Measured:
    """Faithfulness of the union less the mean of random unions of equal size."""
    found = _of_last_circuits(tables)
    if found.empty:
        return nothing_measured(NO_COMPOSITION)
    means = _means(found)
    if "random_union" not in means:
        return nothing_measured("the study has no random unions")
    remark = f"union {means['union'].mean():.3f}, random unions {means['random_union'].mean():.3f}"
    return measured_in(means.reset_index(), means["union"] - means["random_union"], remark)


def _of_last_circuits(tables: Tables) -> pd.DataFrame:
    """Rows of the last checkpoints, at the size nearest to the configured fraction, by the paper's measure."""
    found = tables.supervised(tables.union_faithfulness)
    if found.empty:
        return found
    return _nearest(at_last_checkpoint(found[found["metric"] == _METRIC]), "size_fraction", tables.fraction)


def _means(found: pd.DataFrame) -> pd.DataFrame:
    """Mean faithfulness over the draws of each circuit, a row for each run and a column for each circuit."""
    return found.groupby([*RUN, "circuit"])["faithfulness"].mean().unstack("circuit")


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
