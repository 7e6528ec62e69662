"""The table of verdicts: what a study says on each claim of the paper, one row for each claim and model."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import at_last_checkpoint, base_against_last, of_most_prompts
from circuitdrift.method_pairs import runs_with_costs
from circuitdrift.verdicts.tables import Tables
from circuitdrift.verdicts.tabulation import tabulate_verdicts

Read = pd.DataFrame | list[Path]
"""A table, or the empty list of files that a study lacks."""


def table(
    accuracy: pd.DataFrame,
    predictions: pd.DataFrame,
    training_log: pd.DataFrame,
    faithfulness: Read,
    reliability: Read,
    nodes_and_edges: Read,
    summary: Read,
    transitions: Read,
    robustness: Read,
    untrained_robustness: Read,
    where: Read,
    node_induced: Read,
    layer_orders: Read,
    union_faithfulness: Read,
    overlaps: Read,
    phase_1: Mapping[str, str],
    united: Mapping[str, Mapping[str, Sequence[str]]],
    sham_twins: Mapping[str, str],
    fraction: float,
    labels: MethodLabels,
) -> Table:
    """Each claim with the published and the measured number, its interval and the verdict.

    Args:
        accuracy: accuracy tables of all runs.
        predictions: which test prompts each run answers correctly.
        training_log: training logs of all runs.
        faithfulness: of circuits at all checkpoints.
        reliability: drift of runs against noise.
        nodes_and_edges: drift of edges against that of nodes.
        summary: change rates of runs.
        transitions: changes between neighbouring checkpoints.
        robustness: circuits of perturbed prompts and of disjoint splits.
        untrained_robustness: the same of untrained models.
        where: changes by layer.
        node_induced: edge changes that node changes induce.
        layer_orders: order of the layers by checkpoint.
        union_faithfulness: of union circuits.
        overlaps: common edges of circuits.
        phase_1: the method that is the phase 1 of each method that has one.
        united: for each method that follows the union of sub-tasks' circuits, the sub-tasks of each task.
        sham_twins: for each method on permuted answers, the same method on its own answers.
        fraction: share of the edges that a circuit keeps.
        labels: of the study's methods.
    """
    tables = Tables(
        methods=labels.methods,
        phase_1=phase_1,
        sham_twins=sham_twins,
        fraction=fraction,
        runs=runs_with_costs(accuracy, training_log, phase_1, united),
        predictions=at_last_checkpoint(predictions),
        faithfulness=_frame(faithfulness),
        reliability=_largest_net(reliability),
        nodes_and_edges=_largest_net(nodes_and_edges),
        summary=_frame(summary),
        transitions=_frame(transitions),
        robustness=_frame(robustness),
        untrained_robustness=_frame(untrained_robustness),
        where=_frame(where),
        node_induced=_frame(node_induced),
        layer_orders=_frame(layer_orders),
        union_faithfulness=_frame(union_faithfulness),
        overlaps=_frame(overlaps),
    )
    models = dict.fromkeys(accuracy["model"])
    tidy = pd.concat([tabulate_verdicts(tables, model) for model in models], ignore_index=True)
    counts = tidy["verdict"].value_counts()
    counted = ", ".join(
        f"{counts.get(verdict, 0)} {verdict}" for verdict in ("supported", "not supported", "undecided")
    )
    note = (
        f"{counted}. Measured: mean over tasks, then over seeds, with its 95 % Student interval over seeds; with one "
        "seed over tasks, if there are three. The interval covers other seeds, not other tasks, models or training "
        "recipes. Supported: the interval lies wholly on the claimed side of the null; not supported: wholly on the "
        "other side; undecided: neither, and the remark says why. p (Holm): corrected over the comparisons of "
        "accuracy, and over the other claims; the verdict on a comparison of accuracy also asks that it is below .05. "
        "Published: of other models, tasks and recipes; only the stated nulls decide anything."
    )
    return Table("Verdicts on the claims of the paper", note, tidy, layout_of([_laid_out(row) for row in _rows(tidy)]))


def _frame(read: Read) -> pd.DataFrame:
    return read if isinstance(read, pd.DataFrame) else pd.DataFrame()


def _largest_net(read: Read) -> pd.DataFrame:
    """Base model against last checkpoint, from the largest halves of the prompts."""
    found = _frame(read)
    return of_most_prompts(base_against_last(found)) if len(found) else found


def _rows(tidy: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return tidy.to_dict("records")


def _laid_out(row: Mapping[Hashable, Any]) -> dict[str, str]:
    null = f"{row['null']:g}" if math.isnan(row["margin"]) else f"{row['null']:g} ± {row['margin']:g}"
    return {
        "Model": row["model"],
        "Claim": row["claim"],
        "Verdict": row["verdict"],
        "Measured": _measured(row),
        "Claimed": f"{row['claimed']} {null} ({row['unit']})",
        "Published": row["published"] or EMPTY,
        "p (Holm)": EMPTY if math.isnan(row["p_holm"]) else f"{row['p_holm']:.2g}",
        "Over": _replicates(row) if row["replicates"] else EMPTY,
        "Remark": row["remark"] or EMPTY,
    }


def _replicates(row: Mapping[Hashable, Any]) -> str:
    """What the interval is taken over, and the number of tasks behind each seed."""
    tasks = _counted(row["tasks"], "task")
    return tasks if row["over"] == "tasks" else f"{_counted(row['replicates'], 'seed')}, {tasks}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _measured(row: Mapping[Hashable, Any]) -> str:
    if math.isnan(row["measured"]):
        return EMPTY
    value = f"{row['measured']:.2f}"
    return value if math.isnan(row["lower"]) else f"{value} [{row['lower']:.2f}, {row['upper']:.2f}]"
