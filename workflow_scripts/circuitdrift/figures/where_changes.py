"""The figure and the table of where circuits change: nodes and edges that come and go in each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import magnitude_axis, of_group
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layer_bars import added_and_removed, layer_axis, places
from circuitdrift.figures.layout import Table, layout_of, seeds_phrase
from circuitdrift.figures.style import INK, MUTED, legend_below, method_styles, panel_grid, panel_groups
from circuitdrift.figures.tidy import RUN, with_seed_means

_VALUES = ["added", "removed", "expected_added", "present_before", "possible", "addable"]
_LEVELS = (("node", "Nodes"), ("edge", "Edges"))


def tidy(where: pd.DataFrame) -> pd.DataFrame:
    """Changes of each layer with the mean over seeds, and ``saturation``: the share that the base circuit holds.

    The interval is that of ``added``.
    """
    found = with_seed_means(where, [*RUN, "level", "layer"], _VALUES)
    return found.assign(saturation=found["present_before"] / found["possible"])


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """Bars by layer: added above zero, removed below it; a mark where additions at random would end."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style, labels)
    grid = panel_grid(groups, [1.5, 1.5], style, share_y=table["model"].nunique() == 1)
    for group in groups:
        shown = of_group(table, group)
        for row, (level, title) in enumerate(_LEVELS):
            ax = grid.axes[group, row]
            at_level = shown[shown["level"] == level]
            for method, look, place in places(styles):
                of_method = at_level[at_level["method"] == method]
                added_and_removed(ax, of_method, place, look)
                mean = of_method[of_method["statistic"] == "mean"]
                ends = place.of(mean) - place.width / 2, place.of(mean) + place.width / 2
                ax.hlines(mean["expected_added"], *ends, color=INK, linewidth=1.6, zorder=5)
            ax.axhline(0, color=MUTED, linewidth=0.8, zorder=3)
            ax.update_datalim([(0, -1), (0, 1)])  # room for whole numbers where nothing changes
            ax.autoscale_view()
            layer_axis(ax, sorted(at_level["layer"].unique().tolist()))
            magnitude_axis(ax)
            if group in grid.first_in_row:
                ax.set_ylabel(f"{title}\nremoved  |  added")
        grid.axes[group, 1].set_xlabel("Layer")
    grid.figure.align_ylabels()
    handles: list[Any] = [Patch(color=look.colour, label=look.label) for look in styles.values()]
    handles.append(Line2D([], [], color=INK, linewidth=1.6, label="added, if at random"))
    if (table["seeds"] > 1).any():
        handles.append(Line2D([], [], color=INK, linestyle="", marker=".", markersize=4, label="single seeds"))
    legend_below(grid.figure, handles)
    return grid.figure


def table(where: pd.DataFrame, labels: MethodLabels) -> Table:
    """Means over seeds by task, method, level and layer.

    Args:
        where: where tables of all runs with circuits.
        labels: of the study's methods.
    """
    numbers = tidy(where)
    means = numbers[numbers["statistic"] == "mean"]
    rows = [
        _laid_out(row, labels)
        for _, of_task in means.groupby(["model", "task"], sort=False)
        for row in sorted(of_task.to_dict("records"), key=lambda row: (*labels.order(row["method"]), row["level"]))
    ]
    note = (
        f"Base model against last checkpoint, mean over {seeds_phrase(means)}. The input counts as layer 0; an edge "
        "counts in the layer that writes, with the q, k and v inputs of a head as one. Held: nodes or edges of the "
        "base circuit, of those that the graph has in the layer. A layer that is nearly full can hardly gain. "
        "Added, at random: the mean if all additions fell on the parts that the base circuit lacks, each as likely "
        "as any other."
    )
    return Table("Where circuits change", note, numbers, layout_of(rows))


def _laid_out(row: Mapping[Any, Any], labels: MethodLabels) -> dict[str, str]:
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Method": labels.of(row["method"]),
        "Level": f"{row['level']}s",
        "Layer": str(row["layer"]),
        "Held": f"{row['present_before']:,.0f} of {row['possible']:,.0f}",
        "Saturation (%)": f"{100 * row['saturation']:.1f}",
        "Added": f"{row['added']:,.1f}",
        "Added, at random": f"{row['expected_added']:,.1f}",
        "Removed": f"{row['removed']:,.1f}",
    }
