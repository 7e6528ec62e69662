"""The table of change rates beside those that the paper published for tasks of the same kind."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from circuitdrift.config.given import GIVEN
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import Table, layout_of
from circuitdrift.figures.tidy import RUN
from circuitdrift.verdicts.published import PPO_RATE, RATES, PublishedRate

_MEASURES = {
    "rate_net": "net",
    "rate_cumulative": "cumulative",
    "rate_mean": "mean of transitions",
    "jaccard_distance_net": "Jaccard distance, net",
    "jaccard_distance_mean": "Jaccard distance, mean of transitions",
}
_COLUMNS = [*RUN, "measure", "edges", "lowest_edges", "highest_edges", "nodes", "lowest_nodes", "highest_nodes"]
_COLUMNS += ["edges_over_nodes", "published_edges", "published_nodes", "published_edges_over_nodes", "place", "seeds"]
_REMARK = "The paper's model, steps and definition of the rate differ, so the sizes are compared and nothing is tested."


def table(summary: pd.DataFrame, families: Mapping[str, str], labels: MethodLabels) -> Table:
    """Each of our rates of change of edges and nodes, mean over seeds, in percent, beside the published ones.

    Args:
        summary: change rates of all runs with circuits.
        families: the family of each task.
        labels: of the study's methods.
    """
    tidy = pd.DataFrame(list(_rates(summary, families, labels)), columns=_COLUMNS)
    if tidy.empty:
        note = (
            "No rate of this study has a published counterpart: those are of the tasks comparison, complex IOI and "
            "capital-country, and of reinforcement learning."
        )
        return Table("Change rates beside published ones", note, tidy, pd.DataFrame(columns=["Task", "Method", "Rate"]))
    note = (
        "Changed edges and nodes, base model against last checkpoint (net) or by transition, in percent of the first "
        f"circuit; mean over seeds, lowest and highest in brackets. {_REMARK} The published rate of reinforcement "
        "learning is of PPO, ours of GRPO."
    )
    rows = tidy.to_dict("records")
    return Table("Change rates beside published ones", note, tidy, layout_of([_laid_out(row, labels) for row in rows]))


def _rates(summary: pd.DataFrame, families: Mapping[str, str], labels: MethodLabels) -> Iterator[dict[str, Any]]:
    """One row for each model, task and method with a published rate, and each of our definitions."""
    own = summary[summary["measure"].isin(_MEASURES) & summary["level"].isin(["edge", "node"])]
    for (model, task, method), rows in own.groupby(RUN, sort=False):
        published = _published(families[str(task)], str(method), labels)
        if published is None:
            continue
        by_measure = (100 * rows.set_index(["measure", "seed", "level"])["value"]).unstack("level")
        for measure in _MEASURES:
            of_seeds = by_measure.loc[measure]
            edges, nodes = of_seeds["edge"], of_seeds["node"]
            yield {
                **dict(zip(RUN, (model, task, method), strict=True)),
                "measure": measure,
                **{"edges": edges.mean(), "lowest_edges": edges.min(), "highest_edges": edges.max()},
                **{"nodes": nodes.mean(), "lowest_nodes": nodes.min(), "highest_nodes": nodes.max()},
                "edges_over_nodes": edges.mean() / nodes.mean() if nodes.mean() else float("nan"),
                "published_edges": published.edges,
                "published_nodes": published.nodes,
                "published_edges_over_nodes": published.edges / published.nodes,
                "place": published.place,
                "seeds": len(of_seeds),
            }


def _published(family: str, method: str, labels: MethodLabels) -> PublishedRate | None:
    """The published rate that a run compares with: that of its task, or of reinforcement learning on any task."""
    if method != GIVEN and labels.methods[method].kind == "grpo":
        return PPO_RATE
    return None if method == GIVEN or labels.is_sham(method) else RATES.get(family)


def _laid_out(row: Mapping[Hashable, Any], labels: MethodLabels) -> dict[str, str]:
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Method": labels.of(row["method"]),
        "Rate": _MEASURES[row["measure"]],
        "Edges (%)": _with_range(row, "edges"),
        "Nodes (%)": _with_range(row, "nodes"),
        "Edges / nodes": f"{row['edges_over_nodes']:.1f}",
        "Published: edges (%)": f"{row['published_edges']:.1f}",
        "nodes (%)": f"{row['published_nodes']:.1f}",
        "edges / nodes": f"{row['published_edges_over_nodes']:.1f}",
        "Seeds": str(row["seeds"]),
    }


def _with_range(row: Mapping[Hashable, Any], level: str) -> str:
    value, lowest, highest = (row[name] for name in (level, f"lowest_{level}", f"highest_{level}"))
    return f"{value:.1f}" if lowest == highest else f"{value:.1f} [{lowest:.1f}, {highest:.1f}]"
