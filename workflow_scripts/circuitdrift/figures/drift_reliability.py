"""The table of drift against noise: base model against last checkpoint, with a verdict for each method."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import RUN, base_against_last, of_most_prompts
from circuitdrift.intervals import CONFIDENCE

BEYOND_NOISE = "drift beyond noise"
NOT_BEYOND_NOISE = "not beyond noise"
_SIGNIFICANT = 0.05
_LEVELS = {"edge": "edges", "node": "nodes"}


def table(reliability: pd.DataFrame, labels: MethodLabels) -> Table:
    """Similarity within and between, excess with its interval, reliability and verdict, by task and method."""
    net = of_most_prompts(base_against_last(reliability))
    net = net.assign(within=(net["within_before"] + net["within_after"]) / 2)
    runs = [{**dict(zip(RUN, run, strict=True)), **_over_seeds(rows)} for run, rows in net.groupby(RUN, sort=False)]
    tidy = pd.DataFrame(runs)
    tidy["verdict"] = [_verdict(row) for row in runs]
    ordered = [
        row
        for _, of_task in tidy.groupby(["model", "task"], sort=False)
        for row in sorted(of_task.to_dict("records"), key=lambda row: labels.order(row["method"]))
    ]
    note = (
        "Base model against last checkpoint, circuits from disjoint halves of the prompts, Jaccard index. Within: mean "
        "of both checkpoints. Excess: within less between; 0 where nothing drifts. Interval of 95 %: with one seed, "
        "over samples of prompts alone (jackknife over folds). With several seeds, its half-width is the root of the "
        "sum of two squares: that of Student's interval of the mean over seeds, and the mean square of the seeds' own "
        "half-widths. All seeds have the same prompts, so more seeds do not narrow the second part. The interval "
        "covers other seeds and other prompts, but no other training data. Edges less nodes: difference of the two "
        "excesses, lowest and highest seed in brackets. p: largest over seeds. Corrected correlation: of edge scores, "
        "mean over seeds, 1 where nothing drifts. Prompts for .8 and .9: how many the noisiest seed needs for this "
        "correlation between edge scores of two samples of prompts. Verdict, on edges: drift beyond noise if the "
        "interval lies above 0 and every p is below .05; unresolved if the interval covers 0 and the study has fewer "
        "prompts than .8 needs; otherwise not beyond noise."
    )
    return Table("Drift against noise", note, tidy, layout_of([_laid_out(row, labels) for row in ordered]))


def _over_seeds(rows: pd.DataFrame) -> dict[str, Any]:
    """One method's numbers from its seeds' rows of all levels and measures."""
    numbers: dict[str, Any] = {"seeds": rows["seed"].nunique()}
    by_level = {level: rows[(rows["level"] == level) & (rows["measure"] == "jaccard")] for level in _LEVELS}
    for level, name in _LEVELS.items():
        found = by_level[level]
        lower, upper = interval_over_seeds(found)
        numbers |= {
            f"within_{name}": found["within"].mean(skipna=False),
            f"between_{name}": found["between"].mean(skipna=False),
            f"excess_{name}": found["excess"].mean(skipna=False),
            f"lower_{name}": lower,
            f"upper_{name}": upper,
            f"p_value_{name}": found["p_value"].max(),
        }
    apart = by_level["edge"].set_index("seed")["excess"] - by_level["node"].set_index("seed")["excess"]
    correlation = rows[(rows["level"] == "edge") & (rows["measure"] == "pearson")]
    return numbers | {
        "edges_less_nodes": apart.mean(skipna=False),
        "lowest_edges_less_nodes": apart.min(),
        "highest_edges_less_nodes": apart.max(),
        "corrected": correlation["corrected"].mean(skipna=False),
        "prompts": 2 * int(rows["examples"].max()),
        "prompts_for_80": correlation["prompts_for_80"].max(),
        "prompts_for_90": correlation["prompts_for_90"].max(),
    }


def interval_over_seeds(rows: pd.DataFrame) -> tuple[float, float]:
    """The 95 % interval of a mean excess, for other seeds and other prompts.

    Two errors add up: the scatter of the seeds, whose half-width is that of Student's t over seeds, and the sampling of
    the prompts. All seeds are scored on the same prompts and share the base model's noise, so the second error does not
    shrink with their number: its half-width is the root mean square of the seeds' own. The half-widths add in squares
    (Zou and Donner 2008), which keeps the level of each. The scatter of seeds contains some of the noise of prompts, so
    the interval is rather too wide. With one seed it is that seed's, for other prompts alone.

    Args:
        rows: ``excess``, ``lower`` and ``upper`` of each seed.

    Returns:
        The bounds, NaN where a seed has none: circuits of some halves were empty.
    """
    if rows[["excess", "lower", "upper"]].isna().any(axis=None):
        return float("nan"), float("nan")
    mean, seeds = float(rows["excess"].mean()), len(rows)
    squared = float((((rows["upper"] - rows["lower"]) / 2) ** 2).mean())
    if seeds > 1:
        error = float(rows["excess"].std(ddof=1)) / np.sqrt(seeds)
        squared += (float(special.stdtrit(seeds - 1, (1 + CONFIDENCE) / 2)) * error) ** 2
    width = float(np.sqrt(squared))
    return mean - width, mean + width


def _verdict(row: Mapping[str, Any]) -> str:
    """What a method's numbers on edges say."""
    if np.isnan(row["lower_edges"]):
        return "unresolved, empty circuits"
    if row["lower_edges"] > 0 and row["p_value_edges"] < _SIGNIFICANT:
        return BEYOND_NOISE
    if row["lower_edges"] <= 0 <= row["upper_edges"] and row["prompts_for_80"] > row["prompts"]:
        return f"unresolved, needs {_prompts(row['prompts_for_80'])} prompts"
    return NOT_BEYOND_NOISE


def _laid_out(row: Mapping[Hashable, Any], labels: MethodLabels) -> dict[str, str]:
    cells = {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Method": labels.of(row["method"]),
        "Seeds": str(row["seeds"]),
    }
    for name in _LEVELS.values():
        cells |= {
            f"Within, {name}": _number(row[f"within_{name}"]),
            f"Between, {name}": _number(row[f"between_{name}"]),
            f"Excess, {name}": _bracketed(row, f"excess_{name}", f"lower_{name}", f"upper_{name}"),
            f"p, {name}": _number(row[f"p_value_{name}"]),
        }
    return cells | {
        "Edges less nodes": _bracketed(row, "edges_less_nodes", "lowest_edges_less_nodes", "highest_edges_less_nodes"),
        "Corrected correlation": _number(row["corrected"]),
        "Prompts": f"{row['prompts']:,}",
        "Prompts for .8": _prompts(row["prompts_for_80"]),
        "Prompts for .9": _prompts(row["prompts_for_90"]),
        "Verdict": row["verdict"],
    }


def _number(value: float) -> str:
    return EMPTY if np.isnan(value) else f"{value:.3f}"


def _bracketed(row: Mapping[Hashable, Any], value: str, lower: str, upper: str) -> str:
    return EMPTY if np.isnan(row[value]) else f"{row[value]:.3f} [{_number(row[lower])}, {_number(row[upper])}]"


def _prompts(needed: float) -> str:
    """A number of prompts, rounded up; no number reaches a reliability that is not positive."""
    return EMPTY if np.isnan(needed) else "more" if np.isinf(needed) else f"{np.ceil(needed):,.0f}"
