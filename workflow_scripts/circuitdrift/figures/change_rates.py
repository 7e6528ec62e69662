"""The figure and the table of change rates: nodes against edges, by method, beside the controls."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from circuitdrift.config.figures import Figures
from circuitdrift.drift.control_names import KIND
from circuitdrift.figures.labels import MethodLabels, control_label, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of, percent_with_interval
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
from circuitdrift.figures.tidy import FigureDataError

_BAND = "#f3f3f3"
_ELSEWHERE = ("degree_preserving_base",)
"""Controls that, like those of kinds, are in the table of controls alone."""

_CEILING = "random_circuit"
"""A control that is a ceiling and no floor, often several times all other rates: the axis does not extend to it."""

_NET, _CUMULATIVE = "rate_net", "rate_cumulative"
_AXES = ((_NET, "Net change\nrate (%)"), (_CUMULATIVE, "Cumulative change\nrate (%)"))


def tidy(summary: pd.DataFrame, controls: pd.DataFrame, labels: MethodLabels) -> pd.DataFrame:
    """Change rates of nodes and edges by method and by control, in percent; kinds of prompts are left out.

    Returns:
        model, task, kind (fine-tuning or control), name, label, measure, level, value (mean), lower and upper (lowest
        and highest of the ``count`` values), of seeds for methods, of methods and pairs for controls.
    """
    of_parts = summary[summary["measure"].isin([_NET, _CUMULATIVE]) & summary["level"].isin(["node", "edge"])]
    drift = of_parts.assign(kind="fine-tuning", name=of_parts["method"])
    controls = controls[~controls["control"].isin(_ELSEWHERE) & ~controls["control"].str.startswith(KIND)]
    several = controls.groupby("control")["checkpoint"].nunique() > 1
    named = controls.assign(
        kind="control",
        measure=_NET,
        value=controls["rate"],
        name=[
            f"{control}@{checkpoint}" if several[control] else control
            for control, checkpoint in zip(controls["control"], controls["checkpoint"], strict=True)
        ],
    )
    keys = ["model", "task", "kind", "name", "measure", "level"]
    rates = pd.concat([drift[[*keys, "value"]], named[[*keys, "value"]]], ignore_index=True).dropna(subset=["value"])
    if rates.empty:
        raise FigureDataError(f"summary tables: none of the measures {_NET}, {_CUMULATIVE}; compare circuits again")
    rates["value"] *= 100
    grouped = rates.groupby(keys, sort=False)["value"].agg(value="mean", lower="min", upper="max", count="count")
    table = grouped.reset_index()
    table["label"] = [_row_label(kind, name, labels) for kind, name in zip(table["kind"], table["name"], strict=True)]
    return table


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """Rates of nodes and edges, a row for each method and, below them, for each control."""
    groups = panel_groups(table)
    drift = table[table["kind"] == "fine-tuning"]
    styles = method_styles(drift["name"].unique().tolist(), style, labels)
    net_rows = [*styles, *table.loc[table["kind"] == "control", "name"].drop_duplicates()]
    rows_of = {_NET: net_rows, _CUMULATIVE: list(styles)}
    heights = [0.55 + ROW_INCHES * len(rows_of[measure]) for measure, _ in _AXES]
    grid = panel_grid(groups, heights, style, share_y=False, labelled_rows=(0, 1))
    row_labels = dict(zip(table["name"], table["label"], strict=True))
    for group in groups:
        for row, (measure, title) in enumerate(_AXES):
            ax = grid.axes[group, row]
            shown = table[(table["model"] == group[0]) & (table["task"] == group[1]) & (table["measure"] == measure)]
            end = _end_of_axis(table[table["measure"] == measure])
            _dumbbells(ax, shown, rows_of[measure], styles, end)
            category_axis(ax, [row_labels[name] for name in rows_of[measure]], group in grid.first_in_row)
            ax.set_xlim(0, end)
            ax.set_xlabel(title)
    level_handles = [
        Line2D([], [], color=INK, linestyle="", marker="o", markerfacecolor="white", markersize=5, label="nodes"),
        Line2D([], [], color=INK, linestyle="", marker="s", markersize=5, label="edges"),
        Line2D([], [], color=INK, linewidth=1, marker="|", markersize=5, label="lowest to highest"),
        Line2D([], [], linestyle="", label="\N{MULTIPLICATION SIGN}n: edge rate over node rate"),
    ]
    legend_below(grid.figure, level_handles)
    return grid.figure


def table(summary: pd.DataFrame, controls: pd.DataFrame, labels: MethodLabels) -> Table:
    """Change rates of nodes and edges by task, method and control."""
    rates = tidy(summary, controls, labels)
    levels = rates.pivot_table(
        index=["model", "task", "kind", "label", "measure"],
        columns="level",
        values=["value", "lower", "upper"],
        sort=False,
    )
    measures = {_NET: "net", _CUMULATIVE: "cumulative"}
    rows = []
    for (_, row), (model, task, kind, label, measure) in zip(levels.iterrows(), levels.index.tolist(), strict=True):
        node, edge = row["value"].get("node"), row["value"].get("edge")
        rows.append(
            {
                "Model": model,
                "Task": task_label(task),
                "Comparison": label if kind == "fine-tuning" else f"Control: {label[:1].lower()}{label[1:]}",
                "Rate": measures[measure],
                "Nodes (%)": _range(row, "node"),
                "Edges (%)": _range(row, "edge"),
                "Edges / nodes": f"{edge / node:.1f}" if node else EMPTY,
            }
        )
    note = (
        "Changed nodes (edges) for each node (edge) of the first circuit; lowest and highest value in brackets, over "
        "seeds for methods, over methods and pairs of circuits for controls. Net: first against last checkpoint. "
        "Cumulative: summed over transitions. Controls compare two circuits of the same stage and are to be read "
        "against the net rates."
    )
    return Table("Change rates of nodes and edges", note, rates, layout_of(rows))


def _row_label(kind: str, name: str, labels: MethodLabels) -> str:
    if kind == "fine-tuning":
        return labels.of(name)
    control, _, checkpoint = name.partition("@")
    where = {"": "", "00": ", base model"}.get(checkpoint, f", checkpoint {checkpoint}")
    return control_label(control) + where


def _end_of_axis(rates: pd.DataFrame) -> float:
    """A little beyond the highest rate, that of the ceiling left out."""
    highest = rates.loc[rates["name"] != _CEILING, "upper"].max()
    return 1.3 * float(highest) if highest > 0 else 1.0


def _dumbbells(ax: Axes, shown: pd.DataFrame, names: list[str], styles: dict[str, MethodStyle], end: float) -> None:
    """One row for each name: the rate of nodes and that of edges, joined by a line, and their quotient.

    The numbers of a row that goes beyond the end of the axis are written there.
    """
    for place, name in enumerate(names):
        colour = styles[name].colour if name in styles else INK
        rows = shown[shown["name"] == name].set_index("level")
        if not {"node", "edge"} <= set(rows.index):
            continue
        nodes, edges = rows.loc["node"], rows.loc["edge"]
        ax.plot([nodes["value"], edges["value"]], [place, place], color=colour, linewidth=1.6, alpha=0.35, zorder=2)
        for level, marker, face in ((nodes, "o", "white"), (edges, "s", colour)):
            ax.plot(
                [level["lower"], level["upper"]], [place, place], color=colour, linewidth=0.9, marker="|", markersize=5
            )
            ax.plot(level["value"], place, marker=marker, markersize=4.6, color=colour, markerfacecolor=face, zorder=4)
        right = max(edges["upper"], nodes["upper"])
        quotient = f"\N{MULTIPLICATION SIGN}{edges['value'] / nodes['value']:.1f}" if nodes["value"] > 0 else ""
        beyond = right > end
        ax.annotate(
            f"{quotient}  {edges['value']:.0f} % \N{RIGHTWARDS ARROW}" if beyond else quotient,
            (min(right, end), place),
            xytext=(-3, 7) if beyond else (5, 0),
            textcoords="offset points",
            ha="right" if beyond else "left",
            va="center",
            fontsize="x-small",
            color=MUTED,
        )
    n_methods = sum(name in styles for name in names)
    if n_methods < len(names):
        ax.axhspan(n_methods - 0.5, len(names) - 0.5, color=_BAND, zorder=0)


def _range(row: pd.Series, level: str) -> str:
    value, lower, upper = (row[part].get(level) for part in ("value", "lower", "upper"))
    if value is None or pd.isna(value):
        return EMPTY
    return f"{value:.1f}" if lower == upper else percent_with_interval(value, lower, upper)
