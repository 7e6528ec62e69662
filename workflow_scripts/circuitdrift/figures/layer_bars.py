"""Bars by layer: each layer is a category, with a bar for each method side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from circuitdrift.figures.style import INK, MethodStyle

_WIDTH = 0.8
_MOST_LABELS = 12


@dataclass(frozen=True)
class Place:
    """Where the bars of one method stand within each layer: their distance from its middle, and their width."""

    offset: float
    width: float

    def of(self, rows: pd.DataFrame) -> pd.Series:
        """The middle of the bar of each row."""
        return rows["layer"].astype(float) + self.offset


def places(styles: Mapping[str, MethodStyle]) -> Iterator[tuple[str, MethodStyle, Place]]:
    """Each method with its style and its place beside the others."""
    width = _WIDTH / len(styles)
    for number, (method, look) in enumerate(styles.items()):
        yield method, look, Place((number + 0.5) * width - _WIDTH / 2, width)


def layer_bars(ax: Axes, rows: pd.DataFrame, signed: pd.Series, place: Place, look: MethodStyle, alpha: float) -> None:
    """A bar for the mean of each layer, and a point for each of several seeds.

    Args:
        ax: where they are drawn.
        rows: of one method; ``statistic`` tells means from seeds.
        signed: the height of each row, below zero for removals.
        place: of the method's bars.
        look: its colour.
        alpha: opacity.
    """
    mean, seeds = (rows[rows["statistic"] == kind] for kind in ("mean", "seed"))
    ax.bar(place.of(mean), signed[mean.index], place.width, color=look.colour, alpha=alpha, linewidth=0, zorder=2)
    if (mean["seeds"] > 1).any():
        ax.scatter(place.of(seeds), signed[seeds.index], color=INK, s=2.5, linewidth=0, zorder=4)


def added_and_removed(ax: Axes, rows: pd.DataFrame, place: Place, look: MethodStyle) -> None:
    """What was added, above zero, and what was removed, below it and paler."""
    layer_bars(ax, rows, rows["added"], place, look, 1.0)
    layer_bars(ax, rows, -rows["removed"], place, look, 0.55)


def layer_axis(ax: Axes, layers: list[int]) -> None:
    """Names each layer; of many, every second or third."""
    step = math.ceil(len(layers) / _MOST_LABELS)
    ax.set_xticks(layers[::step], [str(layer) for layer in layers[::step]])
    ax.grid(False, axis="x")
