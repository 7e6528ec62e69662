"""Ranks by other rules than drift: exact sizes, the nearest whole ranks, and what is refused."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, LlamaConfig

from circuitdrift.allocation.exact import bounded_shares, nearest_ranks
from circuitdrift.allocation.other_rules import mean_rank, ranks_of_equal_size
from circuitdrift.allocation.ranks import AllocationError, adapter_parameters, ranks_by_layer
from circuitdrift.checks.fit import problems_of_fit
from circuitdrift.config.circuits import Selection
from circuitdrift.config.methods import AllocatedLoraMethod
from circuitdrift.config.reading import ConfigError, load_study
from circuitdrift.decoder.linears import block_linears, shape_of_config
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.models.shapes import ModelShape
from circuitdrift.study import Study

NEOX = shape_of_config(
    GPTNeoXConfig(hidden_size=32, num_hidden_layers=6, num_attention_heads=4, intermediate_size=128, vocab_size=50)
)
LLAMA = shape_of_config(
    LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50,
    )
)  # fmt: skip


def method(allocation: str, **keys: object) -> AllocatedLoraMethod:
    ranks = {"rank": 3, "critical_rank": 9, "critical_layers": 2, "kind": "allocated_lora"}
    return AllocatedLoraMethod.model_validate({**ranks, "allocation": allocation, **keys})


def integers(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@st.composite
def problems(draw):
    """Up to three modules with costs, weights and bounds, and a budget between the extremes."""
    n = draw(st.integers(1, 3))
    cost = integers(draw(st.lists(st.sampled_from([2, 4, 5, 10]), min_size=n, max_size=n)))
    weights = np.array(draw(st.lists(st.floats(0.01, 100), min_size=n, max_size=n)))
    smallest = integers(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    largest = smallest + integers(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)))
    return cost, weights, smallest, largest, draw(st.integers(int(cost @ smallest), int(cost @ largest)))


@settings(max_examples=50, deadline=None)
@given(problems())
def test_no_whole_ranks_of_the_budget_are_nearer(drawn):
    cost, weights, smallest, largest, budget = drawn
    wanted = bounded_shares(cost, weights, smallest, largest, budget)
    assert cost @ wanted == pytest.approx(budget)
    every = product(*(range(low, high + 1) for low, high in zip(smallest, largest, strict=True)))
    distances = [float(cost @ (integers(ranks) - wanted) ** 2) for ranks in every if cost @ integers(ranks) == budget]
    if not distances:
        with pytest.raises(AllocationError, match=r"no whole ranks .* have exactly"):
            nearest_ranks(cost, wanted, smallest, largest, budget)
        return
    ranks = nearest_ranks(cost, wanted, smallest, largest, budget)
    assert cost @ ranks == budget
    assert (smallest <= ranks).all()
    assert (ranks <= largest).all()
    assert float(cost @ (ranks - wanted) ** 2) == pytest.approx(min(distances), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(problems(), st.floats(1e-300, 1e300))
def test_shares_are_in_proportion_to_weights_of_any_scale(drawn, scale):
    cost, weights, smallest, largest, budget = drawn
    shares = bounded_shares(cost, weights, smallest, largest, budget)
    inside = (shares > smallest) & (shares < largest)
    assume(inside.any())
    factors = (shares / weights)[inside]
    assert factors == pytest.approx(factors[0])
    assert shares == pytest.approx(bounded_shares(cost, weights * scale, smallest, largest, budget))


def test_values_that_ranks_cannot_follow_are_refused():
    arguments = integers([2, 2]), integers([0, 0]), integers([4, 4]), 8
    for weights in ([1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(AllocationError, match="negative or not finite"):
            bounded_shares(arguments[0], np.array(weights), *arguments[1:])
    with pytest.raises(AllocationError, match=r"have 0 to 0 parameters, so none have the 8 wanted"):
        bounded_shares(arguments[0], np.zeros(2), *arguments[1:])


VALUES = np.random.default_rng(0).uniform(0.1, 4, 64)
RULES = [
    method("uniform"), method("random"), method("inverted", phase_1="a"), method("mlp"), method("fisher"),
    method("fisher", by="modules"), method("gradient_norm"), method("gradient_norm", by="modules"), method("eva"),
    method("adalora", phase_1="a"),
]  # fmt: skip


@pytest.mark.parametrize("model", [NEOX, LLAMA], ids=["neox", "llama"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.allocation}-{rule.by}")
def test_every_allocation_has_exactly_the_parameters_of_a_circuit_lora(model, rule):
    if model is LLAMA:  # of four layers: the mean rank must be a multiple of 5 for the MLPs too
        rule = rule.model_copy(update={"rank": 4, "critical_rank": 6})
    linears = block_linears(model)
    values = {linear.name: value for linear, value in zip(linears, VALUES, strict=False)}
    ranks = ranks_of_equal_size(model, rule, values)
    circuit_lora = ranks_by_layer(linears, rule.rank, rule.critical_rank, (0, 3))
    assert adapter_parameters(linears, ranks) == adapter_parameters(linears, circuit_lora)
    assert all(0 <= ranks[linear.name] <= min(linear.in_features, linear.out_features) for linear in linears)


def by_layer(model, ranks):
    return [sorted({ranks[linear.name] for linear in block_linears(model) if linear.layer == n}) for n in range(6)]


def test_layers_are_those_of_largest_total_and_of_smallest_for_inverted():
    totals = {0: 5.0, 1: 1.0, 2: 7.0, 3: 5.0, 4: 0.5, 5: 1.0}
    values = {linear.name: totals[linear.layer] for linear in block_linears(NEOX)}
    for rule in (method("fisher"), method("gradient_norm"), method("random")):
        assert by_layer(NEOX, ranks_of_equal_size(NEOX, rule, values)) == [[9], [3], [9], [3], [3], [3]]
    inverted = ranks_of_equal_size(NEOX, method("inverted", phase_1="a"), values)
    assert by_layer(NEOX, inverted) == [[3], [3], [3], [3], [9], [9]]


def test_one_rank_everywhere_and_one_rank_in_the_mlps():
    assert set(ranks_of_equal_size(NEOX, method("uniform"), {}).values()) == {5}
    ranks = ranks_of_equal_size(NEOX, method("mlp"), {})
    assert {name.split(".")[3] for name, rank in ranks.items() if rank} == {"mlp"}
    assert set(ranks.values()) == {0, 8}


def test_ranks_by_module_follow_gora():
    """GoRA: rank in proportion to importance / sqrt(inputs + outputs), between bounds, here with an exact size."""
    linears = block_linears(NEOX)
    values = {linear.name: 1.0 + linear.layer for linear in linears}
    ranks = ranks_of_equal_size(NEOX, method("gradient_norm", by="modules"), values)
    ideal = {linear.name: values[linear.name] / linear.parameters_per_rank**0.5 for linear in linears}
    inside = [name for name in ranks if 3 < ranks[name] < 20]
    factor = np.median([ranks[name] / ideal[name] for name in inside])
    assert len(inside) > 12
    assert all(abs(ranks[name] - factor * ideal[name]) <= 1 for name in inside)
    one = {linear.name: 1000.0 if linear.name == linears[0].name else 0.001 for linear in linears}
    assert ranks_of_equal_size(NEOX, method("gradient_norm", by="modules"), one)[linears[0].name] in {19, 20}


def test_ranks_that_already_have_the_size_stay_as_they_are():
    linears = block_linears(NEOX)
    found = {linear.name: 5.0 for linear in linears}
    found |= {linears[0].name: 8.0, linears[4].name: 2.0, linears[1].name: 0.0, linears[5].name: 10.0}
    assert ranks_of_equal_size(NEOX, method("adalora", phase_1="a"), found) == found
    twice = {name: 2 * rank for name, rank in found.items()}
    assert ranks_of_equal_size(NEOX, method("adalora", phase_1="a"), twice) == found


def test_sizes_that_an_allocation_cannot_have_are_refused():
    with pytest.raises(AllocationError, match=r"no uniform rank has exactly"):
        ranks_of_equal_size(NEOX, method("uniform", rank=2), {})
    with pytest.raises(AllocationError, match=r"no whole ranks of the 12 modules .* exactly 12,288 .* has 160"):
        ranks_of_equal_size(NEOX, method("mlp", rank=2, critical_rank=8), {})
    with pytest.raises(AllocationError, match=r"eva: no value for gpt_neox\.layers\.0"):
        ranks_of_equal_size(NEOX, method("eva"), {})
    with pytest.raises(AllocationError, match=r"critical_layers: 7 is more than the 6 layers"):
        ranks_of_equal_size(NEOX, method("uniform", critical_layers=7), {})


def test_a_uniform_rank_that_is_not_whole_is_refused_before_any_job():
    shape = ModelShape(parameters=10**6, layers=6, heads=4, width=32, parallel=True)
    methods = {
        "whole": method("uniform"),
        "broken": method("uniform", rank=2),
        "many": method("mlp", critical_layers=7),
    }
    problems = problems_of_fit("m", shape, methods, Selection(fraction=0.5))
    assert [problem.split(":")[0] for problem in problems] == [
        "methods.broken.critical_rank",
        "methods.many.critical_layers",
    ]
    assert "whose mean is 4.333" in problems[0]


def test_labels_name_what_ranks_follow():
    labels = MethodLabels({"a": method("fisher"), "b": method("gradient_norm", by="modules"), "c": method("eva")})
    assert [labels.of(name) for name in "abc"] == [
        "LoRA, Fisher (3, 9)",
        "LoRA, gradient norm (3, 9), by module",
        "LoRA, EVA's ranks (3, 9)",
    ]


def test_the_mean_rank_is_the_uniform_rank_of_the_same_size():
    assert mean_rank(method("uniform"), 6) == 5
    assert mean_rank(method("uniform", rank=2, critical_layers=1), 6) == pytest.approx(19 / 6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"allocation": "fisher", "critical_rank": 3}, r"critical_rank: 3 is not above rank 3"),
        ({"allocation": "inverted"}, r"add phase_1, the name of a lora or full method"),
        ({"allocation": "adalora"}, r"add phase_1, the name of an adalora method"),
        ({"allocation": "eva", "phase_1": "a"}, r"phase_1: allocation eva follows no other run"),
        ({"allocation": "mlp", "by": "modules"}, r"by: allocation mlp has its own"),
        ({"allocation": "fisher", "draw": 1}, r"draw: allocation fisher draws nothing"),
    ],
)
def test_keys_that_do_not_fit_an_allocation_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        method(**keys)


def study(methods: dict[str, dict[str, object]]) -> Study:
    raw = {"models": {"m": {"source": "scratch"}}, "tasks": {"t": {"family": "lcm"}}, "drift": {"methods": []}}
    return Study(load_study({**raw, "methods": methods}, Path(), "study.yaml"))


def test_only_a_phase_1_whose_drift_counts_has_circuits():
    ranks = {"kind": "allocated_lora", "rank": 3, "critical_rank": 9, "critical_layers": 2}
    methods = {
        "lora": {"kind": "lora", "rank": 3},
        "ada": {"kind": "adalora"},
        "inverted": {**ranks, "allocation": "inverted", "phase_1": "lora"},
        "reused": {**ranks, "allocation": "adalora", "phase_1": "ada"},
    }
    found = study(methods)
    assert found.phase_1 == {"inverted": "lora", "reused": "ada"}
    assert found.drift_methods == ("lora",)
    assert [run.method for run in found.allocated_lora_runs] == ["inverted", "reused"]
    assert found.allocated_runs == found.circuit_lora_runs == ()
    with pytest.raises(ConfigError, match=r"methods\.reused\.phase_1: 'lora' is not an adalora method .*\['ada'\]"):
        study({**methods, "reused": {**methods["reused"], "phase_1": "lora"}})
    with pytest.raises(ConfigError, match=r"methods\.inverted\.phase_1: 'ada' is not a lora or full method"):
        study({**methods, "inverted": {**methods["inverted"], "phase_1": "ada"}})
