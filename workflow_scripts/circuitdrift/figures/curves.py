"""Parts of the charts that have a line for each method: curves, changes, their axes and the legend of seeds."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from circuitdrift.figures.style import MUTED, Group, MethodStyle


def of_group(table: pd.DataFrame, group: Group) -> pd.DataFrame:
    """The rows of one (model, task)."""
    model, task = group
    return table[(table["model"] == model) & (table["task"] == task)]


def plot_curve(ax: Axes, rows: pd.DataFrame, along: str, look: MethodStyle) -> None:
    """A method's mean over seeds, a band from ``lower`` to ``upper``, and a thin line for each of several seeds."""
    mean = rows[rows["statistic"] == "mean"].sort_values(along)
    x = mean[along].astype(float)
    ax.fill_between(x, mean["lower"], mean["upper"], color=look.colour, alpha=0.15, linewidth=0)
    if (mean["seeds"] > 1).any():
        for _, seed in rows[rows["statistic"] == "seed"].sort_values(along).groupby("seed"):
            ax.plot(seed[along].astype(float), seed["value"], color=look.colour, linewidth=0.5, alpha=0.55)
    ax.plot(
        x, mean["value"], color=look.colour, linestyle=look.dashes, linewidth=1.4, marker=look.marker, markersize=2.8
    )


def plot_added_and_removed(ax: Axes, rows: pd.DataFrame, along: str, look: MethodStyle) -> None:
    """Mean numbers added (upwards) and removed (downwards) over seeds; a faint point for each seed."""
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


def seed_handle(table: pd.DataFrame) -> list[Line2D]:
    """The legend's entry for single seeds, where a mean is over several."""
    if not (table["seeds"] > 1).any():
        return []
    return [Line2D([], [], color=MUTED, linewidth=0.7, label="thin or faint: single seeds")]


def checkpoint_axis(ax: Axes, checkpoints: pd.Series) -> None:
    """Checkpoints as whole numbers, with a little room on both sides."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    numbers = checkpoints.astype(int)
    margin = 0.03 * max(1, numbers.max() - numbers.min())
    ax.set_xlim(numbers.min() - margin - 0.1, numbers.max() + margin + 0.1)


def magnitude_axis(ax: Axes) -> None:
    """Counts below zero are removals: show them without a sign."""
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
