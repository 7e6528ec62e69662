"""The figure of the layers' changes by each policy, with intervals over resampled folds."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from circuitdrift.config.figures import Figures
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.style import INK, MUTED, Group, legend_below, panel_grid, panel_groups
from circuitdrift.figures.tidy import LAYER_SETS, with_certainty

_TITLES = {
    "score_change": "score change",
    "score_change_normalised": "score change,\nnormalised",
    "excess": "excess",
}
_SHADE = "#4c78a8"
_LEAST_OF_A_LAYER, _MOST_OF_A_LAYER, _INCHES_OF_A_PANEL = 0.1, 0.24, 3.2
_LAYERS_WITH_NUMBERS = 16
_LABELS_OF_AN_AXIS = 16


def tidy(circuit_lora_layers: pd.DataFrame) -> pd.DataFrame:
    """Values, intervals and shares of the layers of one CircuitLoRA, by task, policy and seed.

    Returns:
        The columns of the ``critical_layers`` tables with model, task, name and seed, ``certainty`` and the number of
        seeds' runs in which a layer is critical (``seeds_critical`` of ``seeds``), and ``in_top_mean``, the mean over
        seeds of ``in_top``.
    """
    table = with_certainty(circuit_lora_layers)
    table["in_top_mean"] = table.groupby([*LAYER_SETS, "layer"])["in_top"].transform("mean")
    return table


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """One row of panels for each policy: layers from the top, values to the right, a line for each seed."""
    groups = panel_groups(table)
    policies = [policy for policy in _TITLES if policy in set(table["policy"])]
    n_layers = int(table["layer"].max()) + 1
    seeds, credit = sorted(table["seed"].unique()), table["credit"].iloc[0]
    grid = panel_grid(groups, [_height(n_layers)] * len(policies), style, share_y=False, labelled_rows=range(3))
    for group in groups:
        of_group = table[(table["model"] == group[0]) & (table["task"] == group[1])]
        for row, policy in enumerate(policies):
            ax = grid.axes[group, row]
            _draw_policy(ax, of_group[of_group["policy"] == policy], seeds)
            title = _TITLES[policy] if credit != "counts" else "edges changed"
            _name_axes(ax, group, grid.first_in_row, title, n_layers)
    grid.figure.suptitle(f"{labels.of(str(table['name'].iloc[0]))}, credit: {credit}", fontsize="small")
    legend_below(grid.figure, _handles())
    return grid.figure


def _height(n_layers: int) -> float:
    """Inches of a panel: less for each layer, the more layers there are."""
    of_a_layer = min(_MOST_OF_A_LAYER, max(_LEAST_OF_A_LAYER, _INCHES_OF_A_PANEL / n_layers))
    return 0.35 + of_a_layer * n_layers


def _draw_policy(ax: Axes, rows: pd.DataFrame, seeds: list[int]) -> None:
    """Each seed's value with its interval; shades and numbers say how often a layer is among the first."""
    n_layers = int(rows["layer"].max()) + 1
    step = 0.7 / len(seeds) if n_layers <= _LAYERS_WITH_NUMBERS else 0.0
    shares = rows.drop_duplicates("layer").dropna(subset="in_top_mean")
    for layer, share in zip(shares["layer"].tolist(), shares["in_top_mean"].tolist(), strict=True):
        ax.axhspan(layer - 0.5, layer + 0.5, color=_SHADE, alpha=0.45 * share, linewidth=0, zorder=0)
        if n_layers <= _LAYERS_WITH_NUMBERS:
            ax.annotate(
                f"{share:.2f}",
                (1, layer),
                xycoords=("axes fraction", "data"),
                xytext=(2, 0),
                textcoords="offset points",
                va="center",
                fontsize=5.5,
                color=INK,
                annotation_clip=False,
            )
    for row in rows.to_dict("records"):
        place = row["layer"] + step * (seeds.index(row["seed"]) - (len(seeds) - 1) / 2)
        ax.plot([row["lower"], row["upper"]], [place, place], color=MUTED, linewidth=0.9, zorder=2)
        ax.plot(
            row["value"],
            place,
            linestyle="",
            marker="o",
            color=INK,
            markerfacecolor=INK if row["critical"] else "white",
            markersize=3.2 if n_layers <= _LAYERS_WITH_NUMBERS else 2.4,
            markeredgewidth=0.8,
            zorder=3,
        )
    ax.axvline(0, color=MUTED, linewidth=0.8, zorder=1)


def _name_axes(ax: Axes, group: Group, first_in_row: frozenset[Group], title: str, n_layers: int) -> None:
    step = -(-n_layers // _LABELS_OF_AN_AXIS)
    ax.yaxis.set_major_locator(FixedLocator(list(range(0, n_layers, step))))
    ax.set_ylim(n_layers - 0.5, -0.5)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", labelsize="x-small", labelleft=group in first_in_row)
    ax.tick_params(axis="x", labelsize="x-small")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    ax.xaxis.get_offset_text().set_fontsize(6)
    if group in first_in_row:
        ax.set_ylabel(f"Layer, by\n{title}")


def _handles() -> list[Line2D | Patch]:
    return [
        *(
            Line2D([], [], linestyle="", marker="o", color=INK, markerfacecolor=face, markersize=4, label=label)
            for face, label in ((INK, "critical, one point a seed"), ("white", "not critical"))
        ),
        Line2D([], [], color=MUTED, linewidth=1.2, label="95 % of resampled folds"),
        Patch(color=_SHADE, alpha=0.45, linewidth=0, label="share of resamples among the first (darkest: 1)"),
    ]
