"""The figure and the table of edges one by one: surely kept, gained and lost, or undecided, by task and method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from circuitdrift.config.figures import Figures
from circuitdrift.drift.edge_changes import STABLE
from circuitdrift.figures.curves import of_group
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.style import MUTED, ROW_INCHES, legend_below, panel_grid, panel_groups
from circuitdrift.figures.tidy import RUN, with_seed_means

CHANGE_COLOURS = {"kept": "#7f7f7f", "lost": "#D55E00", "gained": "#0072B2", "undecided": "#ffffff"}
"""Of edges that are in a circuit; undecided ones are white, with a pattern or a dashed line in ``UNDECIDED_INK``."""

UNDECIDED_INK = "#9a9a9a"

_SURE, _PLAIN = "resampled prompts", "all prompts at once"
_PARTS = {
    _SURE: {change: change for change in CHANGE_COLOURS},
    _PLAIN: {"in_both": "kept", "removed": "lost", "added": "gained"},
}
_BAR = 0.78
_GAP = 0.5
_COUNTS = ["kept", "gained", "lost", "undecided", "in_both", "added", "removed", "changed_beyond_margin"]
_INDICES = ["jaccard_before", "jaccard_after"]


def tidy(edge_counts: pd.DataFrame) -> pd.DataFrame:
    """Numbers of merged edges by class, of seeds and their mean.

    Returns:
        model, task, method, ``part`` (resampled prompts: classes by how often resampled circuits hold an edge; all
        prompts at once: the two circuits themselves), ``change`` (kept, lost, gained, undecided), and the columns of
        :func:`with_seed_means`.
    """
    columns = [*RUN, "seed", "part", "change", "value"]
    parts = [
        edge_counts.assign(part=part, change=change, value=edge_counts[column])[columns]
        for part, shown in _PARTS.items()
        for column, change in shown.items()
    ]
    return with_seed_means(pd.concat(parts, ignore_index=True), [*RUN, "part", "change"], ["value"])


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """Two stacked bars for each method, means over seeds: classes from resampled prompts, and circuits as they are."""
    means = table[table["statistic"] == "mean"]
    groups = panel_groups(means)
    methods = sorted(means["method"].unique(), key=labels.order)
    bars = [(method, part) for method in methods for part in _PARTS]
    places = [place + _GAP * (place // len(_PARTS)) for place in range(len(bars))]
    names = [labels.of(method) if part == _SURE else _PLAIN for method, part in bars]
    grid = panel_grid(groups, [0.45 + ROW_INCHES * (places[-1] + 1)], style, share_y=False)
    longest = means.groupby(["model", "task", "method", "part"])["value"].sum().groupby("model").max()
    for group in groups:
        ax, shown = grid.axes[group, 0], of_group(means, group)
        for place, (method, part) in zip(places, bars, strict=True):
            _draw_bar(ax, place, shown[(shown["method"] == method) & (shown["part"] == part)])
        ax.set_yticks(places, names if group in grid.first_in_row else [""] * len(names))
        for label in ax.get_yticklabels()[1 :: len(_PARTS)]:
            label.set(fontsize="x-small", color=MUTED)
        ax.set_ylim(places[-1] + 0.6, -0.6)
        ax.grid(False, axis="y")
        ax.set_xlim(0, 1.02 * max(1.0, longest[group[0]]))
        ax.set_xlabel("Merged edges")
    legend_below(grid.figure, [change_handle(change, change) for change in CHANGE_COLOURS])
    return grid.figure


def _draw_bar(ax: Axes, place: float, rows: pd.DataFrame) -> None:
    """One stacked bar; an undecided part is hatched."""
    counts, left = rows.set_index("change")["value"], 0.0
    for change, colour in CHANGE_COLOURS.items():
        width = float(counts.get(change, 0.0))
        ax.barh(place, width, _BAR, left=left, color=colour, zorder=2, **_pattern(change))
        left += width


def _pattern(change: str) -> dict[str, Any]:
    """How a part of a bar is filled, beside its colour."""
    if change == "undecided":
        return {"edgecolor": UNDECIDED_INK, "hatch": "/////", "linewidth": 0.6}
    return {"edgecolor": "white", "linewidth": 0.4}


def change_handle(change: str, label: str) -> Patch:
    """The legend's entry for one class of edges."""
    return Patch(facecolor=CHANGE_COLOURS[change], label=label, **_pattern(change))


def table(edge_counts: pd.DataFrame, labels: MethodLabels) -> Table:
    """Edges one by one, means over seeds, with a conclusion for each method."""
    runs = [
        {**dict(zip(RUN, run, strict=True)), **_over_seeds(rows)} for run, rows in edge_counts.groupby(RUN, sort=False)
    ]
    tidy_table = pd.DataFrame(runs)
    tidy_table["conclusion"] = [conclusion(row) for row in runs]
    ordered = [
        row
        for _, of_task in tidy_table.groupby(["model", "task"], sort=False)
        for row in sorted(of_task.to_dict("records"), key=lambda row: labels.order(row["method"]))
    ]
    note = (
        "Base model against last checkpoint; means over seeds. Edges are merged: q, k and v inputs of a head count as "
        "one. Symmetric difference: edges added and removed between the two circuits of all prompts. Surely gained: in "
        "fewer than 5 % of the circuits of resampled prompts before, in more than 95 % after; surely lost: the "
        "converse; kept: more than 95 % at both; undecided: all others but those outside both. Replicated: surely "
        "gained, or surely lost, in every seed. Beyond the margin: of all unmerged edges, those whose unit-mass score "
        "changed by more than half of the selection's cut-off (paired t-test over folds, false-discovery rate of 5 %). "
        "Resample Jaccard: mean over pairs of resampled circuits, before / after. Resampling covers other prompts of "
        "the same kinds, replication other seeds on the same prompts and base model; neither covers other training "
        "data."
    )
    return Table("Edges one by one", note, tidy_table, layout_of([_laid_out(row, labels) for row in ordered]))


def _over_seeds(rows: pd.DataFrame) -> dict[str, Any]:
    """One method's numbers from the rows of its seeds."""
    means = {name: float(rows[name].mean(skipna=False)) for name in (*_COUNTS, *_INDICES)}
    replicated = {
        f"replicated_{change}": len(set.intersection(*map(set, rows[f"{change}_edges"])))
        for change in ("gained", "lost")
    }
    return {
        "seeds": rows["seed"].nunique(),
        "prompts": int(rows["examples"].max()),
        "edges": int(rows["n_edges"].max()),
        "symmetric_difference": means["added"] + means["removed"],
        **means,
        **replicated,
        "replicated": sum(replicated.values()),
        "stable": all(means[name] >= STABLE for name in _INDICES),
    }


def conclusion(row: Mapping[str, Any]) -> str:
    """What a method's numbers say of single edges.

    An edge counts as changed if it is surely gained, or surely lost, in every seed. Where the circuits of resampled
    prompts agree with each other by less than ``STABLE``, more prompts could decide further edges.
    """
    if row["replicated"]:
        return "edges changed" if row["stable"] else "edges changed, their number unresolved, needs more prompts"
    return "no edge surely changed" if row["stable"] else "unresolved, needs more prompts"


def _laid_out(row: Mapping[Any, Any], labels: MethodLabels) -> dict[str, str]:
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Method": labels.of(row["method"]),
        "Seeds": str(row["seeds"]),
        "Symmetric difference": _count(row["symmetric_difference"]),
        "Surely gained": _count(row["gained"]),
        "Surely lost": _count(row["lost"]),
        "Undecided": _count(row["undecided"]),
        "Kept": _count(row["kept"]),
        "Replicated": f"{row['replicated']:,}",
        "Beyond the margin": f"{_count(row['changed_beyond_margin'])} of {row['edges']:,}",
        "Resample Jaccard": " / ".join(EMPTY if np.isnan(row[name]) else f"{row[name]:.2f}" for name in _INDICES),
        f"Both at least {STABLE:g}": "yes" if row["stable"] else "no",
        "Prompts": f"{row['prompts']:,}",
        "Conclusion": row["conclusion"],
    }


def _count(mean: float) -> str:
    """A mean count; with a decimal where it is no whole number."""
    return f"{mean:,.0f}" if mean == round(mean) else f"{mean:,.1f}"
