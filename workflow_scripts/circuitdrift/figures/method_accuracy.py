"""The figure and the table of accuracy after fine-tuning by method, methods ordered by trainable parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from circuitdrift.config.figures import Figures
from circuitdrift.figures.labels import MethodLabels, share_label, task_label
from circuitdrift.figures.layout import EMPTY, Table, counts_phrase, layout_of, percent_with_interval, seeds_phrase
from circuitdrift.figures.style import (
    INK,
    ROW_INCHES,
    MethodStyle,
    category_axis,
    legend_below,
    method_styles,
    panel_grid,
    panel_groups,
)
from circuitdrift.figures.tidy import final_accuracy


def tidy(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy in percent at each run's last checkpoint, with parameters trained and the mean over seeds."""
    return final_accuracy(accuracy)


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """Mean accuracy between the lowest and the highest seed, a row for each method; methods of equal size share a band.

    With one seed the whiskers are the Wilson interval. Tasks with a single method are left out beside others.
    """
    table = _with_methods_to_compare(table)
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style, labels)
    by_size = table.groupby("method")["trainable_parameters"].max()
    order = sorted(styles, key=lambda method: (by_size[method], labels.order(method)))
    several_models = table["model"].nunique() > 1
    names = [
        styles[m].label if several_models else _with_parameters(styles[m].label, table[table["method"] == m])
        for m in order
    ]
    height = 0.5 + (1.75 if not several_models else 1.2) * ROW_INCHES * len(order)
    grid = panel_grid(groups, [height], style, share_y=False)
    for group in groups:
        ax = grid.axes[group, 0]
        shown = table[(table["model"] == group[0]) & (table["task"] == group[1])]
        _equal_parameter_bands(ax, order, by_size)
        for place, method in enumerate(order):
            _accuracy_row(ax, place, shown[shown["method"] == method], styles[method])
        category_axis(ax, names, group in grid.first_in_row)
        ax.set_xlim(*_shown_range(shown))
        ax.set_xlabel("Test accuracy (%)")
    same_size = Patch(color="#e4e4e4", label="same number of trainable parameters")
    legend_below(grid.figure, [*_seed_handles(table), same_size])
    return grid.figure


def table(accuracy: pd.DataFrame, labels: MethodLabels) -> Table:
    """Final test accuracy by method and task, with trainable parameters (the paper's T1)."""
    final = tidy(accuracy)
    means = final[final["statistic"] == "mean"]
    tasks = means["task"].drop_duplicates().tolist()
    rows = []
    for model in means["model"].drop_duplicates():
        of_model = means[means["model"] == model]
        sizes = of_model.groupby("method")["trainable_parameters"].max()
        for method in sorted(sizes.index, key=lambda name: (sizes[name], labels.order(name))):
            of_method = of_model[of_model["method"] == method].set_index("task")
            cells = {
                task_label(task): _cell(**of_method.loc[task, ["accuracy", "lower", "upper", "sd"]])
                if task in of_method.index
                else EMPTY
                for task in tasks
            }
            mean = {"Mean of tasks": f"{of_method['accuracy'].mean():.1f}"} if len(of_method) == len(tasks) > 1 else {}
            rows.append(
                {
                    "Model": model,
                    "Method": labels.of(method),
                    "Trainable parameters": f"{sizes[method]:,}",
                    "Share": share_label(of_method["trainable_share"].iloc[0]),
                    **cells,
                    **mean,
                }
            )
    note = (
        f"Test accuracy in % after fine-tuning on {counts_phrase(means['n'])} test prompts, {_what_varies(means)} "
        "Methods are ordered by trainable parameters; the share is of all parameters, the method's own included."
        f"{_what_sham_is(means['method'].unique().tolist(), labels)}"
    )
    return Table("Accuracy by method", note, final, layout_of(rows))


def _what_sham_is(methods: list[str], labels: MethodLabels) -> str:
    """What a control on permuted answers is, where there is one."""
    return " Sham: a control, trained on the answers of other prompts." if any(map(labels.is_sham, methods)) else ""


def _cell(accuracy: float, lower: float, upper: float, sd: float) -> str:
    """The mean and the standard deviation between seeds; of one seed, its accuracy and its interval."""
    if pd.isna(sd):
        return percent_with_interval(accuracy, lower, upper)
    return f"{accuracy:.1f} \N{PLUS-MINUS SIGN} {sd:.1f}"


def _what_varies(means: pd.DataFrame) -> str:
    """What stands beside an accuracy, and what it does not cover."""
    if means["seeds"].max() == 1:
        return "one seed, with the 95 % Wilson interval for these prompts, which does not cover the choice of the seed."
    return (
        f"mean \N{PLUS-MINUS SIGN} standard deviation over {seeds_phrase(means)}. The deviation is that of single "
        "seeds, no interval of the mean; table method_comparisons has intervals of differences."
    )


def _with_methods_to_compare(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of models and tasks with several methods; all rows where there is no such task."""
    several = table.groupby(["model", "task"])["method"].transform("nunique") > 1
    return table[several] if several.any() else table


def _seed_handles(table: pd.DataFrame) -> list[Line2D]:
    """The legend's entries for means, whiskers and points; with one seed there is a point with its interval."""
    several = table["seeds"].max() > 1
    label = "mean over seeds; whiskers: lowest to highest seed" if several else "one seed, 95 % Wilson interval"
    mean = Line2D([], [], color=INK, marker="o", markersize=5, linewidth=1.3, label=label)
    if not several:
        return [mean]
    seed = Line2D([], [], color=INK, marker="o", markerfacecolor="none", linestyle="", markersize=3.5)
    seed.set_label("single seed")
    return [mean, seed]


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


def _shown_range(shown: pd.DataFrame) -> tuple[float, float]:
    """Multiples of 5 % on either side of all that is drawn, within 0 to 101 %."""
    if shown.empty:
        return 0.0, 101.0
    lowest, highest = shown["lower"].min() - 2, shown["upper"].max() + 2
    return max(0.0, float(np.floor(lowest / 5) * 5)), min(101.0, float(np.ceil(highest / 5) * 5))


def _with_parameters(label: str, rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"{label}\n{int(first['trainable_parameters']):,} ({share_label(first['trainable_share'])})"
