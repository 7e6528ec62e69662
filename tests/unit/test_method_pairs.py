"""Which methods are compared: of equal size, or of equal compute with phase 1, counted by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from verdict_tables import METHODS

from circuitdrift.method_pairs import Pair, are_of_equal_size, compute_ratio, planned_pairs, runs_with_costs

PHASE_1 = {"circuit_lora": "lora_r2", "inverted": "given"}


def costs(united=None, tasks=("a",), **methods):
    """{method: (parameters, steps, FLOPs)} with two seeds; seed 1 costs two FLOPs more, each further task 40."""
    runs = list(product(enumerate(tasks), methods.items(), range(2)))
    rows = [("m", task, name, seed, n, steps, flops + 40 * at) for (at, task), (name, (n, steps, flops)), seed in runs]
    table = pd.DataFrame(rows, columns=["model", "task", "method", "seed", "trainable_parameters", "step", "flops"])
    log = table[["model", "task", "method", "seed"]].assign(flops=table["flops"] + 2.0 * table["seed"])
    early = log.assign(flops=1.0)
    last = table.drop(columns="flops").assign(checkpoint="02", split="test")
    accuracy = pd.concat([last.assign(checkpoint="01", step=1), last], ignore_index=True)
    return runs_with_costs(accuracy, pd.concat([early, log], ignore_index=True), PHASE_1, united or {})


def test_the_cost_of_a_run_is_its_last_and_that_of_its_phase_1_with_the_same_seed():
    runs = costs(lora_r2=(2, 10, 30), circuit_lora=(4, 20, 100), inverted=(4, 20, 100)).set_index(["method", "seed"])
    assert runs["steps"].tolist() == [10, 10, 20, 20, 20, 20]
    assert runs["flops"].tolist() == [30, 32, 100, 102, 100, 102]
    assert runs["total_flops"].tolist() == pytest.approx([30, 32, 130, 134, np.nan, np.nan], nan_ok=True)


def test_equal_size_is_equal_parameters_and_equal_steps():
    runs = costs(lora_r4=(4, 10, 1), random=(4, 10, 9), lora_r4_long=(4, 20, 1), lora_r8=(8, 10, 1))
    assert are_of_equal_size(runs, "lora_r4", "random")
    assert not are_of_equal_size(runs, "lora_r4", "lora_r4_long")
    assert not are_of_equal_size(runs, "lora_r4", "lora_r8")
    assert not are_of_equal_size(runs.drop(index=0), "lora_r4", "random")  # a seed is missing


def test_planned_pairs_are_circuit_loras_with_their_baselines():
    sizes = {"lora_r2": (2, 10, 30), "circuit_lora": (4, 10, 100), "inverted": (4, 10, 100), "random": (4, 10, 90)}
    loras = {"lora_r4": (4, 10, 100), "lora_r4_long": (4, 12, 125), "lora_r8": (8, 13, 132), "sham": (4, 10, 100)}
    found = planned_pairs(costs(**sizes, **loras), METHODS)
    equal = [("circuit_lora", other) for other in ("lora_r4", "inverted", "random")]
    assert {(p.method, p.other) for p in found if p.basis == "parameters"} == set(equal)
    assert [p for p in found if p.basis == "compute"] == [Pair("circuit_lora", "lora_r4_long", "compute")]
    assert len(found) == len(equal) + 1


@pytest.mark.parametrize(("flops", "near"), [(120, True), (117, False), (143, True), (146, False)])
def test_equal_compute_ends_at_a_tenth_of_the_smaller_number(flops, near):
    runs = costs(lora_r2=(2, 10, 30), circuit_lora=(4, 10, 100), lora_r4_long=(4, 20, flops))  # means: 132, flops + 1
    assert (planned_pairs(runs, METHODS) != []) == near
    assert compute_ratio(runs, "circuit_lora", "lora_r4_long") == pytest.approx(132 / (flops + 1))


def test_of_several_loras_the_nearest_in_compute_is_taken():
    near = {"lora_r4": (4, 11, 120), "lora_r4_long": (4, 12, 133)}
    (pair,) = planned_pairs(costs(lora_r2=(2, 10, 30), circuit_lora=(4, 10, 100), **near), METHODS)
    assert pair.other == "lora_r4_long"


UNION = {"circuit_lora": {"a": ["b", "c"]}}


def test_a_method_that_follows_a_union_costs_phase_1_on_three_tasks():
    runs = costs(UNION, ("a", "b", "c"), lora_r2=(2, 10, 30), circuit_lora=(4, 20, 100)).set_index(["task", "method"])
    phase_1 = [30 + 70 + 110, 32 + 72 + 112]
    assert runs.loc[("a", "circuit_lora"), "total_flops"].tolist() == [100 + phase_1[0], 102 + phase_1[1]]
    assert runs.loc[("b", "circuit_lora"), "total_flops"].tolist() == [140 + 70, 142 + 72]  # unites nothing
    assert runs.loc[("a", "lora_r2"), "total_flops"].tolist() == [30, 32]


def test_the_cost_of_a_union_is_unknown_where_a_sub_task_has_no_phase_1():
    runs = costs(UNION, ("a", "b"), lora_r2=(2, 10, 30), circuit_lora=(4, 20, 100)).set_index(["task", "method"])
    assert runs.loc[("a", "circuit_lora"), "total_flops"].isna().all()
    assert runs.loc[("b", "circuit_lora"), "total_flops"].notna().all()


@pytest.mark.parametrize(("united", "other"), [({}, "lora_r4"), (UNION, "lora_r4_long")])
def test_equal_compute_counts_phase_1_on_all_tasks_that_a_union_needs(united, other):
    loras = {"lora_r4": (4, 11, 130), "lora_r4_long": (4, 30, 310)}
    runs = costs(united, ("a", "b", "c"), lora_r2=(2, 10, 30), circuit_lora=(4, 10, 100), **loras)
    (pair,) = planned_pairs(runs[runs["task"] == "a"], METHODS)
    assert pair == Pair("circuit_lora", other, "compute")
