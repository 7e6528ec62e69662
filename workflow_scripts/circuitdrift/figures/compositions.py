"""Parts that the figures and tables of compositional tasks share: looks of circuits, panels, cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from circuitdrift.config.figures import Figures
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY
from circuitdrift.figures.style import MUTED, MethodStyle
from circuitdrift.figures.tidy import RUN

MODEL_OF_THE_PAPER = "Pythia-1.4B"
_WIDEST_PANEL, _MOST_COLUMNS = 3.3, 3
_LEGEND_LINE, _LEGEND_COLUMNS, _LEGEND_COLUMNS_OF_A_PANEL = 0.16, 4, 2
_SOLID, _DASHED, _DOTTED = "-", (0, (4, 1.5)), (0, (1, 1.2))

Panel = tuple[str, str, str]


def circuit_looks(style: Figures, labels: dict[str, str]) -> dict[str, MethodStyle]:
    """One look for each circuit or pair of circuits, in the order of ``labels``; controls are dashed or dotted."""
    colours = [to_hex(colour) for colour in sns.color_palette(style.palette, 10)]
    looks = {
        "own": (colours[0], "o", _SOLID),
        "union": (colours[2], "s", _SOLID),
        "intersection": (colours[4], "v", _SOLID),
        "random_union": (MUTED, "X", _DASHED),
        "unrelated_union": (colours[5], "P", _DOTTED),
        "add_sub": (colours[1], "^", _DASHED),
        "mul_div": (colours[9], "<", _DASHED),
        "sub_tasks": (colours[3], "D", _DOTTED),
    }
    return {name: MethodStyle(label, *looks[name]) for name, label in labels.items()}


def panels_of(table: pd.DataFrame) -> list[Panel]:
    """The model, task and method of each column of panels."""
    return list(table[RUN].drop_duplicates().itertuples(index=False, name=None))


def of_panel(table: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """The rows of one model, task and method."""
    return table[(table[RUN] == list(panel)).all(axis=1)]


def panel_columns(
    panels: Sequence[Panel],
    row_inches: Sequence[float],
    style: Figures,
    labels: MethodLabels,
    handles: Sequence[Line2D],
) -> tuple[Figure, np.ndarray]:
    """A column of panels for each run, at most 3.3 inches wide and three side by side, with a legend below.

    A single column has no title, because its caption names what it shows.

    Returns:
        The figure, and the panels: one row for each of ``row_inches``, one column for each run.
    """
    scale = style.width_inches / 7.0
    columns = min(_MOST_COLUMNS, len(panels))
    blocks, rows = math.ceil(len(panels) / columns), len(row_inches)
    width = min(_WIDEST_PANEL, 7.0 / columns)
    legend_columns = min(_LEGEND_COLUMNS, _LEGEND_COLUMNS_OF_A_PANEL * columns)
    legend = _LEGEND_LINE * math.ceil(len(handles) / legend_columns)
    figure, placed = plt.subplots(
        blocks * rows,
        columns,
        figsize=(width * scale * columns, (blocks * (sum(row_inches) + 0.2) + legend + 0.2) * scale),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    axes = placed.reshape(blocks, rows, columns).swapaxes(0, 1).reshape(rows, blocks * columns)
    for ax in axes[:, len(panels) :].flat:
        ax.set_visible(False)
    for column, panel in enumerate(panels):
        if len(panels) > 1:
            axes[0, column].set_title(_title(panel, panels, labels), fontsize="small")
        for ax in axes[:, column]:
            sns.despine(ax=ax)
    if handles:
        figure.legend(
            handles=list(handles),
            loc="outside lower center",
            ncols=legend_columns,
            fontsize="x-small",
            handlelength=2.4,
            columnspacing=1.2,
        )
    return figure, axes[:, : len(panels)]


def _title(panel: Panel, panels: Sequence[Panel], labels: MethodLabels) -> str:
    """What tells a panel from the others: task, model, method."""
    shown = (task_label(panel[1]), panel[0], labels.of(panel[2]))
    several = [len({one[place] for one in panels}) > 1 for place in (1, 0, 2)]
    return "\n".join(part for part, differs in zip(shown, several, strict=True) if differs)


def circuit_handles(looks: dict[str, MethodStyle], table: pd.DataFrame, extra: Sequence[Line2D] = ()) -> list[Line2D]:
    """The entries of a legend of circuits, what else needs explaining, and single seeds where there are several."""
    handles = [
        Line2D([], [], color=s.colour, marker=s.marker, linestyle=s.dashes, markersize=4, linewidth=1.4, label=s.label)
        for s in looks.values()
    ]
    seeds = [Line2D([], [], color=MUTED, linewidth=0.5, label="Single seeds")] if (table["seeds"] > 1).any() else []
    return [*handles, *extra, *seeds]


def say_nothing_to_compare(ax: Axes, text: str) -> None:
    """Fill an empty panel with the reason why it is empty."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED, fontsize="small")
    ax.set_xticks([])
    ax.set_yticks([])


def mean_and_spread(values: pd.Series, digits: int) -> str:
    """The mean over seeds, and the standard deviation between them where there are several."""
    if values.empty or values.isna().all():
        return EMPTY
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"
