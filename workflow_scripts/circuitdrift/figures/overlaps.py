"""Overlaps of the strongest edges of the circuits of a compositional task and of its sub-tasks: figure and table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from circuitdrift.config.compositions import PARTS
from circuitdrift.config.figures import Figures
from circuitdrift.figures.compositions import (
    MODEL_OF_THE_PAPER,
    circuit_handles,
    circuit_looks,
    mean_and_spread,
    of_panel,
    panel_columns,
    panels_of,
    say_nothing_to_compare,
)
from circuitdrift.figures.curves import plot_curve
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.style import INK
from circuitdrift.figures.tidy import RUN, at_last_checkpoint, with_seed_means

PAIRS = {
    "union": "Own, union",
    "intersection": "Own, intersection",
    "add_sub": "Own, Add/Sub sub-task",
    "mul_div": "Own, Mul/Div sub-task",
    "sub_tasks": "Both sub-tasks",
}
PUBLISHED = {("union", 100): 69, ("sub_tasks", 100): 51}
"""Overlaps that Wang et al. (2025) give for Pythia-1.4B, by pair and k."""

_KEYS = [*RUN, "pair", "k"]
_CHANCE = (0, (1, 1.2))
_NOTHING = "the circuits have fewer edges\nthan the smallest k"


def tidy(overlaps: pd.DataFrame, sub_tasks: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Overlaps of the circuits of each run's last checkpoint, with the mean over seeds.

    Args:
        overlaps: tables of all runs on compositional tasks.
        sub_tasks: the Add/Sub and the Mul/Div sub-task of each of these tasks.

    Returns:
        model, task, method, ``pair`` (a key of :data:`PAIRS`), ``k`` and the columns of
        :func:`circuitdrift.figures.tidy.with_seed_means` for ``value`` and ``expected``. No rows if the circuits of all
        runs have fewer edges than the smallest k.
    """
    shown = at_last_checkpoint(overlaps).rename(columns={"overlap": "value"})
    shown = shown.assign(pair=_pairs(shown, sub_tasks))
    if shown.empty:
        return pd.DataFrame(columns=[*_KEYS, "statistic", "seed", "seeds", "value", "expected", "lower", "upper"])
    return with_seed_means(shown.astype({"value": "float64"}), _KEYS, ["value", "expected"])


def _pairs(overlaps: pd.DataFrame, sub_tasks: Mapping[str, Sequence[str]]) -> list[str]:
    """The key of :data:`PAIRS` of each row."""
    parts = {(task, name): part for task, names in sub_tasks.items() for name, part in zip(names, PARTS, strict=True)}
    return [
        "sub_tasks" if first != "own" else parts.get((task, second), second)
        for task, first, second in zip(overlaps["task"], overlaps["first"], overlaps["second"], strict=True)
    ]


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """A panel for each run's task and method, a line for each pair of circuits, and the line of chance."""
    panels = panels_of(table)
    if not panels:
        figure, axes = panel_columns([("", "", "")], [1.4], style, labels, [])
        say_nothing_to_compare(axes[0, 0], _NOTHING)
        return figure
    looks = circuit_looks(style, {pair: label for pair, label in PAIRS.items() if pair in set(table["pair"])})
    chance_handle = Line2D([], [], color=INK, linewidth=0.9, linestyle=_CHANCE, label="By chance")
    figure, axes = panel_columns(panels, [1.9], style, labels, circuit_handles(looks, table, [chance_handle]))
    for column, panel in enumerate(panels):
        ax, shown = axes[0, column], of_panel(table, panel)
        chance = shown.drop_duplicates("k").sort_values("k")
        ax.plot(chance["k"], chance["expected"], color=INK, linewidth=0.9, linestyle=_CHANCE, zorder=1)
        for pair, look in looks.items():
            plot_curve(ax, shown[shown["pair"] == pair], "k", look)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        ax.set_xlabel("Strongest edges of each circuit, k")
        ax.set_ylim(bottom=0)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("Edges shared")
    return figure


def table(overlaps: pd.DataFrame, sub_tasks: Mapping[str, Sequence[str]], labels: MethodLabels) -> Table:
    """Overlaps by pair and k at each run's last checkpoint, beside chance and the published numbers.

    Args:
        overlaps: tables of all runs on compositional tasks.
        sub_tasks: the Add/Sub and the Mul/Div sub-task of each of these tasks.
        labels: of the study's methods.
    """
    found = overlaps.assign(pair=_pairs(overlaps, sub_tasks))
    published = [PUBLISHED.get(key) for key in zip(found["pair"], found["k"], strict=True)]
    found["published"] = pd.Series(published, index=found.index, dtype="float64")
    shown = at_last_checkpoint(found)
    rows = []
    for (model, task), of_task in shown.groupby(["model", "task"], sort=False):
        for method in sorted(of_task["method"].unique(), key=labels.order):
            of_method = of_task[of_task["method"] == method]
            rows += [
                {
                    "Model": str(model),
                    "Task": task_label(str(task)),
                    "Method": labels.of(method),
                    "k": f"{k:,}",
                    **{
                        label: mean_and_spread(of_k[of_k["pair"] == pair].groupby("seed")["overlap"].mean(), 1)
                        for pair, label in PAIRS.items()
                    },
                    "By chance": f"{of_k['expected'].mean():.1f}",
                    f"Published, {MODEL_OF_THE_PAPER}": _published(of_k),
                }
                for k, of_k in of_method.groupby("k")
            ]
    note = (
        "How many of the k strongest edges (absolute score, q, k and v merged) of two circuits are the same, at the "
        "last checkpoint. Mean ± standard deviation over seeds; one seed has no spread. By chance: k x k / edges of "
        "the graph, the mean of the hypergeometric distribution, for edges drawn at random. Own: the circuit of the "
        "compositional task. Union and intersection are those of its sub-tasks' circuits. Numbers k above the edges of "
        "a circuit are left out. Seeds share prompts and base model. Published: own and union / both sub-tasks of Wang "
        f"et al. (2025) on {MODEL_OF_THE_PAPER}, one seed; its graph has other edges, so that the numbers are "
        "comparable only beside chance."
    )
    nothing = pd.DataFrame([{"Compared": _NOTHING.replace("\n", " ")}])
    return Table("Overlaps of circuits", note, found, layout_of(rows) if rows else nothing)


def _published(rows: pd.DataFrame) -> str:
    found = rows.dropna(subset="published").groupby("pair")["published"].first().to_dict()
    return " / ".join(f"{found[pair]:.0f}" for pair in ("union", "sub_tasks") if pair in found) or EMPTY
