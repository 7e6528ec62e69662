"""The figure of faithfulness over the share of edges that a circuit keeps, before and after fine-tuning."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import of_group, plot_curve, seed_handle
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.style import MUTED, MethodStyle, method_legend, method_styles, panel_grid, panel_groups
from circuitdrift.figures.tidy import BASE_MODEL, RUN, FigureDataError, in_percent, of_base_and_last, with_seed_means

_ROWS = (
    ("kl_model_circuit", "Faithfulness (%)\nto the model"),
    ("logit_difference", "Faithfulness (%)\nlogit difference"),
)
_CURVE = [*RUN, "seed", "metric"]


def tidy(base_and_last_faithfulness: pd.DataFrame) -> pd.DataFrame:
    """Faithfulness in percent over circuit size, of the base model and of each run's last checkpoint.

    Only sizes that every curve has are kept, since seeds may differ in the size of the study's own circuit, and only
    measures that are defined somewhere: without answers to both prompts there is no logit difference.
    """
    of_rows = base_and_last_faithfulness["metric"].isin([measure for measure, _ in _ROWS])
    shown = of_base_and_last(base_and_last_faithfulness[of_rows])
    curves = shown.groupby(_CURVE, sort=False)
    shown = shown[shown.groupby("size_fraction")["size_fraction"].transform("size") == curves.ngroups]
    shown = shown.dropna(subset="faithfulness").rename(columns={"metric": "measure", "faithfulness": "value"})
    if shown.empty:
        raise FigureDataError("faithfulness tables: no size that all circuits have; run measure_faithfulness again")
    shown = in_percent(shown, ["value", "lower", "upper"])
    return with_seed_means(shown, [*RUN, "checkpoint", "measure", "size_fraction"], ["value", "n_edges"])


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """A row of panels for each measure, a line for the base model and for each method."""
    groups, sizes = panel_groups(table), table["size_fraction"]
    methods = [method for method in table["method"].unique().tolist() if method != BASE_MODEL]
    base = MethodStyle(label="Base model", colour=MUTED, marker="o", dashes=(0, (1, 1.2)))
    styles = {BASE_MODEL: base, **method_styles(methods, style, labels)}
    rows = [(measure, title) for measure, title in _ROWS if (table["measure"] == measure).any()]
    grid = panel_grid(groups, [1.5] * len(rows), style, share_y=True)
    for group in groups:
        shown = of_group(table, group)
        for row, (measure, title) in enumerate(rows):
            ax = grid.axes[group, row]
            if not (shown["measure"] == measure).any():
                ax.text(0.5, 0.5, "no answers", transform=ax.transAxes, ha="center", va="center", color=MUTED)
                ax.sharex(grid.axes[group, 0])
            ax.axhline(100, color=MUTED, linewidth=0.8, zorder=1)
            for method, look in styles.items():
                of_method = shown[(shown["method"] == method) & (shown["measure"] == measure)]
                plot_curve(ax, of_method, "size_fraction", look)
            ax.set_xscale("log")
            if sizes.max() < 100 * sizes.min():
                ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
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
    method_legend(grid.figure, styles, seed_handle(table))
    return grid.figure
