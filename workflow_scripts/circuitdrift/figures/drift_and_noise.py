"""The figure of drift beside its noise: by number of prompts, by seed, and from checkpoint to checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import checkpoint_axis, of_group
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.style import INK, MUTED, MethodStyle, legend_below, method_styles, panel_grid, panel_groups
from circuitdrift.figures.tidy import (
    RUN,
    FigureDataError,
    base_against_last,
    of_most_prompts,
    only_neighbouring,
    with_seed_means,
)

_BASE, _LATER, _BETWEEN = "within_before", "within_after", "between"
_CORRECTED, _PAIRED = "corrected", "paired"
_LEVELS = (("edge", "Edges"), ("node", "Nodes"))
_DASHED = (0, (3, 1.5))
_DOTTED = (0, (1, 1.2))
_INCHES_OF_A_SEED = 0.11
_HIGHEST_CORRECTED = 1.25


def tidy(reliability: pd.DataFrame) -> pd.DataFrame:
    """Similarities and excess with the mean over seeds.

    Returns:
        model, task, method, ``part`` (a row of panels), ``level``, ``quantity`` (a column of the reliability tables),
        ``examples`` (prompts of a half), ``to_checkpoint``, and the columns of :func:`with_seed_means`. Part
        ``prompts``: Jaccard indices of base and last circuits' edges. Part ``excess``: Jaccard, each seed with its
        interval, no mean. Part ``transitions``: Pearson correlations of edge scores of neighbouring checkpoints.

    Raises:
        FigureDataError: the tables hold no comparison by Jaccard index.
    """
    net = base_against_last(reliability)
    jaccard = net[net["measure"] == "jaccard"]
    if jaccard.empty:
        raise FigureDataError("reliability tables: no rows of the measure jaccard; run measure_reliability again")
    pearson = reliability[(reliability["measure"] == "pearson") & (reliability["level"] == "edge")]
    edges = jaccard[jaccard["level"] == "edge"]
    excess = of_most_prompts(jaccard).rename(columns={"excess": "value"}).assign(part="excess", quantity="excess")
    parts = [
        _with_means(_quantities(edges, [_BASE, _LATER, _BETWEEN]).assign(part="prompts")),
        _with_means(excess[[*_KEYS, "seed", "value", "lower", "upper"]]).query("statistic == 'seed'"),
        _with_means(
            _quantities(only_neighbouring(of_most_prompts(pearson)), [_CORRECTED, _PAIRED]).assign(part="transitions")
        ),
    ]
    return pd.concat(parts, ignore_index=True)


_KEYS = [*RUN, "part", "level", "quantity", "examples", "to_checkpoint"]


def _quantities(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """One row for each of some columns, whose name becomes ``quantity`` and whose number ``value``."""
    kept = [*RUN, "seed", "level", "examples", "to_checkpoint"]
    return rows.melt(id_vars=kept, value_vars=columns, var_name="quantity", value_name="value")


def _with_means(rows: pd.DataFrame) -> pd.DataFrame:
    return with_seed_means(rows, _KEYS, ["value"])


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """Three rows of panels: similarity over prompts, excess by seed, corrected similarity over checkpoints."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style, labels)
    parts = {name: table[table["part"] == name] for name in ("prompts", "excess", "transitions")}
    places = _places(parts["excess"], styles)
    heights = [1.7, 0.6 + _INCHES_OF_A_SEED * (len(places) + 2), 1.5]
    grid = panel_grid(groups, heights, style, share_y=True, labelled_rows=(0, 1, 2))
    for group in groups:
        by_prompts, excess, transitions = (grid.axes[group, row] for row in range(3))
        _draw_prompts(by_prompts, of_group(parts["prompts"], group), styles)
        _draw_excess(excess, of_group(parts["excess"], group), styles, places)
        _draw_transitions(transitions, of_group(parts["transitions"], group), styles)
        excess.set_xlim(*_limits(parts["excess"]))
        if group in grid.first_in_row:
            by_prompts.set_ylabel("Jaccard index\nof edges")
            excess.set_ylabel("Base against\nlast")
            transitions.set_ylabel("Correlation of\nedge scores")
    grid.axes[groups[0], 0].set_ylim(0, 1.02)
    drawn = parts["transitions"]["value"].dropna()
    lowest = min(0.9, float(drawn.min())) if len(drawn) else 0.0
    highest = min(_HIGHEST_CORRECTED, max(1.0, float(drawn.max()))) if len(drawn) else 1.0
    room = 0.06 * (highest - lowest)
    grid.axes[groups[0], 2].set_ylim(max(-0.1, lowest) - room, highest + room)
    grid.figure.align_ylabels()
    legend_below(grid.figure, [*_quantity_handles(), *_method_handles(styles)])
    return grid.figure


def _draw_prompts(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> None:
    """Similarity within each of two checkpoints and between them, over the prompts of a half."""
    means = rows[rows["statistic"] == "mean"]
    base = means[(means["quantity"] == _BASE) & (means["method"] == means["method"].iloc[0])]
    _plot(ax, base, "examples", MUTED, _DOTTED, MUTED)
    for method, look in styles.items():
        own = means[means["method"] == method]
        _plot(ax, own[own["quantity"] == _LATER], "examples", look.colour, _DASHED, "white")
        _plot(ax, own[own["quantity"] == _BETWEEN], "examples", look.colour, "-", look.colour)
    sizes = sorted({int(size) for size in rows["examples"]})
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sizes))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda size, _: f"{size:,.0f}")
    ax.set_xlim(sizes[0] / 1.15, sizes[-1] * 1.15)
    ax.set_xlabel("Prompts in each half")


def _draw_excess(
    ax: Axes, rows: pd.DataFrame, styles: Mapping[str, MethodStyle], places: Mapping[tuple[str, str, int], float]
) -> None:
    """The excess of each seed with its interval: edges above, nodes below."""
    ax.axvline(0, color=INK, linewidth=0.8, zorder=1)
    for row in rows.to_dict("records"):
        look, is_edge = styles[row["method"]], row["level"] == "edge"
        place = places[row["level"], row["method"], int(row["seed"])]
        ax.plot([row["lower"], row["upper"]], [place, place], color=look.colour, linewidth=1.1, zorder=2)
        ax.plot(
            row["value"],
            place,
            linestyle="",
            marker="s" if is_edge else "o",
            color=look.colour,
            markerfacecolor=look.colour if is_edge else "white",
            markersize=4,
            zorder=3,
        )
    middles = [np.mean([place for key, place in places.items() if key[0] == level]) for level, _ in _LEVELS]
    ax.set_yticks(middles, [title for _, title in _LEVELS])
    ax.set_ylim(max(places.values()) + 1, -1)
    ax.grid(False, axis="y")
    ax.set_xlabel("Excess: drift beyond noise")


def _draw_transitions(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> None:
    """Correlation of neighbouring checkpoints' scores: corrected for noise, and on the same prompts."""
    ax.axhline(1, color=INK, linewidth=0.8, zorder=1)
    means = rows[rows["statistic"] == "mean"].astype({"to_checkpoint": int})
    for method, look in styles.items():
        own = means[means["method"] == method]
        _plot(ax, own[own["quantity"] == _PAIRED], "to_checkpoint", look.colour, _DASHED, "white", "D")
        _plot(ax, own[own["quantity"] == _CORRECTED], "to_checkpoint", look.colour, "-", look.colour, "s")
    checkpoint_axis(ax, means["to_checkpoint"])
    ax.set_xlabel("Transition to checkpoint")


def _plot(ax: Axes, means: pd.DataFrame, along: str, colour: str, dashes: Any, face: str, marker: str = "o") -> None:
    """Means over seeds, and a band from the lowest to the highest seed."""
    means = means.sort_values(along)
    ax.fill_between(means[along].astype(float), means["lower"], means["upper"], color=colour, alpha=0.18, linewidth=0)
    ax.plot(
        means[along].astype(float),
        means["value"],
        color=colour,
        linestyle=dashes,
        linewidth=1.4,
        marker=marker,
        markersize=3.6,
        markerfacecolor=face,
    )


def _places(excess: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> dict[tuple[str, str, int], float]:
    """The height of each level, method and seed; a gap parts the levels."""
    seeds = sorted({int(seed) for seed in excess["seed"]})
    keys = [(level, method, seed) for level, _ in _LEVELS for method in styles for seed in seeds]
    gap = {"edge": 0.0, "node": 1.0}
    return {key: place + gap[key[0]] for place, key in enumerate(keys)}


def _limits(excess: pd.DataFrame) -> tuple[float, float]:
    """From below zero to above the highest interval, for all panels alike."""
    lowest, highest = min(0.0, float(excess["lower"].min())), max(0.05, float(excess["upper"].max()))
    room = 0.06 * (highest - lowest)
    return lowest - room, highest + room


def _quantity_handles() -> list[Line2D]:
    """The legend's entries for the quantities, in the colour of no method."""
    looks: list[tuple[str, str, Any, str, str]] = [
        ("within base model", MUTED, _DOTTED, "o", MUTED),
        ("within last checkpoint", INK, _DASHED, "o", "white"),
        ("between the two", INK, "-", "o", INK),
        ("edges", INK, "", "s", INK),
        ("nodes", INK, "", "o", "white"),
        ("corrected for noise", INK, "-", "s", INK),
        ("same prompts", INK, _DASHED, "D", "white"),
    ]
    return [
        Line2D([], [], color=colour, linestyle=dashes, marker=marker, markerfacecolor=face, markersize=4, label=label)
        for label, colour, dashes, marker, face in looks
    ]


def _method_handles(styles: Mapping[str, MethodStyle]) -> list[Line2D]:
    """The legend's entries for the methods: their colours."""
    return [Line2D([], [], color=look.colour, linewidth=4, label=look.label) for look in styles.values()]
