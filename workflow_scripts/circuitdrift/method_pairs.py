"""Which methods are compared with a CircuitLoRA: those of its size, and a LoRA that costs as much with phase 1.

A pair of equal size trains exactly as many parameters for as many steps. A pair of equal compute trains as many
parameters with as many FLOPs, those of CircuitLoRA's phase 1 included. See docs/method.md#comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from circuitdrift.config.methods import CircuitLoraMethod, MethodConfig

EQUAL_COMPUTE = 0.1
"""How far the FLOPs of two methods may differ, as a share of the smaller number, to count as equal."""

_RUN = ["model", "task", "method", "seed"]
Basis = Literal["parameters", "compute"]


@dataclass(frozen=True)
class Pair:
    """Two methods that are compared, and what they have in common; of planned pairs the first is a CircuitLoRA."""

    method: str
    other: str
    basis: Basis


def runs_with_costs(
    accuracy: pd.DataFrame,
    training_log: pd.DataFrame,
    phase_1: Mapping[str, str],
    united: Mapping[str, Mapping[str, Sequence[str]]],
) -> pd.DataFrame:
    """Size and cost of each run at its last checkpoint.

    Args:
        accuracy: accuracy tables of all runs, which hold the number of trained parameters.
        training_log: training logs of all runs, which hold the FLOPs.
        phase_1: the method that is the phase 1 of each method that has one.
        united: for each method that follows the union of sub-tasks' circuits, the sub-tasks of each task.

    Returns:
        model, task, method, seed, trainable_parameters, steps, flops (the run's own) and total_flops (with phase 1, on
        three tasks where it follows a union; null where the FLOPs of phase 1 are not known, as of checkpoints that
        were trained elsewhere).
    """
    tested = accuracy[accuracy["split"] == "test"]
    last = tested[tested["checkpoint"] == tested.groupby(_RUN)["checkpoint"].transform("max")]
    runs = last.rename(columns={"step": "steps"})[[*_RUN, "trainable_parameters", "steps"]]
    flops = training_log.groupby(_RUN, sort=False)["flops"].max().reset_index()
    runs = runs.merge(flops, on=_RUN)
    runs = runs.assign(phase_1=runs["method"].map(dict(phase_1)).astype(object))
    led = phase_1_runs(runs, united).merge(
        flops.rename(columns={"task": "phase_1_task", "method": "phase_1"}),
        on=["model", "phase_1_task", "phase_1", "seed"],
        how="left",
    )
    of_phase_1 = led.groupby(_RUN)["flops"].agg(lambda counted: counted.sum(skipna=False)).rename("phase_1_flops")
    runs = runs.merge(of_phase_1, left_on=_RUN, right_index=True, how="left")
    added = runs["phase_1_flops"].where(runs["phase_1"].notna(), 0.0)
    return runs.assign(total_flops=runs["flops"] + added)[
        [*_RUN, "trainable_parameters", "steps", "flops", "total_flops"]
    ]


def phase_1_runs(runs: pd.DataFrame, united: Mapping[str, Mapping[str, Sequence[str]]]) -> pd.DataFrame:
    """The runs that each run needs as its phase 1: on its own task, and on the sub-tasks whose union it follows.

    Args:
        runs: model, task, method, seed and phase_1 (a method; null without one).
        united: for each method that follows the union of sub-tasks' circuits, the sub-tasks of each task.

    Returns:
        The same columns and phase_1_task, one row for each run and task of its phase 1.
    """
    return pd.DataFrame(
        [
            {**run, "phase_1_task": task}
            for run in runs.dropna(subset="phase_1")[[*_RUN, "phase_1"]].to_dict("records")
            for task in (run["task"], *united.get(run["method"], {}).get(run["task"], ()))
        ],
        columns=[*_RUN, "phase_1", "phase_1_task"],
    )


def are_of_equal_size(runs: pd.DataFrame, one: str, other: str) -> bool:
    """Whether two methods train equally many parameters for equally many steps, with every seed.

    Args:
        runs: rows of :func:`runs_with_costs` of one model and task.
        one: a method.
        other: another method.
    """
    return _by_seed(runs, one, "trainable_parameters", "steps") == _by_seed(
        runs, other, "trainable_parameters", "steps"
    )


def planned_pairs(runs: pd.DataFrame, methods: Mapping[str, MethodConfig]) -> list[Pair]:
    """The comparisons of a model and task that a study is made for: each CircuitLoRA against its baselines.

    The inverted CircuitLoRA is a control and counts as a baseline. Each other one is paired with each method of its
    size, and at equal compute with the plain LoRA of as many parameters whose FLOPs are nearest to its own with phase
    1, if they differ by at most :data:`EQUAL_COMPUTE`. Controls on permuted answers do not compete.

    Args:
        runs: rows of :func:`runs_with_costs` of one model and task.
        methods: the study's methods.
    """
    trained = [name for name in methods if name in set(runs["method"]) and methods[name].answers == "own"]
    circuit_loras = [name for name in trained if _follows_drift(methods[name])]
    pairs: list[Pair] = []
    for place, name in enumerate(circuit_loras):
        others = [other for other in trained if other not in circuit_loras[: place + 1]]
        pairs += [Pair(name, other, "parameters") for other in others if are_of_equal_size(runs, name, other)]
        if costly := _lora_of_equal_compute(runs, name, [o for o in others if methods[o].kind == "lora"]):
            pairs.append(Pair(name, costly, "compute"))
    return pairs


def _follows_drift(method: MethodConfig) -> bool:
    return isinstance(method, CircuitLoraMethod) and method.allocation != "inverted"


def compute_ratio(runs: pd.DataFrame, one: str, other: str) -> float:
    """FLOPs of one method over those of another, phase 1 included, means over seeds."""
    costs = runs.groupby("method")["total_flops"].mean()
    return float(costs[one] / costs[other])


def _lora_of_equal_compute(runs: pd.DataFrame, circuit_lora: str, loras: list[str]) -> str | None:
    """The LoRA of as many parameters whose FLOPs are nearest to those of a CircuitLoRA with phase 1, if near enough."""
    sizes = {name: _by_seed(runs, name, "trainable_parameters") for name in (circuit_lora, *loras)}
    apart = {}
    for name in loras:
        if sizes[name] == sizes[circuit_lora]:
            ratio = compute_ratio(runs, circuit_lora, name)
            apart[name] = max(ratio, 1 / ratio) - 1
    near = {name: difference for name, difference in apart.items() if difference <= EQUAL_COMPUTE}
    return min(near, key=near.__getitem__) if near else None


def _by_seed(runs: pd.DataFrame, method: str, *columns: str) -> dict[int, tuple[int, ...]]:
    rows = runs[runs["method"] == method]
    return {int(row["seed"]): tuple(int(row[column]) for column in columns) for _, row in rows.iterrows()}
