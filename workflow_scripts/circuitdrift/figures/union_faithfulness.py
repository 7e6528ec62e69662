"""Faithfulness of united circuits on the compositional task, by size: a figure and a table."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from circuitdrift.config.figures import Figures
from circuitdrift.figures.compositions import (
    MODEL_OF_THE_PAPER,
    circuit_handles,
    circuit_looks,
    mean_and_spread,
    of_panel,
    panel_columns,
    panels_of,
)
from circuitdrift.figures.curves import plot_curve
from circuitdrift.figures.labels import MethodLabels, circuit_label, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.style import MUTED
from circuitdrift.figures.tidy import RUN, FigureDataError, at_last_checkpoint, in_percent, with_seed_means

KINDS = ("own", "union", "intersection", "random_union", "unrelated_union")
_MEASURES = {"kl_model_circuit": "To the model", "kl_from_corrupted": "From corrupted (paper)"}
_AXES = {"kl_model_circuit": "Faithfulness (%)\nto the model", "kl_from_corrupted": "Faithfulness (%)\nfrom corrupted"}
_SIZES = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1)
PUBLISHED = {
    ("own", 0.05): 96.86,
    **{("union", s): v for s, v in zip(_SIZES, (67.4, 79.4, 83.7, 87.2, 89.18, 89.4, 89.6, 89.7), strict=True)},
}
"""Faithfulness from corrupted in percent, by circuit and share of edges: Wang et al. (2025), Pythia-1.4B."""


def tidy(union_faithfulness: pd.DataFrame) -> pd.DataFrame:
    """Faithfulness in percent by size and circuit, in the model of each run's last checkpoint.

    Returns:
        model, task, method, ``measure``, ``circuit``, ``size_fraction`` and the columns of
        :func:`circuitdrift.figures.tidy.with_seed_means` for ``value`` and ``n_edges``. Several random unions count as
        one, their mean; ``lower`` and ``upper`` of one seed are then the lowest and the highest draw.

    Raises:
        FigureDataError: the tables hold no rows of the two measures.
    """
    shown = at_last_checkpoint(union_faithfulness)
    shown = shown[shown["metric"].isin(_MEASURES)].dropna(subset="faithfulness")
    if shown.empty:
        raise FigureDataError("union_faithfulness tables: no defined KL; run measure_union_faithfulness again")
    shown = in_percent(shown, ["faithfulness", "lower", "upper"])
    keys = [*RUN, "metric", "circuit", "size_fraction"]
    return with_seed_means(_over_draws(shown, keys), keys, ["faithfulness", "n_edges"]).rename(
        columns={"metric": "measure", "faithfulness": "value"}
    )


def _over_draws(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """One row for each circuit and seed: several draws become their mean, from the lowest to the highest."""
    draws = rows.groupby([*keys, "seed"], sort=False)
    several = draws["draw"].size() > 1
    found = draws[["faithfulness", "n_edges", "lower", "upper"]].mean()
    found["lower"] = draws["faithfulness"].min().where(several, found["lower"])
    found["upper"] = draws["faithfulness"].max().where(several, found["upper"])
    return found.reset_index()


def draw(table: pd.DataFrame, style: Figures, labels: MethodLabels) -> Figure:
    """A row of panels for each measure, a column for each run's task and method, a line for each kind of circuit."""
    kinds = [kind for kind in KINDS if kind in set(table["circuit"])]
    looks = circuit_looks(style, {kind: circuit_label(kind) for kind in kinds})
    panels = panels_of(table)
    figure, axes = panel_columns(panels, [1.4] * len(_AXES), style, labels, circuit_handles(looks, table))
    for column, panel in enumerate(panels):
        shown = of_panel(table, panel)
        for row, (measure, title) in enumerate(_AXES.items()):
            ax = axes[row, column]
            ax.axhline(100, color=MUTED, linewidth=0.8, zorder=1)
            for kind, look in looks.items():
                plot_curve(ax, shown[(shown["measure"] == measure) & (shown["circuit"] == kind)], "size_fraction", look)
            ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
            ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
            ax.tick_params(labelbottom=row == len(_AXES) - 1)
            if ax.get_subplotspec().is_first_col():
                ax.set_ylabel(title)
        axes[-1, column].set_xlabel("Edges selected (%)")
    for row, measure in enumerate(_AXES):
        means = table[(table["measure"] == measure) & (table["statistic"] == "mean")]["value"]
        for ax in axes[row]:
            ax.set_ylim(max(-100.0, min(0.0, means.min())) - 5, 105)
    figure.align_ylabels()
    return figure


def table(union_faithfulness: pd.DataFrame, labels: MethodLabels) -> Table:
    """Faithfulness by size of own circuit, union and controls, beside the published numbers.

    Args:
        union_faithfulness: tables of all runs on compositional tasks.
        labels: of the study's methods.
    """
    found = in_percent(union_faithfulness, ["faithfulness", "lower", "upper"])
    found = in_percent(found, ["difference", "difference_lower", "difference_upper"])
    is_published = found["metric"] == "kl_from_corrupted"
    keys = zip(found["circuit"], found["size_fraction"], strict=True)
    found["published"] = pd.Series([PUBLISHED.get(key) for key in keys], index=found.index, dtype="float64")
    found["published"] = found["published"].where(is_published)
    shown = at_last_checkpoint(found)
    kinds = [kind for kind in KINDS if kind in set(found["circuit"])]
    rows = []
    for (model, task), of_task in shown.groupby(["model", "task"], sort=False):
        for method in sorted(of_task["method"].unique(), key=labels.order):
            for metric, title in _MEASURES.items():
                of_metric = of_task[(of_task["method"] == method) & (of_task["metric"] == metric)]
                rows += [
                    {
                        "Model": str(model),
                        "Task": task_label(str(task)),
                        "Method": labels.of(method),
                        "Measure": title,
                        "Edges (%)": f"{100 * size:g}",
                        **{circuit_label(kind): _cell(of_size, kind) for kind in kinds},
                        "Union less own": _difference(of_size),
                        f"Published, {MODEL_OF_THE_PAPER}": _published(of_size),
                    }
                    for size, of_size in of_metric.groupby("size_fraction")
                ]
    note = (
        "Faithfulness in per cent of circuits run on held-out prompts of the compositional task, in the model of the "
        "last checkpoint. To the model: 1 - KL(model || circuit) / KL(model || corrupted). From corrupted: the paper's "
        "measure, which asks only whether the output moves as far from the corrupted one. All circuits of a row are "
        "cut to the edges of the own circuit. Mean ± standard deviation over seeds, each the mean of its random draws; "
        "with one seed, no spread. Union less own: mean over seeds of the difference, paired by prompt; brackets: with "
        "one seed its 95 % interval over prompts, otherwise the lowest and the highest seed. "
        f"Published: own circuit / union of Wang et al. (2025) on {MODEL_OF_THE_PAPER}, one seed, measured on the "
        "prompts that chose the circuits; not to be expected of another model."
    )
    return Table("Faithfulness of united circuits", note, found, layout_of(rows))


def _cell(rows: pd.DataFrame, kind: str) -> str:
    of_seeds = rows[rows["circuit"] == kind].groupby("seed")["faithfulness"].mean()
    return mean_and_spread(of_seeds, 1)


def _difference(rows: pd.DataFrame) -> str:
    union = rows[rows["circuit"] == "union"]
    if union["difference"].isna().all():
        return EMPTY
    ends = union["difference"].min(), union["difference"].max()
    if len(union) == 1:
        ends = union["difference_lower"].item(), union["difference_upper"].item()
    return f"{union['difference'].mean():+.1f} [{ends[0]:+.1f}, {ends[1]:+.1f}]"


def _published(rows: pd.DataFrame) -> str:
    found = rows.dropna(subset="published").groupby("circuit")["published"].first().to_dict()
    if not found:
        return EMPTY
    return " / ".join(f"{found[kind]:.1f}" if kind in found else EMPTY for kind in ("own", "union"))
