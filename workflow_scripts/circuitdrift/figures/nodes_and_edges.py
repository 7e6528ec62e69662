"""The table of nodes against edges: whether edges drift more than the noise of circuits says, by task and method."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.drift.changes import ratio
from circuitdrift.drift.nodes_and_edges import MARGIN, quotient_of_seeds
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import RUN, base_against_last, of_most_prompts

UNDEFINED = "undefined"


def table(nodes_and_edges: pd.DataFrame, labels: MethodLabels) -> Table:
    """Ratios of drift and of noise, their quotient with its interval, and a verdict, by task, method and measure."""
    net = of_most_prompts(base_against_last(nodes_and_edges))
    runs = [
        {**dict(zip([*RUN, "measure"], names, strict=True)), **_over_seeds(rows)}
        for names, rows in net.groupby([*RUN, "measure"], sort=False)
    ]
    ordered = [
        row
        for _, of_task in pd.DataFrame(runs).groupby(["model", "task"], sort=False)
        for row in sorted(of_task.to_dict("records"), key=lambda row: labels.order(row["method"]))
    ]
    note = (
        "Base model against last checkpoint, circuits from disjoint halves of the prompts; means over seeds. Ratio, "
        "drift: excess of edges over excess of nodes. Ratio, noise: the same in simulated drift, noise of the run's "
        "own scores that is amplified until the nodes have this excess. Quotient: of the two ratios, 1 where drift "
        "moves edges and nodes as more noise would. Its 95 % interval is Fieller's, over samples of prompts and over "
        "drifts: other seeds, where there are several, and other samples of the noise. It is undefined where nodes do "
        "not surely drift. Verdict: edges drift more than noise's own ratio says if their excess is surely larger than "
        f"that of simulated drift; no more than noise if it is surely less than {MARGIN} times as large; otherwise "
        "unresolved, with the number of prompts that would be about enough if the drift is as estimated."
    )
    layout = layout_of([_laid_out(row, labels) for row in ordered])
    return Table("Drift of nodes and of edges", note, pd.DataFrame(runs), layout)


def _over_seeds(rows: pd.DataFrame) -> dict[str, Any]:
    """One method's numbers by one measure from its seeds' rows."""
    columns = ["edge_variance", "covariance", "covariance", "expected_variance"]
    covariances = rows[columns].to_numpy().reshape(-1, 2, 2)
    pairs, variances = rows[["edge_excess", "expected"]].to_numpy(), rows["drift_variance"].to_numpy()
    quotient = quotient_of_seeds(pairs, covariances, variances, int(rows["folds"].min()))
    lower, upper = quotient.interval()
    names = ("edge_excess", "node_excess", "expected", "edge_noise", "node_noise")
    means = {name: float(rows[name].mean(skipna=False)) for name in names}
    prompts = 2 * int(rows["examples"].max())
    return {
        "seeds": rows["seed"].nunique(),
        "prompts": prompts,
        **means,
        "ratio_drift": ratio(means["edge_excess"], means["node_excess"]),
        "ratio_noise": ratio(means["expected"], means["node_excess"]),
        "ratio_within": ratio(means["edge_noise"], means["node_noise"]),
        "quotient": quotient.value,
        "lower": lower,
        "upper": upper,
        "verdict": quotient.verdict(prompts),
    }


def _laid_out(row: Mapping[Hashable, Any], labels: MethodLabels) -> dict[str, str]:
    defined = np.isfinite(row["quotient"])
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Method": labels.of(row["method"]),
        "Measure": row["measure"],
        "Seeds": str(row["seeds"]),
        "Prompts": f"{row['prompts']:,}",
        "Excess, edges": _number(row["edge_excess"], 3),
        "Excess, nodes": _number(row["node_excess"], 3),
        "Ratio, drift": _number(row["ratio_drift"], 2) if defined else UNDEFINED,
        "Ratio, noise": _number(row["ratio_noise"], 2) if defined else UNDEFINED,
        "Quotient": f"{row['quotient']:.2f} [{row['lower']:.2f}, {row['upper']:.2f}]" if defined else UNDEFINED,
        "Verdict": row["verdict"],
    }


def _number(value: float, decimals: int) -> str:
    return EMPTY if np.isnan(value) else f"{value:.{decimals}f}"
