"""The figure of accuracy, and of two measures of the circuit's faithfulness, over checkpoints."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import checkpoint_axis, of_group, plot_curve, seed_handle
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.style import method_legend, method_styles, panel_grid, panel_groups
from circuitdrift.figures.tidy import RUN, FigureDataError, in_percent, spread_base, with_seed_means

_FAITHFULNESS = {
    "kl_model_circuit": "Faithfulness (%)\nto the model",
    "kl_from_corrupted": "Faithfulness (%)\nas in the paper",
}
_ROWS = {"accuracy": "Accuracy (%)", **_FAITHFULNESS}


def tidy(accuracy: pd.DataFrame, faithfulness: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy, and faithfulness of the study's own circuit, in percent, with means over seeds."""
    curves = [_accuracy_over_checkpoints(accuracy), _faithfulness_of_own_circuit(faithfulness)]
    return pd.concat(curves, ignore_index=True)


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """A row of panels for each measure, a line for each method with its band."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style, labels)
    grid = panel_grid(groups, [1.5, 1.25, 1.25], style, share_y=True)
    for group in groups:
        shown = of_group(table, group)
        for row, (measure, title) in enumerate(_ROWS.items()):
            ax = grid.axes[group, row]
            for method, look in styles.items():
                plot_curve(ax, shown[(shown["method"] == method) & (shown["measure"] == measure)], "checkpoint", look)
            if group in grid.first_in_row:
                ax.set_ylabel(title)
            checkpoint_axis(ax, shown["checkpoint"])
        grid.axes[group, 0].set_ylim(0, 103)
        grid.axes[group, len(_ROWS) - 1].set_xlabel("Checkpoint")
    for row, measure in enumerate(_FAITHFULNESS, start=1):
        _percent_limits(grid.axes[groups[0], row], table[table["measure"] == measure])
    grid.figure.align_ylabels()
    method_legend(grid.figure, styles, seed_handle(table))
    return grid.figure


def _accuracy_over_checkpoints(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy in percent at each checkpoint, with the mean over seeds."""
    test = accuracy[accuracy["split"] == "test"]
    if test.empty:
        raise FigureDataError("accuracy tables: no row of split 'test'; run the fine-tuning rule again")
    test = in_percent(test, ["accuracy", "lower", "upper"]).rename(columns={"accuracy": "value"})
    return with_seed_means(test, [*RUN, "checkpoint"], ["value", "n"]).assign(measure="accuracy")


def _faithfulness_of_own_circuit(faithfulness: pd.DataFrame) -> pd.DataFrame:
    """Faithfulness in percent of the study's own circuit, at each checkpoint, with the mean over seeds."""
    chosen = faithfulness[faithfulness["own_circuit"] & faithfulness["metric"].isin(list(_FAITHFULNESS))]
    if chosen.empty:
        raise FigureDataError(
            "faithfulness tables: no row of the study's own circuit; run the rule measure_faithfulness again"
        )
    chosen = in_percent(spread_base(chosen), ["faithfulness", "lower", "upper"])
    chosen = chosen.rename(columns={"metric": "measure", "faithfulness": "value"})
    return with_seed_means(chosen, [*RUN, "checkpoint", "measure"], ["value", "n_edges"])


def _percent_limits(ax: Axes, rows: pd.DataFrame) -> None:
    """From 0 to 100 %, and lower where the mean of a method is negative: worse than the corrupted run."""
    lowest = rows.loc[rows["statistic"] == "mean", "value"].min()
    ax.set_ylim(min(0.0, max(lowest, -100.0)) - (3 if lowest < 0 else 0), 103)
