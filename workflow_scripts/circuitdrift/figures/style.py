"""One look for all figures: the seaborn theme, a style for each method, grids of panels, files without timestamps."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from circuitdrift.config.figures import Figures
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.storage import write_atomically

ROW_INCHES = 0.21
INK = "#333333"
MUTED = "#8c8c8c"
MAX_COLUMNS = 4
LABELS_INCHES = 1.2
TITLE_CHARACTERS_PER_INCH = 10
"""Twelve bold letters of a title take about an inch in seaborn's paper context; the rest is room between titles."""
Group = tuple[str, str]


@dataclass(frozen=True)
class MethodStyle:
    """How one method looks in every figure of a study."""

    label: str
    colour: str
    marker: str
    dashes: Any


@contextmanager
def theme(style: Figures) -> Iterator[None]:
    """Draw within the study's seaborn theme; leaves the settings of matplotlib as they were."""
    with mpl.rc_context():
        sns.set_theme(context=style.context, style="whitegrid", palette=style.palette, font="DejaVu Sans")
        mpl.rcParams.update(
            {
                "svg.hashsalt": "circuitdrift",
                "text.usetex": False,  # whatever the user's matplotlibrc says: labels are no LaTeX
                "pdf.fonttype": 42,
                "figure.dpi": style.dpi,
                "savefig.dpi": style.dpi,
                "axes.edgecolor": "#b0b0b0",
                "axes.linewidth": 0.8,
                "axes.titleweight": "bold",
                "grid.color": "#e6e6e6",
                "grid.linewidth": 0.7,
                "text.color": INK,
                "axes.labelcolor": INK,
                "xtick.color": INK,
                "ytick.color": INK,
                "axes.titlesize": "medium",
                "axes.labelsize": "small",
                "xtick.labelsize": "small",
                "ytick.labelsize": "small",
                "legend.frameon": False,
            }
        )
        yield
    plt.close("all")


def method_styles(methods: Sequence[str], style: Figures, labels: MethodLabels) -> dict[str, MethodStyle]:
    """A colour, marker and dash pattern for each method, in the order in which legends list them.

    Colours come from the configured palette, or from evenly spaced hues where it has too few; markers tell the
    families apart without colour.
    """
    ordered = sorted(set(methods), key=labels.order)
    palette = sns.color_palette(style.palette)
    colours = palette if len(ordered) <= len(palette) else sns.color_palette("husl", len(ordered))
    return {
        method: MethodStyle(
            label=labels.of(method),
            colour=to_hex(colour),
            marker=labels.family(method).marker,
            dashes=labels.family(method).dashes,
        )
        for method, colour in zip(ordered, colours, strict=False)
    }


def panel_groups(table: pd.DataFrame) -> list[Group]:
    """The (model, task) pairs of a table in order of appearance: one column of panels each."""
    return [(str(model), str(task)) for model, task in table[["model", "task"]].drop_duplicates().to_numpy()]


def group_title(group: Group, groups: Sequence[Group], width_inches: float) -> str:
    """A panel's title: the task, and the model as well where the figure shows several, in lines that fit the panel."""
    model, task = group
    several = len({m for m, _ in groups}) > 1
    names = (task_label(task), model) if several else (task_label(task),)
    return "\n".join(textwrap.fill(name, max(8, int(width_inches * TITLE_CHARACTERS_PER_INCH))) for name in names)


@dataclass(frozen=True)
class PanelGrid:
    """A figure with one column of panels for each (model, task), wrapped into blocks of at most four columns."""

    figure: Figure
    axes: dict[tuple[Group, int], Axes]
    first_in_row: frozenset[Group]


def panel_grid(
    groups: Sequence[Group],
    row_heights: Sequence[float],
    style: Figures,
    share_y: bool,
    labelled_rows: Sequence[int] = (-1,),
) -> PanelGrid:
    """Lay out panels.

    Args:
        groups: the columns of panels.
        row_heights: height of each row of a column, in inches.
        style: the study's figure settings; ``width_inches`` is the width of a full row.
        share_y: whether the panels of a row have one y axis in common.
        labelled_rows: the rows that show tick labels on their x axis; negative ones count from the end.
    """
    columns = min(len(groups), math.ceil(len(groups) / math.ceil(len(groups) / MAX_COLUMNS)))
    blocks = math.ceil(len(groups) / columns)
    width = min(style.width_inches, LABELS_INCHES + 2.9 * columns)
    heights = [height * style.width_inches / 7.0 for height in row_heights] * blocks
    figure, axes = plt.subplots(
        len(heights),
        columns,
        figsize=(width, sum(heights) + 0.9 * style.width_inches / 7.0),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"height_ratios": heights},
    )
    rows = len(row_heights)
    labelled = {row % rows for row in labelled_rows}
    placed: dict[tuple[Group, int], Axes] = {}
    for place in range(blocks * columns):
        block, column = divmod(place, columns)
        for row in range(rows):
            ax = axes[block * rows + row, column]
            if place >= len(groups):
                ax.set_visible(False)
                continue
            placed[groups[place], row] = ax
            sns.despine(ax=ax)
            if row not in labelled:
                ax.tick_params(labelbottom=False)
            if row == 0:
                ax.set_title(group_title(groups[place], groups, (width - LABELS_INCHES) / columns))
            if share_y:
                if (block, column) != (0, 0):
                    ax.sharey(axes[row, 0])
                ax.tick_params(labelleft=column == 0)
    return PanelGrid(figure, placed, frozenset(groups[::columns]))


def method_legend(figure: Figure, styles: dict[str, MethodStyle], extra: Sequence[Line2D] = ()) -> None:
    """Put the legend of the methods under the panels, what else needs explaining behind them."""
    handles = [
        Line2D([], [], color=s.colour, marker=s.marker, linestyle=s.dashes, markersize=4, linewidth=1.6, label=s.label)
        for s in styles.values()
    ]
    legend_below(figure, [*handles, *extra])


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Put a legend under the panels, in as many columns as its entries need."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    per_row = max(1, int(figure.get_figwidth() // (0.55 + 0.068 * longest)))
    rows = math.ceil(len(handles) / per_row)
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=math.ceil(len(handles) / rows),
        fontsize="small",
        handlelength=2.2,
        columnspacing=1.4,
    )


def save_figure(figure: Figure, pdf: Path, svg: Path, png: Path) -> None:
    """Write a figure as PDF, SVG and PNG: atomically, and without dates, so that equal figures have equal bytes."""
    silent: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None, "ModDate": None},
        "svg": {"Date": None},
        "png": {"Software": None},
    }
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the panels' places are final: no need to find them again for each file
    for kind, path in (("pdf", pdf), ("svg", svg), ("png", png)):

        def write(temporary: Path, kind: str = kind) -> None:
            figure.savefig(temporary, format=kind, metadata=silent[kind])

        write_atomically(path, write)


def category_axis(ax: Axes, names: Sequence[str], labelled: bool) -> None:
    """Categories from top to bottom, ``ROW_INCHES`` each; only the first panel of a row of panels names them."""
    ax.set_yticks(range(len(names)), names if labelled else [""] * len(names), fontsize="small")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False, axis="y")
