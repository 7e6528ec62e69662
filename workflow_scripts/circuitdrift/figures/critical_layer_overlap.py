"""The table of overlaps: how many critical layers tasks, seeds and policies share, beside what chance gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from circuitdrift.allocation.policies import RANDOM
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import without_given_sets

Sets = Bool[np.ndarray, "seed layer"]
"""The critical layers of each seed."""

PERMUTATIONS = 9999
_SEED = 0


def table(
    critical_layers: pd.DataFrame, layer_sets: Mapping[str, Mapping[str, Sequence[int]]], labels: MethodLabels
) -> Table:
    """Mean numbers of critical layers that two tasks, two seeds or two policies share.

    Args:
        critical_layers: tables with model, task, name (the method that spends its rank there) and seed.
        layer_sets: the methods that are all sets of layers, by CircuitLoRA; given layers are left out.
        labels: of the study's methods.
    """
    critical_layers = without_given_sets(critical_layers, layer_sets)
    tidy = pd.DataFrame(
        [row for _, of_model in critical_layers.groupby("model", sort=False) for row in _overlaps(of_model)],
        columns=[*_KEYS, "pairs", "layers", "overlap", "lowest", "highest", "chance", "p_value"],
    )
    rows = [
        {
            "Model": row["model"],
            "Compared": row["compared"],
            "Method": labels.of(row["name"]),
            "Task": " and ".join(map(task_label, row["task"].split(" and "))),
            "Policy": row["policy"].replace("_", " "),
            "Pairs": str(row["pairs"]),
            "Shared layers": _shared(row),
            "By chance": f"{row['chance']:.2f}",
            "p": EMPTY if np.isnan(row["p_value"]) else f"{row['p_value']:.3f}",
        }
        for row in tidy.to_dict("records")
    ]
    note = (
        "How many critical layers two sets share: the mean over pairs, with the lowest and the highest in brackets. "
        "Tasks and policies are compared seed by seed, seeds among themselves. By chance: the mean if layers were "
        "drawn at random, K x K of L (hypergeometric distribution). p: one-sided, of at least this overlap, if all of "
        "one task's layers, or each seed's, were relabelled at random; the seeds of a task keep their own likeness. "
        f"Few layers hardly differ from chance: {_smallest_p(critical_layers)}. Seeds share the prompts and the base "
        "model, so part of their overlap may be noise in common. Policies read the same circuits, so their overlap is "
        "not tested."
    )
    empty = pd.DataFrame([{"Model": "", "Compared": "nothing to compare: one task, one seed and one policy"}])
    return Table("Overlap of critical layers", note, tidy, layout_of(rows) if rows else empty.drop(columns="Model"))


_KEYS = ["compared", "model", "name", "task", "policy"]


def _overlaps(of_model: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One row for each pair of tasks, for the seeds of each task, and for each pair of policies."""
    model = of_model["model"].iloc[0]
    for name, of_method in of_model.groupby("name", sort=False):
        sets = {key: _sets(rows) for key, rows in of_method.groupby(["task", "policy"], sort=False)}
        tasks, policies = (list(dict.fromkeys(of_method[column])) for column in ("task", "policy"))
        for policy in policies:
            for pair in combinations(tasks, 2):
                one, other = (sets[task, policy] for task in pair)
                named = ("tasks", model, name, " and ".join(pair), policy)
                yield _row(named, shared_by_seed(one, other), one, other, p_of_two_tasks(one, other))
        for (task, policy), own in sets.items():
            if len(own) > 1:
                p_value = p_of_seeds(own)
                yield _row(("seeds", model, name, task, policy), shared_by_pairs(own), own, own, p_value)
        for task in tasks:
            for pair in combinations(policies, 2):
                one, other = (sets[task, policy] for policy in pair)
                named = ("policies", model, name, task, " and ".join(pair))
                yield _row(named, shared_by_seed(one, other), one, other, float("nan"))


def _row(named: tuple[Any, ...], shared: np.ndarray, one: Sets, other: Sets, p_value: float) -> dict[str, Any]:
    n_layers = one.shape[1]
    return {
        **dict(zip(_KEYS, named, strict=True)),
        "pairs": len(shared),
        "layers": n_layers,
        "overlap": float(shared.mean()),
        "lowest": int(shared.min()),
        "highest": int(shared.max()),
        "chance": float(one.sum(axis=1).mean() * other.sum(axis=1).mean() / n_layers),
        "p_value": p_value,
    }


def _sets(rows: pd.DataFrame) -> Sets:
    """Whether each layer is critical, by seed in ascending order."""
    sets: Sets = rows.pivot_table("critical", "seed", "layer", aggfunc="any").to_numpy(dtype=bool)
    return sets


def shared_by_seed(one: Sets, other: Sets) -> np.ndarray:
    """The numbers of layers that two sets of one seed share."""
    shared: np.ndarray = (one & other).sum(axis=1)
    return shared


def shared_by_pairs(sets: Sets) -> np.ndarray:
    """The numbers of layers that each two seeds share."""
    return np.array([(sets[first] & sets[second]).sum() for first, second in combinations(range(len(sets)), 2)])


def p_of_two_tasks(one: Sets, other: Sets) -> float:
    """The p-value of the overlap if one task's layers are relabelled at random, alike for all seeds.

    With one seed this is the upper tail of the hypergeometric distribution.
    """
    generator = np.random.default_rng(_SEED)
    observed = shared_by_seed(one, other).sum()
    relabelled = (other[:, generator.permutation(other.shape[1])] for _ in range(PERMUTATIONS))
    return _p_value(observed, [shared_by_seed(one, each).sum() for each in relabelled])


def p_of_seeds(sets: Sets) -> float:
    """The p-value of the overlap of seeds if the layers of each are relabelled at random."""
    generator = np.random.default_rng(_SEED)
    drawn = (generator.permuted(sets, axis=1) for _ in range(PERMUTATIONS))
    return _p_value(shared_by_pairs(sets).sum(), [shared_by_pairs(each).sum() for each in drawn])


def _p_value(observed: int, under_chance: list[int]) -> float:
    return float((1 + np.sum(np.array(under_chance) >= observed)) / (1 + len(under_chance)))


def _shared(row: dict[Any, Any]) -> str:
    spread = f" [{row['lowest']}, {row['highest']}]" if row["pairs"] > 1 else ""
    return f"{row['overlap']:.2f}{spread}"


def _smallest_p(critical_layers: pd.DataFrame) -> str:
    """What two equal sets of one seed give, for the first set of critical layers."""
    drift = critical_layers[critical_layers["policy"] != RANDOM]
    rows = drift if len(drift) else critical_layers
    first = rows.groupby(["model", "task", "name", "policy", "seed"], sort=False)["critical"].agg(["sum", "size"])
    critical, layers = int(first["sum"].max()), int(first["size"].iloc[0])
    return f"two equal sets of {critical} of {layers} layers give p = {1 / comb(layers, critical):.3f}"
