"""What is measured of accuracies: CircuitLoRA by the paper's rule less each of its baselines, in points.

Answers are paired by prompt and seed. Each comparison gives one value for each task, seed and CircuitLoRA, with the
half-width that other prompts give it (docs/method.md#verdicts).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitdrift.comparisons import half_width_of_prompts
from circuitdrift.config.methods import RandomLoraMethod
from circuitdrift.method_pairs import are_of_equal_size, compute_ratio, planned_pairs
from circuitdrift.verdicts.decision import Measured, nothing_measured
from circuitdrift.verdicts.tables import Tables

NO_CIRCUIT_LORA = "the study has no CircuitLoRA by the paper's rule"
Answers = Float[np.ndarray, "seed prompt"]


def over_lora(tables: Tables) -> Measured:
    """CircuitLoRA less LoRA with exactly as many parameters and steps."""
    pairs = [
        (task, name, [other])
        for task, runs in _by_task(tables)
        for name in _circuit_loras(tables, runs)
        for other in _of_kind(tables, runs, "lora")
        if are_of_equal_size(runs, name, other)
    ]
    return _compare(tables, pairs, "the study has no LoRA of exactly equal size")


def over_lora_of_equal_compute(tables: Tables) -> Measured:
    """CircuitLoRA less LoRA with as many parameters and as many FLOPs, those of phase 1 included."""
    pairs, ratios = [], []
    for task, runs in _by_task(tables):
        for pair in planned_pairs(runs, tables.methods):
            if pair.basis == "compute" and pair.method in tables.paper_circuit_loras:
                pairs.append((task, pair.method, [pair.other]))
                ratios.append(compute_ratio(runs, pair.method, pair.other))
    remark = f"FLOPs with phase 1 {min(ratios):.2f} to {max(ratios):.2f} times those of LoRA" if ratios else ""
    return _compare(tables, pairs, "the study has no LoRA of equal size trained with as many FLOPs", remark)


def over_adalora(tables: Tables) -> Measured:
    """CircuitLoRA less AdaLoRA: for each AdaLoRA the CircuitLoRA that is nearest in size."""
    pairs, sizes = [], []
    for task, runs in _by_task(tables):
        parameters = runs.groupby("method")["trainable_parameters"].mean()
        for other in _of_kind(tables, runs, "adalora"):
            ratios = {name: parameters[other] / parameters[name] for name in _circuit_loras(tables, runs)}
            if ratios:
                nearest = min(ratios, key=lambda name: abs(math.log(ratios[name])))
                pairs.append((task, nearest, [other]))
                sizes.append(ratios[nearest])
    differ = any(size != 1 for size in sizes)
    remark = f"sizes differ: AdaLoRA has {min(sizes):.2f} to {max(sizes):.2f} times the parameters" if differ else ""
    return _compare(tables, pairs, "the study has no AdaLoRA", remark)


def over_random_lora(tables: Tables) -> Measured:
    """CircuitLoRA less the mean of all draws of RandomLoRA of equal size; draws with given layers are left out."""
    methods = tables.methods.items()
    drawn = {
        name
        for name, method in methods
        if isinstance(method, RandomLoraMethod) and not method.include_layers and not method.exclude_layers
    }
    pairs = []
    for task, runs in _by_task(tables):
        for name in _circuit_loras(tables, runs):
            draws = [
                o for o in _of_kind(tables, runs, "random_lora") if o in drawn and are_of_equal_size(runs, name, o)
            ]
            pairs += [(task, name, draws)] if draws else []
    return _compare(tables, pairs, "the study has no RandomLoRA of equal size")


def _by_task(tables: Tables) -> Iterator[tuple[str, pd.DataFrame]]:
    """The runs of each task."""
    if len(tables.runs):
        for task, runs in tables.runs.groupby("task", sort=False):
            yield str(task), runs


def _circuit_loras(tables: Tables, runs: pd.DataFrame) -> list[str]:
    return [name for name in tables.paper_circuit_loras if name in set(runs["method"])]


def _of_kind(tables: Tables, runs: pd.DataFrame, kind: str) -> list[str]:
    methods, trained = tables.methods.items(), set(runs["method"])
    return [n for n, m in methods if m.kind == kind and m.answers == "own" and n in trained]


def _compare(
    tables: Tables, pairs: Sequence[tuple[str, str, Sequence[str]]], lacking: str, remark: str = ""
) -> Measured:
    """Differences in points, a row for each pair and seed.

    Args:
        tables: of one model.
        pairs: task, CircuitLoRA, and the methods whose mean it is compared with.
        lacking: the remark where there are no pairs.
        remark: what a reader has to know.
    """
    if not pairs:
        return nothing_measured(lacking if tables.paper_circuit_loras else NO_CIRCUIT_LORA)
    rows = []
    for task, name, others in pairs:
        one = _answers(tables, task, name)
        baselines = [_answers(tables, task, other) for other in others]
        differences = one.to_numpy() - np.mean([other.loc[one.index, one.columns] for other in baselines], axis=0)
        half_width = half_width_of_prompts(differences)
        for seed, value in zip(one.index, differences.mean(axis=1), strict=True):
            rows.append((task, int(seed), 100 * float(value), 100 * half_width))
    return Measured(pd.DataFrame(rows, columns=["task", "seed", "value", "half_width"]), remark)


def _answers(tables: Tables, task: str, method: str) -> pd.DataFrame:
    """Whether each seed's model is right on each prompt, as 0 and 1."""
    found = tables.predictions
    rows = found[(found["task"] == task) & (found["method"] == method)]
    return rows.pivot(index="seed", columns="example_id", values="correct").astype(float)
