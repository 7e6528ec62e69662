"""Charts over checkpoints, circuit sizes and layers: a line for each method, a column of panels for each task."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from circuitdrift.config.figures import Figures
from circuitdrift.figures.style import INK, MUTED, MethodStyle, method_legend, method_styles, panel_grid, panel_groups
from circuitdrift.figures.tidy import BASE_MODEL

_CURVE_ROWS = (
    ("accuracy", "Accuracy (%)"),
    ("kl_model_circuit", "Faithfulness (%)\nto the model"),
    ("kl_from_corrupted", "Faithfulness (%)\nas in the paper"),
)
_SIZE_ROWS = (
    ("kl_model_circuit", "Faithfulness (%)\nto the model"),
    ("logit_difference", "Faithfulness (%)\nlogit difference"),
)
_LEVEL_ROWS = (("node", "Nodes"), ("edge", "Edges"))
_LAYER_ROWS = (
    ("score_change", "critical", "Score change\n(nats)"),
    ("score_change_normalised", "critical_normalised", "Score change,\nnormalised"),
)


def draw_accuracy_and_faithfulness(table: pd.DataFrame, style: Figures) -> Figure:
    """Accuracy, and two measures of faithfulness, over checkpoints (table: ``tidy.accuracy_and_faithfulness``)."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style)
    grid = panel_grid(groups, [1.5, 1.25, 1.25], style, share_y=True)
    for group in groups:
        shown = _of_group(table, group)
        for row, (measure, title) in enumerate(_CURVE_ROWS):
            ax = grid.axes[group, row]
            for method, look in styles.items():
                _curve(ax, shown[(shown["method"] == method) & (shown["measure"] == measure)], "checkpoint", look)
            if group in grid.first_in_row:
                ax.set_ylabel(title)
            _checkpoint_axis(ax, shown["checkpoint"])
        grid.axes[group, 0].set_ylim(0, 103)
        grid.axes[group, len(_CURVE_ROWS) - 1].set_xlabel("Checkpoint")
    for row in (1, 2):
        _percent_limits(grid.axes[groups[0], row], table[table["measure"] == _CURVE_ROWS[row][0]])
    grid.figure.align_ylabels()
    method_legend(grid.figure, styles, _seed_handle(table))
    return grid.figure


def draw_faithfulness_by_size(table: pd.DataFrame, style: Figures) -> Figure:
    """Faithfulness over the share of edges that a circuit keeps (table: ``tidy.faithfulness_by_size``)."""
    groups = panel_groups(table)
    methods = [method for method in table["method"].unique().tolist() if method != BASE_MODEL]
    base = MethodStyle(label="Base model", colour=MUTED, marker="o", dashes=(0, (1, 1.2)))
    styles = {BASE_MODEL: base, **method_styles(methods, style)}
    rows = [(measure, title) for measure, title in _SIZE_ROWS if (table["measure"] == measure).any()]
    grid = panel_grid(groups, [1.5] * len(rows), style, share_y=True)
    for group in groups:
        shown = _of_group(table, group)
        for row, (measure, title) in enumerate(rows):
            ax = grid.axes[group, row]
            ax.axhline(100, color=MUTED, linewidth=0.8, zorder=1)
            for method, look in styles.items():
                of_method = shown[(shown["method"] == method) & (shown["measure"] == measure)]
                _curve(ax, of_method, "size_fraction", look)
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
            if group in grid.first_in_row:
                ax.set_ylabel(title)
        grid.axes[group, len(rows) - 1].set_xlabel("Edges kept (%)")
    for row, (measure, _) in enumerate(rows):
        of_measure = table[(table["measure"] == measure) & (table["statistic"] == "mean")]["value"]
        margin = 5.0
        grid.axes[groups[0], row].set_ylim(
            max(-100.0, min(0.0, of_measure.min())) - margin, min(200.0, max(100.0, of_measure.max())) + margin
        )
    grid.figure.align_ylabels()
    method_legend(grid.figure, styles, _seed_handle(table))
    return grid.figure


def draw_transition_changes(table: pd.DataFrame, style: Figures) -> Figure:
    """Nodes and edges added (above zero) and removed (below) at each transition (``tidy.transition_changes``)."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style)
    one_graph = table["model"].nunique() == 1
    grid = panel_grid(groups, [1.5, 1.5], style, share_y=one_graph)
    for group in groups:
        shown = _of_group(table, group)
        for row, (level, title) in enumerate(_LEVEL_ROWS):
            ax = grid.axes[group, row]
            ax.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
            at_level = shown[shown["level"] == level]
            for method, look in styles.items():
                _added_and_removed(ax, at_level[at_level["method"] == method], "to_checkpoint", look)
            if group in grid.first_in_row:
                ax.set_ylabel(f"{title}\nremoved  |  added")
            _magnitude_axis(ax)
            _checkpoint_axis(ax, shown["to_checkpoint"])
        grid.axes[group, 1].set_xlabel("Transition to checkpoint")
    grid.figure.align_ylabels()
    method_legend(grid.figure, styles, _seed_handle(table))
    return grid.figure


def draw_layer_changes(table: pd.DataFrame, style: Figures) -> Figure:
    """Edge changes by layer, critical layers marked (table: ``tidy.net_layer_changes``)."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style)
    grid = panel_grid(groups, [1.4, 1.3, 1.3], style, share_y=table["model"].nunique() == 1)
    for group in groups:
        shown = _of_group(table, group)
        top = grid.axes[group, 0]
        top.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        for method, look in styles.items():
            of_method = shown[shown["method"] == method]
            _added_and_removed(top, of_method, "layer", look)
            for row, (value, mark, _) in enumerate(_LAYER_ROWS, start=1):
                _layer_line(grid.axes[group, row], of_method, value, mark, look)
        _magnitude_axis(top)
        if group in grid.first_in_row:
            top.set_ylabel("Edges\nremoved  |  added")
            for row, (_, _, title) in enumerate(_LAYER_ROWS, start=1):
                grid.axes[group, row].set_ylabel(title)
        for row in range(3):
            grid.axes[group, row].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        for row in (1, 2):
            grid.axes[group, row].set_ylim(bottom=0)
        grid.axes[group, 2].set_xlabel("Layer")
    marks = Line2D([], [], color=INK, linestyle="", marker="o", markersize=5.5, label="critical layer (any marker)")
    grid.figure.align_ylabels()
    method_legend(grid.figure, styles, [marks, *_seed_handle(table)])
    return grid.figure


def _of_group(table: pd.DataFrame, group: tuple[str, str]) -> pd.DataFrame:
    model, task = group
    return table[(table["model"] == model) & (table["task"] == task)]


def _curve(ax: Axes, rows: pd.DataFrame, along: str, look: MethodStyle) -> None:
    """A method's mean over seeds with its interval, and a thin line for each seed where there are several."""
    mean = rows[rows["statistic"] == "mean"].sort_values(along)
    x = mean[along].astype(float)
    ax.fill_between(x, mean["lower"], mean["upper"], color=look.colour, alpha=0.15, linewidth=0)
    if (mean["seeds"] > 1).any():
        for _, seed in rows[rows["statistic"] == "seed"].sort_values(along).groupby("seed"):
            ax.plot(seed[along].astype(float), seed["value"], color=look.colour, linewidth=0.5, alpha=0.55)
    ax.plot(
        x, mean["value"], color=look.colour, linestyle=look.dashes, linewidth=1.4, marker=look.marker, markersize=2.8
    )


def _added_and_removed(ax: Axes, rows: pd.DataFrame, along: str, look: MethodStyle) -> None:
    """The mean over seeds of what was added, upwards, and removed, downwards; a faint point for each seed."""
    mean = rows[rows["statistic"] == "mean"].sort_values(along)
    seeds = rows[rows["statistic"] == "seed"]
    several = (mean["seeds"] > 1).any()
    for column, sign in (("added", 1), ("removed", -1)):
        ax.plot(
            mean[along].astype(int),
            sign * mean[column],
            color=look.colour,
            linestyle=look.dashes,
            linewidth=1.3,
            marker=None if several else look.marker,
            markersize=2.8,
        )
        if several:
            ax.scatter(
                seeds[along].astype(int),
                sign * seeds[column],
                color=look.colour,
                marker=look.marker,
                s=7,
                alpha=0.5,
                linewidth=0,
            )


def _layer_line(ax: Axes, rows: pd.DataFrame, value: str, mark: str, look: MethodStyle) -> None:
    mean = rows[rows["statistic"] == "mean"].sort_values("layer")
    if (mean["seeds"] > 1).any():
        for _, seed in rows[rows["statistic"] == "seed"].sort_values("layer").groupby("seed"):
            ax.plot(seed["layer"], seed[value], color=look.colour, linewidth=0.5, alpha=0.5)
    ax.plot(mean["layer"], mean[value], color=look.colour, linestyle=look.dashes, linewidth=1.3)
    critical = mean[mean[mark]]
    ax.scatter(
        critical["layer"],
        critical[value],
        color=look.colour,
        marker=look.marker,
        s=22,
        edgecolor="white",
        linewidth=0.5,
        zorder=3,
    )


def _seed_handle(table: pd.DataFrame) -> list[Line2D]:
    if not (table["seeds"] > 1).any():
        return []
    return [Line2D([], [], color=MUTED, linewidth=0.7, label="thin or faint: single seeds")]


def _checkpoint_axis(ax: Axes, checkpoints: pd.Series) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    numbers = checkpoints.astype(int)
    margin = 0.03 * max(1, numbers.max() - numbers.min())
    ax.set_xlim(numbers.min() - margin - 0.1, numbers.max() + margin + 0.1)


def _magnitude_axis(ax: Axes) -> None:
    """Counts below zero are removals: show them without a sign."""
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")


def _percent_limits(ax: Axes, rows: pd.DataFrame) -> None:
    """From 0 to 100 %, and lower where the mean of a method is negative: worse than the corrupted run."""
    lowest = rows.loc[rows["statistic"] == "mean", "value"].min()
    ax.set_ylim(min(0.0, max(lowest, -100.0)) - (3 if lowest < 0 else 0), 103)
