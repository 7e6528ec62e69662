"""Circuits in the models of other checkpoints: heat maps, and a table with a conclusion for each method."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuitdrift.config.figures import Figures
from circuitdrift.drift.equivalence import MARGIN, Difference, about
from circuitdrift.figures import drift_reliability
from circuitdrift.figures.drift_reliability import interval_over_seeds
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.style import INK, MUTED, group_title, panel_groups
from circuitdrift.figures.tidy import RUN, FigureDataError, with_seed_means

_METRIC = "kl_model_circuit"
_OTHER_SEED, _SHARED, _RANDOM = "other_seed", "shared", "random"
_CELL_INCHES = 0.25
_MARGINS_INCHES = (0.75, 0.75)
_COLOURS = "Blues"
_DARK = 0.6
_FRAME = "#d55e00"


def tidy(functional: pd.DataFrame) -> pd.DataFrame:
    """Faithfulness (kl_model_circuit) of each circuit in each model, with the mean over seeds.

    Returns:
        model, task, method, ``model_checkpoint``, ``circuit`` (a checkpoint, ``other_seed``, ``shared`` or ``random``),
        and the columns of :func:`with_seed_means`. Several other seeds count as one circuit, their mean.

    Raises:
        FigureDataError: the tables hold no rows of this metric.
    """
    rows = functional[functional["metric"] == _METRIC]
    if rows.empty:
        raise FigureDataError(f"functional tables: no rows of the metric {_METRIC}; run measure_functional_drift again")
    foreign = rows["circuit_seed"] != rows["seed"]
    rows = rows.assign(circuit=rows["circuit_checkpoint"].mask(foreign, _OTHER_SEED))
    keys = [*RUN, "model_checkpoint", "circuit"]
    values = ["faithfulness", "lower", "upper", "difference", "difference_lower", "difference_upper", "n_edges"]
    of_seeds = rows.groupby([*keys, "seed"], sort=False)[values].mean().reset_index()
    return with_seed_means(of_seeds, keys, ["faithfulness", "difference", "n_edges"])


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """One heat map for each task and method: a row for each circuit, a column for each model."""
    means = table[table["statistic"] == "mean"]
    panels = list(means[RUN].drop_duplicates().itertuples(index=False, name=None))
    models = sorted(means["model_checkpoint"].unique())
    circuits = [c for c in (*models, _OTHER_SEED, _SHARED, _RANDOM) if c in set(means["circuit"])]
    width, height = (
        _CELL_INCHES * n + margin for n, margin in zip((len(models), len(circuits)), _MARGINS_INCHES, strict=True)
    )
    columns = max(1, min(len(panels), int(style.width_inches // width)))
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(max(3.4, columns * width), rows * height + 0.9), squeeze=False, layout="constrained"
    )
    groups, several = panel_groups(means), means["method"].nunique() > 1
    for place, ax in enumerate(axes.flat):
        if place >= len(panels):
            ax.set_visible(False)
            continue
        model, task, method = panels[place]
        own = means[(means["model"] == model) & (means["task"] == task) & (means["method"] == method)]
        _draw_matrix(
            ax, own.pivot(index="circuit", columns="model_checkpoint", values="faithfulness"), models, circuits
        )
        title = group_title((model, task), groups, figure.get_figwidth() / columns)
        ax.set_title(f"{title}\n{labels.of(method)}" if several else title)
        if place % columns:
            ax.tick_params(labelleft=False)
        else:
            ax.set_ylabel("Circuit of checkpoint")
        if place >= len(panels) - columns:
            ax.set_xlabel("Model of checkpoint")
    scale = ScalarMappable(Normalize(0, 1), plt.get_cmap(_COLOURS))
    bar = figure.colorbar(scale, ax=axes, location="bottom", shrink=min(1.0, 3.0 / figure.get_figwidth()), aspect=30)
    bar.set_label("Faithfulness (KL to the model's own output)", fontsize="small")
    bar.outline.set_visible(False)
    return figure


def _draw_matrix(ax: Axes, matrix: pd.DataFrame, models: list[str], circuits: list[str]) -> None:
    """A cell for each circuit and model with its number; a frame around each model's own circuit."""
    values = matrix.reindex(index=circuits, columns=models).to_numpy(dtype=float)
    ax.set_facecolor("white")
    ax.grid(False)
    ax.imshow(np.ma.masked_invalid(values), cmap=_COLOURS, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value > _DARK else INK
            ax.text(
                column,
                row,
                _short(value),
                ha="center",
                va="center",
                fontsize=6.5 if len(models) < 8 else 5.5,
                color=colour,
            )
    for place in range(len(models)):
        ax.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor=_FRAME, linewidth=1.2))
    ax.axhline(len(models) - 0.5, color=MUTED, linewidth=0.8)
    ax.set_xticks(range(len(models)), [_tick(name) for name in models])
    ax.set_yticks(range(len(circuits)), [_tick(name) for name in circuits])
    for side in ax.spines.values():
        side.set_visible(False)


def _short(value: float) -> str:
    """Two decimals, without the zero before the point and without a minus before zero."""
    return f"{value:z.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.1f}"


def _tick(name: str) -> str:
    return "base" if name == "00" else str(int(name)) if name.isdigit() else name.replace("_", " ")


def table(functional: pd.DataFrame, summary: pd.DataFrame, reliability: pd.DataFrame, labels: MethodLabels) -> Table:
    """Circuits in the last model: structural similarity, faithfulness, paired differences, and what follows."""
    rows = functional[functional["metric"] == _METRIC]
    distances = summary[(summary["level"] == "edge") & (summary["measure"] == "jaccard_distance_net")]
    structure = drift_reliability.table(reliability, labels).tidy
    found = []
    for run, own in rows.groupby(RUN, sort=False):
        of_run = dict(zip(RUN, run, strict=True))
        numbers = {
            "edge_jaccard": 1 - _of_run(distances, run)["value"].mean(),
            "structure": _of_run(structure, run)["verdict"].item(),
            **_in_last_model(own),
        }
        found.append({**of_run, **numbers, "conclusion": conclusion(numbers)})
    tidy_table = pd.DataFrame(found)
    ordered = [
        row
        for _, of_task in tidy_table.groupby(["model", "task"], sort=False)
        for row in sorted(of_task.to_dict("records"), key=lambda row: labels.order(row["method"]))
    ]
    note = (
        "Faithfulness (KL to the model's own output, 1 for the whole model) in the model of the last checkpoint, on "
        "held-out prompts, means over seeds. Jaccard: edges of the base model's circuit and of the last one. Shared: "
        "the edges that the circuits of all checkpoints share, with their number beside the last circuit's. Other "
        "seed: the last circuit of other seeds. Random: random circuits with as many edges as the last one. "
        "Difference: base less last circuit, paired by prompt, with a 95 % interval over prompts and, where there are "
        "several seeds, seeds. Conclusion, where the structure drifts beyond noise (table drift_reliability): "
        f"structural only, if the interval lies within ±{MARGIN}; structural and functional, if it lies outside; "
        "otherwise unresolved, with the number of prompts that would resolve a true difference of this size. No "
        "conclusion is drawn from equally faithful circuits that random ones match."
    )
    return Table("Functional drift", note, tidy_table, layout_of([_laid_out(row, labels) for row in ordered]))


def _of_run(rows: pd.DataFrame, run: tuple[Hashable, ...]) -> pd.DataFrame:
    """The rows of one model, task and method."""
    return rows[(rows[RUN] == list(run)).all(axis=1)]


def _in_last_model(rows: pd.DataFrame) -> dict[str, Any]:
    """Means over seeds of one method's circuits in the last model, and the intervals of two differences."""
    last = rows["model_checkpoint"].max()
    rows = rows[rows["model_checkpoint"] == last]
    own_seed = rows["circuit_seed"] == rows["seed"]
    of = {
        "base": rows[own_seed & (rows["circuit_checkpoint"] == rows["circuit_checkpoint"].min())],
        "last": rows[own_seed & (rows["circuit_checkpoint"] == last)],
        "shared": rows[rows["circuit_checkpoint"] == _SHARED],
        "other_seed": rows[~own_seed],
        "random": rows[rows["circuit_checkpoint"] == _RANDOM],
    }
    difference, over_random = _over_seeds(of["base"]), _over_seeds(of["random"])
    return {
        "seeds": rows["seed"].nunique(),
        "prompts": int(rows["examples"].max()),
        **{f"{name}_circuit": found["faithfulness"].mean(skipna=False) for name, found in of.items()},
        "shared_edges": of["shared"]["n_edges"].mean(),
        "last_edges": of["last"]["n_edges"].mean(),
        "difference": difference.value,
        "lower": difference.value - difference.half_width,
        "upper": difference.value + difference.half_width,
        "half_width_of_prompts": difference.half_width_of_prompts,
        "highest_random_less_last": over_random.value + over_random.half_width,
    }


def _over_seeds(rows: pd.DataFrame) -> Difference:
    """The mean difference to the model's own circuit; NaN where some seed has none."""
    of_seeds = rows[["difference", "difference_lower", "difference_upper"]]
    if of_seeds.empty:
        return Difference(math.nan, math.nan, math.nan, 0)
    of_seeds = of_seeds.set_axis(["excess", "lower", "upper"], axis=1)
    lower, upper = interval_over_seeds(of_seeds)
    of_prompts = float(np.sqrt((((of_seeds["upper"] - of_seeds["lower"]) / 2) ** 2).mean()))
    return Difference((lower + upper) / 2, (upper - lower) / 2, of_prompts, int(rows["examples"].max()))


def conclusion(numbers: Mapping[str, Any]) -> str:
    """What one method's numbers in the last model say: a row of the table without its conclusion."""
    if numbers["structure"] == drift_reliability.NOT_BEYOND_NOISE:
        return "structural change not beyond noise"
    if numbers["structure"] != drift_reliability.BEYOND_NOISE:
        return f"structure {numbers['structure']}"
    half_width = (numbers["upper"] - numbers["lower"]) / 2
    found = Difference(numbers["difference"], half_width, numbers["half_width_of_prompts"], numbers["prompts"])
    if math.isnan(found.value):
        return "unresolved, faithfulness undefined"
    if found.verdict == "different":
        return "structural and functional"
    if found.verdict == "equal":
        above_random = numbers["highest_random_less_last"] < -MARGIN
        return "structural only" if above_random else "unresolved, random circuits are as faithful"
    needed = found.prompts_needed
    return "unresolved, needs more seeds" if math.isinf(needed) else f"unresolved, needs about {about(needed)} prompts"


def _laid_out(row: Mapping[Hashable, Any], labels: MethodLabels) -> dict[str, str]:
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Method": labels.of(row["method"]),
        "Seeds": str(row["seeds"]),
        "Prompts": f"{row['prompts']:,}",
        "Jaccard": _number(row["edge_jaccard"]),
        "Base circuit": _number(row["base_circuit"]),
        "Last circuit": _number(row["last_circuit"]),
        "Difference": f"{_number(row['difference'])} [{_number(row['lower'])}, {_number(row['upper'])}]",
        "Shared circuit": f"{_number(row['shared_circuit'])} ({row['shared_edges']:.0f} of {row['last_edges']:.0f})",
        "Other seed": _number(row["other_seed_circuit"]),
        "Random": _number(row["random_circuit"]),
        "Conclusion": row["conclusion"],
    }


def _number(value: float) -> str:
    return EMPTY if np.isnan(value) else f"{value:z.3f}"
