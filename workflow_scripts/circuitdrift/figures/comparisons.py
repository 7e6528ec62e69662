"""Charts that set methods side by side: change rates beside their controls, final accuracy by parameters trained."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from circuitdrift.config.figures import Figures
from circuitdrift.figures.labels import method_order, share_label
from circuitdrift.figures.style import INK, MUTED, MethodStyle, legend_below, method_styles, panel_grid, panel_groups
from circuitdrift.figures.tidy import CUMULATIVE_RATE, NET_RATE

_BAND = "#f3f3f3"
_ROW_INCHES = 0.21
_RATE_AXES = (
    (NET_RATE, "Net change\nrate (%)"),
    (CUMULATIVE_RATE, "Cumulative change\nrate (%)"),
)


def draw_change_rates(table: pd.DataFrame, style: Figures) -> Figure:
    """Change rates of nodes and edges by method, controls below them (table: ``tidy.change_rates``)."""
    groups = panel_groups(table)
    drift = table[table["kind"] == "fine-tuning"]
    styles = method_styles(drift["name"].unique().tolist(), style)
    net_rows = [*styles, *table.loc[table["kind"] == "control", "name"].drop_duplicates()]
    rows_of = {NET_RATE: net_rows, CUMULATIVE_RATE: list(styles)}
    heights = [0.55 + _ROW_INCHES * len(rows_of[measure]) for measure, _ in _RATE_AXES]
    grid = panel_grid(groups, heights, style, share_y=False, labelled_rows=(0, 1))
    labels = dict(zip(table["name"], table["label"], strict=True))
    for group in groups:
        for row, (measure, title) in enumerate(_RATE_AXES):
            ax = grid.axes[group, row]
            shown = table[(table["model"] == group[0]) & (table["task"] == group[1]) & (table["measure"] == measure)]
            _dumbbells(ax, shown, rows_of[measure], styles)
            _category_axis(ax, [labels[name] for name in rows_of[measure]], group in grid.first_in_row)
            highest = table.loc[table["measure"] == measure, "upper"].max()
            ax.set_xlim(0, 1.3 * highest if highest > 0 else 1)
            ax.set_xlabel(title)
    level_handles = [
        Line2D([], [], color=INK, linestyle="", marker="o", markerfacecolor="white", markersize=5, label="nodes"),
        Line2D([], [], color=INK, linestyle="", marker="s", markersize=5, label="edges"),
        Line2D([], [], color=INK, linewidth=1, marker="|", markersize=5, label="lowest to highest"),
        Line2D([], [], linestyle="", label="\N{MULTIPLICATION SIGN}n: edge rate over node rate"),
    ]
    legend_below(grid.figure, level_handles)
    return grid.figure


def draw_method_accuracy(table: pd.DataFrame, style: Figures) -> Figure:
    """Final accuracy by method, methods ordered by trainable parameters (table: ``tidy.final_accuracy``)."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style)
    by_size = table.groupby("method")["trainable_parameters"].max()
    order = sorted(styles, key=lambda method: (by_size[method], method_order(method)))
    several_models = table["model"].nunique() > 1
    names = [
        styles[m].label if several_models else _with_parameters(styles[m].label, table[table["method"] == m])
        for m in order
    ]
    height = 0.5 + (1.75 if not several_models else 1.2) * _ROW_INCHES * len(order)
    grid = panel_grid(groups, [height], style, share_y=False)
    for group in groups:
        ax = grid.axes[group, 0]
        shown = table[(table["model"] == group[0]) & (table["task"] == group[1])]
        _equal_parameter_bands(ax, order, by_size)
        for place, method in enumerate(order):
            _accuracy_row(ax, place, shown[shown["method"] == method], styles[method])
        _category_axis(ax, names, group in grid.first_in_row)
        lowest = shown["lower"].min()
        ax.set_xlim(max(0.0, np.floor((lowest - 2) / 5) * 5) if len(shown) else 0, 101)
        ax.set_xlabel("Test accuracy (%)")
    handles = [
        Line2D([], [], color=INK, marker="o", markersize=5, linewidth=1.3, label="mean over seeds, 95 % interval"),
        Line2D(
            [], [], color=INK, marker="o", markerfacecolor="none", linestyle="", markersize=3.5, label="single seed"
        ),
        Patch(color="#e4e4e4", label="same number of trainable parameters"),
    ]
    legend_below(grid.figure, handles)
    return grid.figure


def _dumbbells(ax: Axes, shown: pd.DataFrame, names: list[str], styles: dict[str, MethodStyle]) -> None:
    """One row for each name: the rate of nodes and that of edges, joined by a line, and their quotient."""
    for place, name in enumerate(names):
        colour = styles[name].colour if name in styles else INK
        rows = shown[shown["name"] == name].set_index("level")
        if not {"node", "edge"} <= set(rows.index):
            continue
        nodes, edges = rows.loc["node"], rows.loc["edge"]
        ax.plot([nodes["value"], edges["value"]], [place, place], color=colour, linewidth=1.6, alpha=0.35, zorder=2)
        for level, marker, face in ((nodes, "o", "white"), (edges, "s", colour)):
            ax.plot(
                [level["lower"], level["upper"]], [place, place], color=colour, linewidth=0.9, marker="|", markersize=5
            )
            ax.plot(level["value"], place, marker=marker, markersize=4.6, color=colour, markerfacecolor=face, zorder=4)
        if nodes["value"] > 0:
            right = max(edges["upper"], nodes["upper"])
            ax.annotate(
                f"\N{MULTIPLICATION SIGN}{edges['value'] / nodes['value']:.1f}",
                (right, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize="x-small",
                color=MUTED,
            )
    n_methods = sum(name in styles for name in names)
    if n_methods < len(names):
        ax.axhspan(n_methods - 0.5, len(names) - 0.5, color=_BAND, zorder=0)


def _accuracy_row(ax: Axes, place: int, rows: pd.DataFrame, look: MethodStyle) -> None:
    if rows.empty:
        return
    seeds = rows[rows["statistic"] == "seed"]
    mean = rows[rows["statistic"] == "mean"].iloc[0]
    ax.plot([mean["lower"], mean["upper"]], [place, place], color=look.colour, linewidth=1.6, zorder=3)
    ax.plot(mean["accuracy"], place, marker=look.marker, markersize=5.5, color=look.colour, zorder=4)
    if len(seeds) > 1:
        ax.scatter(
            seeds["accuracy"],
            np.full(len(seeds), place + 0.27),
            marker=look.marker,
            s=13,
            facecolor="none",
            edgecolor=look.colour,
            linewidth=0.8,
            zorder=3,
        )


def _equal_parameter_bands(ax: Axes, order: list[str], parameters: pd.Series) -> None:
    """Shade the rows of methods that train exactly as many parameters as another one."""
    for _, members in pd.Series(range(len(order))).groupby([parameters[method] for method in order]):
        if len(members) > 1:
            ax.axhspan(members.min() - 0.45, members.max() + 0.45, color="#e4e4e4", alpha=0.8, linewidth=0, zorder=0)


def _with_parameters(label: str, rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"{label}\n{int(first['trainable_parameters']):,} ({share_label(first['trainable_share'])})"


def _category_axis(ax: Axes, names: list[str], labelled: bool) -> None:
    """Categories from top to bottom; only the first panel of a row names them."""
    ax.set_yticks(range(len(names)), names if labelled else [""] * len(names), fontsize="small")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False, axis="y")
