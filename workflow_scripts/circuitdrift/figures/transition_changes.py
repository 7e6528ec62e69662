"""The figure of nodes and edges added and removed from each checkpoint to the next."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import checkpoint_axis, magnitude_axis, of_group, plot_added_and_removed, seed_handle
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.style import MUTED, method_legend, method_styles, panel_grid, panel_groups
from circuitdrift.figures.tidy import RUN, only_neighbouring, with_seed_means

_ROWS = (("node", "Nodes"), ("edge", "Edges"))


def tidy(transitions: pd.DataFrame) -> pd.DataFrame:
    """Nodes and edges added and removed between neighbouring checkpoints, with the mean over seeds.

    ``removed`` is kept positive; the interval is that of ``changed`` = added + removed.
    """
    neighbours = only_neighbouring(transitions)
    return with_seed_means(
        neighbours, [*RUN, "level", "from_checkpoint", "to_checkpoint"], ["changed", "added", "removed", "initial"]
    )


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """Nodes and edges added above zero, removed below it, at each transition."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style, labels)
    one_graph = table["model"].nunique() == 1
    grid = panel_grid(groups, [1.5, 1.5], style, share_y=one_graph)
    for group in groups:
        shown = of_group(table, group)
        for row, (level, title) in enumerate(_ROWS):
            ax = grid.axes[group, row]
            ax.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
            at_level = shown[shown["level"] == level]
            for method, look in styles.items():
                plot_added_and_removed(ax, at_level[at_level["method"] == method], "to_checkpoint", look)
            if group in grid.first_in_row:
                ax.set_ylabel(f"{title}\nremoved  |  added")
            magnitude_axis(ax)
            checkpoint_axis(ax, shown["to_checkpoint"])
        grid.axes[group, 1].set_xlabel("Transition to checkpoint")
    grid.figure.align_ylabels()
    method_legend(grid.figure, styles, seed_handle(table))
    return grid.figure
