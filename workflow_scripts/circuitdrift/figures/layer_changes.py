"""The figure of changes in each layer from the base model to the last checkpoint."""

from __future__ import annotations

from itertools import product

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import magnitude_axis, of_group
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.layer_bars import Place, added_and_removed, layer_axis, layer_bars, places
from circuitdrift.figures.style import INK, MUTED, MethodStyle, method_legend, method_styles, panel_grid, panel_groups
from circuitdrift.figures.tidy import RUN, FigureDataError, with_seed_means

_ROWS = (
    ("score_change", "critical", "Score change\n(nats)"),
    ("score_change_normalised", "critical_normalised", "Score change,\nnormalised"),
)


def tidy(layers: pd.DataFrame, top_layers: int) -> pd.DataFrame:
    """Edge changes of each layer between the base model and the last checkpoint, with the mean over seeds.

    The ``top_layers`` layers with the largest mean of a score change are ``critical`` (plain scores) and
    ``critical_normalised`` (scores scaled to unit mass before the difference); a layer without change is neither.
    """
    edges = layers[layers["level"] == "edge"]
    first, last = edges["from_checkpoint"].min(), edges["to_checkpoint"].max()
    net = edges[(edges["from_checkpoint"] == first) & (edges["to_checkpoint"] == last)]
    if net.empty:
        raise FigureDataError(
            f"layers tables: no row from checkpoint {first} to {last} at level 'edge'; compare circuits again"
        )
    values = ["score_change", "score_change_normalised", "added", "removed"]
    table = with_seed_means(net, [*RUN, "layer"], values)
    runs = table.groupby([*RUN, "statistic", "seed"], dropna=False, sort=False)
    for value, mark in (("score_change", "critical"), ("score_change_normalised", "critical_normalised")):
        table[mark] = (runs[value].rank(method="first", ascending=False) <= top_layers) & (table[value] > 0)
    return table.assign(from_checkpoint=first, to_checkpoint=last)


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """Bars by layer: edges added and removed, and two score changes; critical layers have markers."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style, labels)
    grid = panel_grid(groups, [1.4, 1.3, 1.3], style, share_y=table["model"].nunique() == 1)
    for group in groups:
        shown = of_group(table, group)
        top = grid.axes[group, 0]
        top.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        for method, look, place in places(styles):
            of_method = shown[shown["method"] == method]
            added_and_removed(top, of_method, place, look)
            for row, (value, mark, _) in enumerate(_ROWS, start=1):
                _critical_bars(grid.axes[group, row], of_method, value, mark, place, look)
        magnitude_axis(top)
        if group in grid.first_in_row:
            top.set_ylabel("Edges\nremoved  |  added")
            for row, (_, _, title) in enumerate(_ROWS, start=1):
                grid.axes[group, row].set_ylabel(title)
        for row in range(3):
            layer_axis(grid.axes[group, row], sorted(shown["layer"].unique().tolist()))
        grid.axes[group, 2].set_xlabel("Layer")
    for group, row in product(groups, (1, 2)):  # once all bars are there: a limit fixes the other end of a shared axis
        grid.axes[group, row].set_ylim(bottom=0)
    marks = Line2D([], [], color=INK, linestyle="", marker="o", markersize=5.5, label="critical layer (any marker)")
    grid.figure.align_ylabels()
    seeds = [Line2D([], [], color=INK, linestyle="", marker=".", markersize=4, label="single seeds")]
    method_legend(grid.figure, styles, [marks, *(seeds if (table["seeds"] > 1).any() else [])])
    return grid.figure


def _critical_bars(ax: Axes, rows: pd.DataFrame, value: str, mark: str, place: Place, look: MethodStyle) -> None:
    """A score change of each layer; critical layers carry the method's marker."""
    layer_bars(ax, rows, rows[value], place, look, 0.8)
    critical = rows[(rows["statistic"] == "mean") & rows[mark]]
    ax.scatter(
        place.of(critical),
        critical[value],
        color=look.colour,
        marker=look.marker,
        s=22,
        edgecolor="white",
        linewidth=0.5,
        zorder=5,
    )
