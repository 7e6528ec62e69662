"""The figure and the table of robustness: circuits from prompts of which a share is replaced, and disjoint splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from circuitdrift.config.figures import Figures
from circuitdrift.figures.curves import of_group
from circuitdrift.figures.drift_reliability import interval_over_seeds
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.style import INK, MUTED, legend_below, method_styles, panel_grid, panel_groups
from circuitdrift.figures.tidy import BASE_MODEL
from circuitdrift.provenance import BASE_CHECKPOINT

UNTRAINED = "untrained"
"""Stands for the method in rows of untrained models, which belong to no run."""

_POINT = ["model", "task", "method", "control", "share", "level", "measure"]
_LEVELS = (("edge", "edges"), ("node", "nodes"))
_PERTURBED, _SPLITS = "perturbed", "disjoint_splits"
_SHOWN_IN_TABLE = (0.1, 0.5, 0.9)
_DASHED = (0, (4, 2))


def tidy(robustness: pd.DataFrame, untrained_robustness: pd.DataFrame | list[Path]) -> pd.DataFrame:
    """The Jaccard indices of :func:`over_seeds`."""
    found = over_seeds(robustness, untrained_robustness)
    return found[found["measure"] == "jaccard"].reset_index(drop=True)


def over_seeds(robustness: pd.DataFrame, untrained_robustness: pd.DataFrame | list[Path]) -> pd.DataFrame:
    """Means over seeds for the base model, for each method's last checkpoint and for untrained models.

    Args:
        robustness: robustness tables of all runs with circuits; each holds the rows of the base model.
        untrained_robustness: those of untrained models; a list without tables where there are none.

    Returns:
        model, task, method (:data:`BASE_MODEL` and :data:`UNTRAINED` beside methods), control, share, level, measure,
        seeds, draws, examples, similarity, lower and upper; an interval ends at 1, which no similarity exceeds.
    """
    is_base = robustness["checkpoint"] == BASE_CHECKPOINT
    base = robustness[is_base].drop_duplicates([name for name in _POINT if name != "method"])
    parts = [base.assign(method=BASE_MODEL), robustness[~is_base]]
    if isinstance(untrained_robustness, pd.DataFrame):
        parts.append(untrained_robustness.assign(method=UNTRAINED))
    together = pd.concat([part for part in parts if len(part)] or [robustness], ignore_index=True)
    rows = []
    for point, of_seeds in together.groupby(_POINT, sort=False, dropna=False):
        lower, upper = interval_over_seeds(of_seeds.rename(columns={"similarity": "excess"}))
        numbers = {"seeds": len(of_seeds), "draws": of_seeds["draws"].max(), "examples": of_seeds["examples"].max()}
        numbers |= {"similarity": of_seeds["similarity"].mean(skipna=False), "lower": lower, "upper": min(upper, 1.0)}
        rows.append(dict(zip(_POINT, point, strict=True)) | numbers)
    return pd.DataFrame(rows, columns=[*_POINT, "seeds", "draws", "examples", "similarity", "lower", "upper"])


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """Similarity over the share of prompts that is replaced; dashed across, that of disjoint splits."""
    groups = panel_groups(table)
    methods = [name for name in table["method"].unique() if name not in {BASE_MODEL, UNTRAINED}]
    looks = {BASE_MODEL: ("base model", MUTED, "o")}
    looks |= {name: (s.label, s.colour, s.marker) for name, s in method_styles(methods, style, labels).items()}
    looks[UNTRAINED] = ("untrained model", INK, "x")
    looks = {name: look for name, look in looks.items() if name in set(table["method"])}
    grid = panel_grid(groups or [("", "nothing was measured")], [1.7, 1.7], style, share_y=True)
    for group in groups:
        shown = of_group(table, group)
        for row, (level, title) in enumerate(_LEVELS):
            ax = grid.axes[group, row]
            at_level = shown[shown["level"] == level]
            for method, (_, colour, marker) in looks.items():
                _plot(ax, at_level[at_level["method"] == method], colour, marker)
            ax.set_xlim(0, 103)
            ax.xaxis.set_major_locator(MaxNLocator(5))
            if group in grid.first_in_row:
                ax.set_ylabel(f"Jaccard index\nof {title}")
        grid.axes[group, 1].set_xlabel("Prompts replaced (%)")
        grid.axes[group, 0].set_ylim(0, 1.03)
        grid.axes[group, 1].set_ylim(0, 1.03)
    grid.figure.align_ylabels()
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5, label=label)
        for label, colour, marker in looks.values()
    ]
    handles.append(Line2D([], [], color=INK, linestyle="-", linewidth=1.4, label="a share of the prompts replaced"))
    handles.append(Line2D([], [], color=INK, linestyle=_DASHED, linewidth=1.2, label="disjoint splits"))
    legend_below(grid.figure, handles)
    return grid.figure


def _plot(ax: Axes, rows: pd.DataFrame, colour: str, marker: str) -> None:
    """One model's curve with its band, and its line of disjoint splits."""
    curve = rows[rows["control"] == _PERTURBED].sort_values("share")
    at = 100 * curve["share"].astype(float)
    ax.fill_between(at, curve["lower"], curve["upper"], color=colour, alpha=0.13, linewidth=0)
    ax.plot(at, curve["similarity"], color=colour, linewidth=1.4, marker=marker, markersize=3.2)
    for row in rows[rows["control"] == _SPLITS].to_dict("records"):
        ax.axhline(row["similarity"], color=colour, linestyle=_DASHED, linewidth=1.1)
        ax.plot(100, row["similarity"], color=colour, marker=marker, markersize=3.2)


def table(robustness: pd.DataFrame, untrained_robustness: pd.DataFrame | list[Path], labels: MethodLabels) -> Table:
    """Similarities at three shares and over disjoint splits, by task, circuit and level.

    Args:
        robustness: robustness tables of all runs with circuits.
        untrained_robustness: those of untrained models; a list without tables where there are none.
        labels: of the study's methods.
    """
    found = over_seeds(robustness, untrained_robustness)
    shown = found[found["measure"] == "jaccard"]
    rows = [
        _laid_out(dict(zip(["model", "task", "method", "level"], names, strict=True)), of_circuit, labels)
        for names, of_circuit in shown.groupby(["model", "task", "method", "level"], sort=False)
    ]
    note = (
        "Jaccard index of circuits. Replaced: the circuit of all prompts and that of the same prompts with a share "
        "of them replaced by fresh ones of the same kinds, mean over draws of the prompts that are replaced; the "
        "share is that of whole folds nearest to the one named. Disjoint splits: mean over every two of the groups "
        "into which the prompts are dealt, whose circuits come from fewer prompts (in brackets behind the number), "
        "so the two are not to be compared with each other. Brackets: 95 % intervals, with one seed over other "
        "prompts alone (jackknife over folds), with several over other seeds too. Fine-tuned models were trained on "
        "the fresh prompts."
    )
    empty = pd.DataFrame([{"Robustness": "nothing was measured: too few prompts"}])
    return Table("Robustness of circuits to other prompts", note, found, layout_of(rows) if rows else empty)


def _laid_out(names: Mapping[str, Any], rows: pd.DataFrame, labels: MethodLabels) -> dict[str, str]:
    titles = {BASE_MODEL: "base model", UNTRAINED: "untrained models"}
    method = names["method"]
    replaced = rows[rows["control"] == _PERTURBED]
    cells = {
        "Model": names["model"],
        "Task": task_label(names["task"]),
        "Circuit": titles.get(method) or f"{labels.of(method)}, last checkpoint",
        "Level": f"{names['level']}s",
        "Seeds": str(rows["seeds"].max()),
    }
    for share in _SHOWN_IN_TABLE:
        nearest = replaced.iloc[(replaced["share"] - share).abs().to_numpy().argsort()[:1]]
        cells[f"Replaced, {100 * share:.0f} %"] = _with_interval(nearest)
    splits = rows[rows["control"] == _SPLITS]
    prompts = f" ({splits['examples'].iloc[0]:,.0f} prompts)" if len(splits) else ""
    return cells | {"Disjoint splits": _with_interval(splits) + prompts}


def _with_interval(rows: pd.DataFrame) -> str:
    if rows.empty or rows["similarity"].isna().any():
        return EMPTY
    [row] = rows.to_dict("records")
    interval = "" if np.isnan(row["lower"]) else f" [{row['lower']:.2f}, {row['upper']:.2f}]"
    return f"{row['similarity']:.3f}{interval}"
