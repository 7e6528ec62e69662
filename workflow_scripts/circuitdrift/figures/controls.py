"""The table of controls: how alike circuits are that differ by noise, by seed, by kind of prompt or by chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from circuitdrift.drift.control_names import BASE_SEED, NO_CHECKPOINT
from circuitdrift.drift.reliability import MEASURES
from circuitdrift.figures.labels import MethodLabels, checkpoint_label, control_label, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import BASE_MODEL
from circuitdrift.intervals import CONFIDENCE
from circuitdrift.provenance import BASE_CHECKPOINT

_KEYS = ["model", "task", "method", "control", "checkpoint", "pairing", "level"]
_SPLITS, _NONE = "half-splits", "none"


def table(controls: pd.DataFrame, labels: MethodLabels) -> Table:
    """Mean similarities of each control's pairs, by task, method and level; one row for what methods share."""
    shared = controls["checkpoint"].isin([NO_CHECKPOINT, BASE_CHECKPOINT])
    first = controls["method"] == controls.groupby(["model", "task"])["method"].transform("first")
    once = controls[~shared | first]
    once = once.assign(method=once["method"].where(~shared, BASE_MODEL))
    rows = [
        {**dict(zip(_KEYS, names, strict=True)), **_over_pairs(pairs)}
        for names, pairs in once.groupby(_KEYS, sort=False, dropna=False)
    ]
    note = (
        "Means over pairs of circuits. Prompts: those behind each circuit. Jaccard index with brackets, of which the "
        "column Brackets says what they cover. Seeds, draws: 95 % interval of the mean over other seeds of fine-tuning "
        "or other random draws (jackknife that leaves out one at a time, Student's t); it does not cover other "
        "prompts. Half-splits: the middle 95 % of the pairs; half-splits share their prompts, so this is the scatter "
        "of one, not an interval of the mean. None: fewer than three seeds or draws. Rate: changed parts over parts of "
        "the first circuit. Ruzicka, Spearman, Pearson: similarity of scores, where there are any. Excess: Jaccard "
        "within each of two seeds less that between them, from disjoint halves of the prompts, to be read beside the "
        "excess of fine-tuning. The other excesses are in the controls' own files."
    )
    layout = layout_of([_laid_out(row, labels) for row in rows])
    return Table("Controls: how alike circuits are without drift", note, pd.DataFrame(rows), layout)


def _over_pairs(pairs: pd.DataFrame) -> dict[str, Any]:
    """One control's numbers at one level."""
    covers, lower, upper = interval_of_pairs(pairs)
    numbers = {
        "pairs": len(pairs),
        "examples": pairs["examples"].mean(),
        **{measure: pairs[measure].mean() for measure in MEASURES},
        "rate": pairs["rate"].mean(),
        "brackets": covers,
        "lower": lower,
        "upper": upper,
    }
    excess = {f"excess_{measure}" for measure in MEASURES} & set(pairs.columns)
    return numbers | {name: pairs[name].mean() for name in sorted(excess)}


def interval_of_pairs(pairs: pd.DataFrame) -> tuple[str, float, float]:
    """What brackets around the mean Jaccard index cover, and their ends.

    Pairs of seeds or of draws are not independent, since each seed is in several. So the error of their mean comes from
    a jackknife that leaves out one seed with all its pairs (Arvesen 1969, for U-statistics). Half-splits of one
    checkpoint have equal numbers in ``seed_a`` and ``seed_b``: their pairs resample the same prompts, and the brackets
    hold the middle 95 % of them.

    Args:
        pairs: ``seed_a``, ``seed_b``, ``checkpoint`` and ``jaccard`` of a control's pairs.

    Returns:
        A word for what the brackets cover, and the ends; NaN for fewer than three seeds or draws.
    """
    values = pairs["jaccard"]
    if (pairs["seed_a"] == pairs["seed_b"]).all():
        tail = (1 - CONFIDENCE) / 2
        return _SPLITS, float(values.quantile(tail)), float(values.quantile(1 - tail))
    units = sorted({*pairs["seed_a"], *pairs["seed_b"]} - {BASE_SEED})
    if len(units) < 3:
        return _NONE, float("nan"), float("nan")
    without = np.array([values[(pairs["seed_a"] != unit) & (pairs["seed_b"] != unit)].mean() for unit in units])
    n = len(units)
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    width = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    mean = float(values.mean())
    return "draws" if (pairs["checkpoint"] == NO_CHECKPOINT).all() else "seeds", mean - width, mean + width


def _laid_out(row: Mapping[str, Any], labels: MethodLabels) -> dict[str, str]:
    checkpoint = str(row["checkpoint"])
    where = f", {checkpoint_label(checkpoint)}" if checkpoint != NO_CHECKPOINT else ""
    excess = row.get("excess_jaccard", float("nan"))
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Method": EMPTY if row["method"] == BASE_MODEL else labels.of(row["method"]),
        "Control": control_label(row["control"]) + where,
        "Pairing": row["pairing"] if isinstance(row["pairing"], str) else EMPTY,
        "Level": f"{row['level']}s",
        "Pairs": f"{row['pairs']:,}",
        "Prompts": _number(row["examples"], 0),
        "Jaccard": _bracketed(row),
        "Brackets": row["brackets"],
        "Rate (%)": _number(100 * row["rate"], 1),
        **{measure.capitalize(): _number(row[measure], 3) for measure in MEASURES if measure != "jaccard"},
        "Excess": _number(excess, 3),
    }


def _bracketed(row: Mapping[str, Any]) -> str:
    if np.isnan(row["lower"]):
        return _number(row["jaccard"], 3)
    return f"{row['jaccard']:.3f} [{row['lower']:.3f}, {row['upper']:.3f}]"


def _number(value: float, decimals: int) -> str:
    return EMPTY if np.isnan(value) else f"{value:,.{decimals}f}"
