"""The table of how early, and over what, the order of the layers by change stays the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.config.methods import LoraMethod
from circuitdrift.drift.early_signal import (
    Values,
    nearest_to_first_epoch,
    rank_correlation,
    shared_by_chance,
    shared_layers,
)
from circuitdrift.figures.controls import interval_of_pairs
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import student_interval

EPOCH, RANKS, TASKS, SEEDS = "after 1 epoch and last", "ranks", "tasks", "seeds"
_KEYS = ["comparison", "model", "task", "method", "policy"]
_NUMBERS = ["correlation", "overlap"]

Run = tuple[str, str, int]
"""Task, method and seed of a run."""
Pair = tuple[tuple[str, str, str], tuple[int, int], Values, Values]
"""What is compared, with its task and method; the seeds of both sides; the change of each layer on both sides."""


def table(layer_orders: pd.DataFrame, top_layers: int, labels: MethodLabels) -> Table:
    """Correlations and overlaps of orders of layers, with intervals over seeds.

    Args:
        layer_orders: layer_orders tables of all runs with circuits.
        top_layers: number of layers whose overlap is counted.
        labels: of the study's methods.
    """
    pairs = pd.DataFrame(compared_pairs(layer_orders, top_layers, labels), columns=_COLUMNS_OF_PAIRS)
    tidy = pd.DataFrame(
        [
            dict(zip(_KEYS, names, strict=True)) | {"top": top_layers} | over_seeds(of_seeds)
            for names, of_seeds in pairs.groupby(_KEYS, sort=False)
        ]
    )
    rows = [_laid_out(row, labels) for row in tidy.to_dict("records")]
    note = (
        "The layers in the order of their change from the base model, compared between two orders. After 1 epoch "
        "and last: two checkpoints of a run, that nearest to the end of the first epoch and the last. Ranks: the "
        "last checkpoints of LoRA with the lowest and with the highest rank, same seed. Tasks: every two tasks, "
        "same method and seed. Seeds: every two seeds. Correlation: Spearman's, of all layers. Shared: layers that "
        f"both orders have among their first {top_layers}. By chance: the mean in random orders, K x K of L. "
        "Brackets: 95 % Student intervals over seeds; pairs of tasks are averaged within a seed first; pairs of "
        "seeds share seeds, so theirs comes from a jackknife that leaves out a seed, of three or more. They cover "
        "other seeds, not other prompts, tasks or models. Two orders share the base model and its prompts, so they "
        "are alike by its noise too."
    )
    empty = pd.DataFrame([{"Compared": "nothing to compare: one task, one seed, one rank and no later epoch"}])
    return Table("Early signal of the critical layers", note, tidy, layout_of(rows) if rows else empty)


_COLUMNS_OF_PAIRS = [*_KEYS, "seed_a", "seed_b", "correlation", "overlap", "expected", "layers"]


def compared_pairs(layer_orders: pd.DataFrame, top: int, labels: MethodLabels) -> Iterator[dict[str, Any]]:
    """Every pair of orders that is compared, with the seeds of its two sides."""
    for (model, policy), rows in layer_orders.groupby(["model", "policy"], sort=False):
        last, early = _orders(rows)
        pairs = [*_of_epochs(early, last), *_of_ranks(last, labels), *_of_tasks(last), *_of_seeds(last)]
        for (comparison, task, method), seeds, one, other in pairs:
            named = dict(zip(_KEYS, (comparison, model, task, method, policy), strict=True))
            yield named | {
                "seed_a": seeds[0],
                "seed_b": seeds[1],
                "correlation": rank_correlation(one, other),
                "overlap": shared_layers(one, other, top),
                "expected": shared_by_chance(one, other, top),
                "layers": len(one),
            }


def _orders(rows: pd.DataFrame) -> tuple[dict[Run, Values], dict[Run, Values]]:
    """The change of each layer at the last checkpoint of each run, and after about one epoch where more follow."""
    last: dict[Run, Values] = {}
    early: dict[Run, Values] = {}
    for (task, method, _), of_run in rows.groupby(["task", "method", "seed"], sort=False):
        by_checkpoint = of_run.pivot(index="checkpoint", columns="layer", values="value").sort_index()
        run = (str(task), str(method), int(of_run["seed"].iloc[0]))
        last[run] = by_checkpoint.iloc[-1].to_numpy()
        nearest = nearest_to_first_epoch(of_run.groupby("checkpoint")["epoch"].first().sort_index().tolist())
        if nearest is not None:
            early[run] = by_checkpoint.iloc[nearest].to_numpy()
    return last, early


def _of_epochs(early: Mapping[Run, Values], last: Mapping[Run, Values]) -> Iterator[Pair]:
    for (task, method, seed), values in early.items():
        yield (EPOCH, task, method), (seed, seed), values, last[task, method, seed]


def _of_ranks(last: Mapping[Run, Values], labels: MethodLabels) -> Iterator[Pair]:
    """The lowest and the highest rank of LoRA that the study has circuits of."""
    ranks = {
        name: method.rank
        for name, method in labels.methods.items()
        if isinstance(method, LoraMethod) and method.answers == "own" and any(name == run[1] for run in last)
    }
    if len(set(ranks.values())) < 2:
        return
    low, high = (pick(ranks, key=lambda name: ranks[name]) for pick in (min, max))
    for (task, method, seed), values in last.items():
        if method == low and (task, high, seed) in last:
            yield (RANKS, task, f"{low} and {high}"), (seed, seed), values, last[task, high, seed]


def _of_tasks(last: Mapping[Run, Values]) -> Iterator[Pair]:
    """Every two tasks of each method and seed."""
    for one, other in combinations(last, 2):
        if one[1:] == other[1:]:
            yield (TASKS, "all", one[1]), (one[2], one[2]), last[one], last[other]


def _of_seeds(last: Mapping[Run, Values]) -> Iterator[Pair]:
    """Every two seeds of each task and method."""
    for one, other in combinations(last, 2):
        if one[:2] == other[:2]:
            yield (SEEDS, *one[:2]), (one[2], other[2]), last[one], last[other]


def over_seeds(pairs: pd.DataFrame) -> dict[str, Any]:
    """Means of one comparison's pairs, with intervals over seeds."""
    between_seeds = (pairs["seed_a"] != pairs["seed_b"]).all()
    of_seeds = pairs.groupby("seed_a")[_NUMBERS].mean()
    numbers: dict[str, Any] = {"layers": int(pairs["layers"].iloc[0]), "pairs": len(pairs)}
    numbers["seeds"] = len({*pairs["seed_a"], *pairs["seed_b"]})
    for name in _NUMBERS:
        if between_seeds:
            _, lower, upper = interval_of_pairs(pairs.assign(jaccard=pairs[name], checkpoint="last"))
        else:
            lower, upper = student_interval(of_seeds[name])
        mean = float(pairs[name].mean(skipna=False))
        numbers |= {name: mean, f"{name}_lower": lower, f"{name}_upper": upper}
    return numbers | {"expected": float(pairs["expected"].mean())}


def _laid_out(row: Mapping[Any, Any], labels: MethodLabels) -> dict[str, str]:
    methods = " and ".join(map(labels.of, row["method"].split(" and ")))
    return {
        "Model": row["model"],
        "Compared": row["comparison"],
        "Method": methods,
        "Task": "every two" if row["comparison"] == TASKS else task_label(row["task"]),
        "Policy": row["policy"].replace("_", " "),
        "Pairs": str(row["pairs"]),
        "Correlation": _with_interval(row, "correlation", -1.0, 1.0),
        "Shared": f"{_with_interval(row, 'overlap', 0.0, row['top'])} of {row['top']}",
        "By chance": f"{row['expected']:.2f}",
    }


def _with_interval(row: Mapping[Any, Any], name: str, lowest: float, highest: float) -> str:
    """A number with its interval, cut at the values that the number can have."""
    if np.isnan(row[name]):
        return EMPTY
    lower, upper = np.clip([row[f"{name}_lower"], row[f"{name}_upper"]], lowest, highest)
    return f"{row[name]:.2f}" + ("" if np.isnan(lower) else f" [{lower:.2f}, {upper:.2f}]")
