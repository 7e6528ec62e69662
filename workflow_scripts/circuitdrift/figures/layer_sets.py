"""The figure and the table of CircuitLoRA's layers among all sets of as many layers (docs/method.md#layer-sets)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from circuitdrift.config.figures import Figures
from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.figures.curves import of_group
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.style import (
    INK,
    MUTED,
    ROW_INCHES,
    MethodStyle,
    category_axis,
    legend_below,
    method_styles,
    panel_grid,
    panel_groups,
)
from circuitdrift.figures.tidy import FigureDataError, final_accuracy
from circuitdrift.randomisation import correlation_with_drift, p_value_of_choice, places

Sets = Mapping[str, Mapping[str, Sequence[int]]]
_ALL_TASKS = "all tasks"
_RUN = ["task", "seed"]
_SHIFT = 0.3
"""Distance between the marks of two CircuitLoRAs, in rows."""


def tidy(accuracy: pd.DataFrame, critical_layers: pd.DataFrame, layer_sets: Sets, labels: MethodLabels) -> pd.DataFrame:
    """Each set of layers in each run, with its test accuracy after fine-tuning and the drift of phase 1 in its layers.

    Args:
        accuracy: accuracy tables of all runs.
        critical_layers: tables of critical layers, with the drift of every layer.
        layer_sets: for each CircuitLoRA the methods that are all sets of layers, and their layers.
        labels: of the study's methods.

    Returns:
        model, task, method (the CircuitLoRA), seed, layers ("0, 3"), accuracy in percent, drift (the sum over the
        layers of the value that the policy ranks by), chosen (whether CircuitLoRA gave its rank to these layers).

    Raises:
        FigureDataError: a model has other sets of layers than those that were trained, or a run of a set is missing.
    """
    final = final_accuracy(accuracy).query("statistic == 'seed'")
    by_run = final.set_index(["model", "task", "method", "seed"])["accuracy"].to_dict()
    rows = []
    for method, sets in layer_sets.items():
        ranked = _of_policy(critical_layers, method, labels)
        for (model, task, seed), layers in ranked.groupby(["model", "task", "seed"], sort=False):
            drift = layers.set_index("layer")["value"]
            critical = sorted(int(layer) for layer in layers.loc[layers["critical"], "layer"])
            if comb(len(layers), len(critical)) != len(sets):
                raise FigureDataError(
                    f"layer_sets: {model} has {len(layers)} layers, but the study trains {len(sets)} sets of "
                    f"{len(critical)}; add methods for the other sets, or remove those that there are"
                )
            for name, own in sets.items():
                if (model, task, name, seed) not in by_run:
                    raise FigureDataError(f"accuracy tables: no run of {name} on {task} with seed {seed}; run it")
                reached = by_run[model, task, name, seed]
                is_chosen = sorted(own) == critical
                rows.append((model, task, method, seed, _layers(own), reached, drift[list(own)].sum(), is_chosen))
    return pd.DataFrame(rows, columns=["model", "task", "method", "seed", "layers", "accuracy", "drift", "chosen"])


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """Accuracy of each set, best at the top: seeds as points, their mean as a bar, the sets that CircuitLoRA chose."""
    groups = panel_groups(table)
    styles = method_styles(table["method"].unique().tolist(), style, labels)
    height = 0.4 + ROW_INCHES * table["layers"].nunique()
    grid = panel_grid(groups, [height], style, share_y=False)
    for group in groups:
        _draw_sets(grid.axes[group, 0], of_group(table, group), styles)
        if group in grid.first_in_row:
            grid.axes[group, 0].set_ylabel("Layers of higher rank")
    one_seed = Line2D([], [], color=MUTED, marker="o", markerfacecolor="none", linestyle="", markersize=4)
    one_seed.set_label("one seed")
    mean = Line2D([], [], color=INK, marker="|", linestyle="", markersize=9, markeredgewidth=1.6)
    mean.set_label("mean over seeds")
    median = Line2D([], [], color=MUTED, linewidth=0.9, linestyle="--", label="median of the sets' means")
    chosen = [
        Line2D([], [], color=s.colour, marker=s.marker, linestyle="", markersize=6, label=f"chosen by {s.label}")
        for s in styles.values()
    ]
    legend_below(grid.figure, [*chosen, one_seed, mean, median])
    return grid.figure


def table(accuracy: pd.DataFrame, critical_layers: pd.DataFrame, layer_sets: Sets, labels: MethodLabels) -> Table:
    """Place and exact p-value of the sets that CircuitLoRA chose: of each run, of each task, and of all tasks.

    Args and errors as of :func:`tidy`.
    """
    runs = tidy(accuracy, critical_layers, layer_sets, labels)
    tests = pd.DataFrame(
        [
            {"model": model, "method": method, **test}
            for (model, method), of_method in runs.groupby(["model", "method"], sort=False)
            for test in _tests(of_method, _drift_of_layers(critical_layers, str(model), str(method), labels))
        ]
    )
    rows = [
        {
            "Model": row["model"],
            "Task": "All tasks" if row["task"] == _ALL_TASKS else task_label(row["task"]),
            "Method": labels.of(row["method"]),
            "Seed": row["seeds"],
            "Layers": row["layers"] or EMPTY,
            "Accuracy": f"{row['accuracy']:.1f}",
            "Best, median, worst set": f"{row['best']:.1f}, {row['median']:.1f}, {row['worst']:.1f}",
            "Place": f"{row['place']:.1f} of {row['sets']}",
            "p": f"{row['p_value']:.3f}",
            "Drift and accuracy": _number(row["correlation"], "+.2f"),
            "p of drift": _number(row["correlation_p_value"], ".3f"),
        }
        for row in tests.to_dict("records")
    ]
    note = (
        "The layers that CircuitLoRA chose, among all sets of as many layers, each trained with the same ranks and "
        "seeds. Accuracy: of the chosen set, in %. Place: 1 is the best set; equal sets share their mean place. p: "
        "one-sided; in one run the share of sets that are at least as accurate, so never below "
        f"{1 / tests['sets'].max():.3f}. Over seeds it tests the mean accuracy, over all tasks the mean place. Layers "
        "are relabelled alike in all runs, so that runs which choose the same layers count as one choice. Drift and "
        "accuracy: Spearman's correlation over the sets, mean over runs. No p is corrected for several tests; a "
        "CircuitLoRA's last line tests all its runs."
    )
    return Table("CircuitLoRA among all sets of layers", note, tests, layout_of(rows))


def _of_policy(critical_layers: pd.DataFrame, method: str, labels: MethodLabels) -> pd.DataFrame:
    """The layers of a CircuitLoRA by the policy that it follows."""
    circuit_lora = labels.methods[method]
    assert isinstance(circuit_lora, CircuitLoraMethod)
    return critical_layers[(critical_layers["name"] == method) & (critical_layers["policy"] == circuit_lora.policy)]


def _drift_of_layers(critical_layers: pd.DataFrame, model: str, method: str, labels: MethodLabels) -> pd.DataFrame:
    """The drift by which a CircuitLoRA ranks layers: a row for each task and seed, a column for each layer."""
    rows = _of_policy(critical_layers, method, labels)
    return rows[rows["model"] == model].pivot(index=_RUN, columns="layer", values="value")


def _tests(runs: pd.DataFrame, drift: pd.DataFrame) -> list[dict[str, object]]:
    """The tests of one CircuitLoRA on one model: of each run, of each task over seeds, and of all tasks."""
    found: list[dict[str, object]] = []
    for task, of_task in runs.groupby("task", sort=False):
        seeds = list(of_task.groupby("seed"))
        for seed, one in seeds:
            found.append({"task": task, "seeds": str(seed), **_test(one, drift)})
        if len(seeds) > 1:
            found.append({"task": task, "seeds": "all", **_test(of_task, drift)})
    if runs["task"].nunique() > 1:
        found.append({"task": _ALL_TASKS, "seeds": "all", **_test(runs, drift)})
    return found


def _test(runs: pd.DataFrame, drift: pd.DataFrame) -> dict[str, object]:
    """The test of some runs together: by accuracy where they are of one task, otherwise by place."""
    accuracies = runs.pivot(index=_RUN, columns="layers", values="accuracy")
    is_chosen = runs.pivot(index=_RUN, columns="layers", values="chosen").to_numpy(dtype=bool)
    of_runs = drift.loc[accuracies.index]
    sets = np.array([[str(layer) in name.split(", ") for layer in of_runs.columns] for name in accuracies.columns])
    chosen, values = is_chosen.argmax(axis=1), accuracies.to_numpy()
    placed, means = places(values), values.mean(axis=0)
    worth = values if runs["task"].nunique() == 1 else -placed
    correlation, correlation_p_value = correlation_with_drift(values, of_runs.to_numpy(), sets)
    return {
        "layers": "; ".join(dict.fromkeys(accuracies.columns[row] for row in chosen)),
        "accuracy": values[is_chosen].mean(),
        "best": means.max(),
        "median": float(np.median(means)),
        "worst": means.min(),
        "place": placed[is_chosen].mean(),
        "sets": len(sets),
        "p_value": p_value_of_choice(worth, chosen, sets),
        "correlation": correlation,
        "correlation_p_value": correlation_p_value,
    }


def _draw_sets(ax: Axes, runs: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> None:
    """One panel: a row for each set, from the highest to the lowest mean accuracy."""
    reached = runs.drop_duplicates(["layers", "seed"])
    means = reached.groupby("layers")["accuracy"].mean().sort_values(ascending=False, kind="stable")
    place_of = {name: place for place, name in enumerate(means.index)}
    ax.axvline(means.median(), color=MUTED, linewidth=0.9, linestyle="--", zorder=1)
    ax.scatter(reached["accuracy"], reached["layers"].map(place_of), s=15, facecolor="white", edgecolor=MUTED, zorder=2)
    ax.plot(means, range(len(means)), color=INK, marker="|", linestyle="", markersize=9, markeredgewidth=1.6, zorder=3)
    for number, (method, look) in enumerate(styles.items()):
        own = runs[(runs["method"] == method) & runs["chosen"]]
        shift = _SHIFT * (number - (len(styles) - 1) / 2)
        ax.scatter(
            own["accuracy"], own["layers"].map(place_of) + shift, marker=look.marker, s=34, color=look.colour, zorder=4
        )
    category_axis(ax, list(means.index), labelled=True)
    ax.set_xlabel("Test accuracy (%)")


def _layers(layers: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(layers)))


def _number(value: float, form: str) -> str:
    return EMPTY if pd.isna(value) else f"{value:{form}}"
