"""The table of critical layers by task, method, policy and seed, with their overlaps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of


def table(
    critical_layers: pd.DataFrame, layer_sets: Mapping[str, Mapping[str, Sequence[int]]], labels: MethodLabels
) -> Table:
    """The critical layers by task, method, policy and seed, and the share that other tasks, policies and seeds share.

    Args:
        critical_layers: tables with model, task, name (the method that spends its rank there) and seed.
        layer_sets: the methods that are all sets of layers, by CircuitLoRA; given layers are left out.
        labels: of the study's methods.
    """
    keys = ["model", "task", "name", "policy", "seed"]
    in_sets = {name for sets in layer_sets.values() for name in sets}
    ranked = critical_layers[~critical_layers["name"].isin(in_sets)]
    chosen = ranked[ranked["critical"]].sort_values([*keys, "rank_order"])
    sets = (
        chosen.groupby(keys, sort=False)["layer"]
        .agg(layers=lambda layers: tuple(int(layer) for layer in layers))
        .reset_index()
    )
    rows = []
    for row in sets.to_dict("records"):
        near = sets[(sets["model"] == row["model"])]
        rows.append(
            {
                "Model": row["model"],
                "Task": task_label(row["task"]),
                "Method": labels.of(row["name"]),
                "Policy": row["policy"].replace("_", " "),
                "Seed": str(row["seed"]),
                "Critical layers": ", ".join(map(str, row["layers"])),
                "Shared with other tasks": _mean_overlap(row, near, "task", keys),
                "Shared with other policies": _mean_overlap(row, near, "policy", keys),
                "Shared with other seeds": _mean_overlap(row, near, "seed", keys),
            }
        )
    overlaps = _pairwise_overlaps(sets)
    note = (
        "Layers ranked by how much the edges that leave them changed between the first and the last checkpoint of "
        "phase 1, largest first; by the paper's rule (score change), with scores scaled to unit mass (score change "
        "normalised), or drawn at random. Shared: mean number of these layers that are critical too where only the "
        f"task, the policy or the seed differs. {overlaps}"
    )
    return Table("Critical layers", note.strip(), chosen[[*keys, "rank_order", "layer", "value"]], layout_of(rows))


def _mean_overlap(row: dict[Hashable, Any], sets: pd.DataFrame, differing: str, keys: list[str]) -> str:
    """Mean size of the intersection with the sets that differ from ``row`` in one key only."""
    alike = sets
    for key in keys:
        alike = alike[alike[key] != row[key]] if key == differing else alike[alike[key] == row[key]]
    if alike.empty:
        return EMPTY
    own = set(row["layers"])
    return f"{sum(len(own & set(other)) for other in alike['layers']) / len(alike):.1f} of {len(own)}"


def _pairwise_overlaps(sets: pd.DataFrame) -> str:
    """A sentence with the mean overlap of each pair of tasks, at equal model, method, policy and seed."""
    joined = sets.merge(sets, on=["model", "name", "policy", "seed"], suffixes=("", "_other"))
    phrases = []
    for first, second in combinations(sets["task"].drop_duplicates(), 2):
        pairs = joined[(joined["task"] == first) & (joined["task_other"] == second)]
        if len(pairs):
            shared = [len(set(a) & set(b)) for a, b in zip(pairs["layers"], pairs["layers_other"], strict=True)]
            phrases.append(f"{task_label(first)} and {task_label(second)} {sum(shared) / len(shared):.1f}")
    return f"Mean number of layers shared by tasks: {'; '.join(phrases)}." if phrases else ""
