"""What is measured of the order of layers: how early and how cheaply it is known, and whether tasks differ in it.

Each function takes the tables of one model and gives one value for each run (docs/method.md#verdicts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from circuitdrift.config.methods import CircuitLoraMethod, LoraMethod, MethodConfig
from circuitdrift.drift.early_signal import (
    Values,
    nearest_to_first_epoch,
    rank_correlation,
    shared_by_chance,
    shared_layers,
)
from circuitdrift.verdicts.accuracy import NO_CIRCUIT_LORA
from circuitdrift.verdicts.decision import Measured, nothing_measured
from circuitdrift.verdicts.tables import Tables

_POLICY = "score_change"
NO_ORDERS = "the study has no table of the layers' order by checkpoint"
SEEDS_FOR_A_JACKKNIFE = 3


@dataclass(frozen=True)
class OrderPairs:
    """Two orders of each run, by task and seed; where there are none, ``remark`` says what the study lacks."""

    orders: Mapping[tuple[str, int], tuple[Values, Values]]
    remark: str = ""

    def compare(self, measure: Callable[[Values, Values], float]) -> Measured:
        """A measure of the two orders of each run."""
        if not self.orders:
            return nothing_measured(self.remark)
        rows = [(*run, measure(*pair)) for run, pair in self.orders.items()]
        return Measured(pd.DataFrame(rows, columns=["task", "seed", "value"]), self.remark)


def critical_layers_of_low_rank(tables: Tables) -> Measured:
    """Critical layers that phase 1 shares with LoRA of the highest rank, less the number that chance gives."""
    return _low_and_high_rank(tables).compare(partial(shared_beyond_chance, top=_critical_layers(tables)))


def order_of_low_rank(tables: Tables) -> Measured:
    """Spearman's correlation of the layers' order in phase 1 and in LoRA of the highest rank."""
    return _low_and_high_rank(tables).compare(rank_correlation)


def critical_layers_after_one_epoch(tables: Tables) -> Measured:
    """Critical layers of phase 1 after one epoch that are so at its end, less the number that chance gives."""
    return _one_epoch_and_last(tables).compare(partial(shared_beyond_chance, top=_critical_layers(tables)))


def order_after_one_epoch(tables: Tables) -> Measured:
    """Spearman's correlation of the layers' order in phase 1 after one epoch and at its end."""
    return _one_epoch_and_last(tables).compare(rank_correlation)


def shared_beyond_chance(one: Values, other: Values, top: int) -> float:
    """Layers on top of both orders, less the number that random sets of as many layers share on average."""
    return shared_layers(one, other, top) - shared_by_chance(one, other, top)


def layers_differ_by_task(tables: Tables) -> Measured:
    """Critical layers that two tasks share with one seed, less those that two seeds share on one task.

    Pairs of seeds are no independent draws, so the values are pseudo-values of a jackknife over seeds.
    """
    method = _first_circuit_lora(tables)
    if method is None or tables.layer_orders.empty:
        return nothing_measured(NO_CIRCUIT_LORA if method is None else NO_ORDERS)
    orders = _orders(_last(_of_method(tables, method.phase_1)))
    tasks, seeds = sorted({task for task, _ in orders}), sorted({seed for _, seed in orders})
    if len(tasks) < 2 or len(seeds) < SEEDS_FOR_A_JACKKNIFE or len(orders) < len(tasks) * len(seeds):
        return nothing_measured(f"needs phase 1 on two tasks with {SEEDS_FOR_A_JACKKNIFE} seeds")

    def apart(some_seeds: list[int]) -> float:
        return _between_tasks_less_between_seeds(orders, tasks, some_seeds, method.critical_layers)

    left = [apart([seed for seed in seeds if seed != out]) for out in seeds]
    values = [len(seeds) * apart(seeds) - (len(seeds) - 1) * without for without in left]
    return Measured(pd.DataFrame({"task": "all", "seed": seeds, "value": values}), tasks=len(tasks))


def _between_tasks_less_between_seeds(
    orders: dict[tuple[str, int], Values], tasks: list[str], seeds: list[int], top: int
) -> float:
    of_tasks = [((one, seed), (other, seed)) for one, other in combinations(tasks, 2) for seed in seeds]
    of_seeds = [((task, one), (task, other)) for one, other in combinations(seeds, 2) for task in tasks]
    tasks_share, seeds_share = (
        float(np.mean([shared_layers(orders[one], orders[other], top) for one, other in pairs]))
        for pairs in (of_tasks, of_seeds)
    )
    return tasks_share - seeds_share


def _first_circuit_lora(tables: Tables) -> CircuitLoraMethod | None:
    """The first CircuitLoRA by the paper's rule."""
    found = [tables.methods[name] for name in tables.paper_circuit_loras]
    return next((method for method in found if isinstance(method, CircuitLoraMethod)), None)


def _critical_layers(tables: Tables) -> int:
    method = _first_circuit_lora(tables)
    return method.critical_layers if method else 0


def _low_and_high_rank(tables: Tables) -> OrderPairs:
    """The last orders of phase 1 and of LoRA of the highest rank."""
    method = _first_circuit_lora(tables)
    if method is None or tables.layer_orders.empty:
        return OrderPairs({}, NO_CIRCUIT_LORA if method is None else NO_ORDERS)
    low = tables.methods[method.phase_1]
    name = _lora_of_highest_rank(tables, low)
    high = tables.methods.get(name or "")
    if not isinstance(low, LoraMethod) or not isinstance(high, LoraMethod) or name is None:
        return OrderPairs({}, "the study has no LoRA of a higher rank than phase 1 with circuits")
    one, other = (_orders(_last(_of_method(tables, each))) for each in (method.phase_1, name))
    paired = {run: (one[run], other[run]) for run in one if run in other}
    return OrderPairs(paired, f"phase 1 has rank {low.rank}, the other LoRA {high.rank}")


def _lora_of_highest_rank(tables: Tables, low: MethodConfig) -> str | None:
    """The plain LoRA with circuits of the highest rank above that of phase 1; of equal ranks the one as long as it."""
    traced = set(tables.layer_orders["method"])
    higher = {
        name: (method.rank, method.epochs == low.epochs)
        for name, method in tables.methods.items()
        if isinstance(method, LoraMethod) and isinstance(low, LoraMethod)
        if method.answers == "own" and name in traced and method.rank > low.rank
    }
    return max(higher, key=higher.__getitem__) if higher else None


def _one_epoch_and_last(tables: Tables) -> OrderPairs:
    """The orders of phase 1 after one epoch, at the nearest checkpoint, and at its end."""
    method = _first_circuit_lora(tables)
    if method is None or tables.layer_orders.empty:
        return OrderPairs({}, NO_CIRCUIT_LORA if method is None else NO_ORDERS)
    early = {}
    for run, rows in _by_run(_of_method(tables, method.phase_1)):
        epochs = rows.drop_duplicates("checkpoint").sort_values("checkpoint")
        place = nearest_to_first_epoch(epochs["epoch"].tolist())
        if place is not None:
            early[run] = _values(rows[rows["checkpoint"] == epochs["checkpoint"].iloc[place]])
    last = _orders(_last(_of_method(tables, method.phase_1)))
    paired = {run: (early[run], last[run]) for run in early}
    return OrderPairs(paired, "" if paired else "phase 1 has no checkpoint after its first epoch")


def _of_method(tables: Tables, name: str) -> pd.DataFrame:
    orders = tables.layer_orders
    return orders[(orders["method"] == name) & (orders["policy"] == _POLICY)]


def _last(orders: pd.DataFrame) -> pd.DataFrame:
    return orders[orders["checkpoint"] == orders.groupby(["task", "seed"])["checkpoint"].transform("max")]


def _orders(rows: pd.DataFrame) -> dict[tuple[str, int], Values]:
    return {run: _values(of_run) for run, of_run in _by_run(rows)}


def _values(rows: pd.DataFrame) -> Values:
    """The change of each layer, from the rows of one checkpoint."""
    values: Values = rows.sort_values("layer")["value"].to_numpy()
    return values


def _by_run(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
    """The rows of each task and seed."""
    for task in dict.fromkeys(rows["task"]):
        of_task = rows[rows["task"] == task]
        for seed in dict.fromkeys(of_task["seed"]):
            yield (str(task), int(seed)), of_task[of_task["seed"] == seed]
