"""Ranks by module: changes of edges against a plain count, groups of every architecture, and the whole way to ranks."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from drift_tables import N_LAYERS, a_circuit, graph_edges, layer_of, tables
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from test_allocation_architectures import OTHER_SIZES
from transformers import BertConfig

from circuitdrift.allocation.modules import module_weights
from circuitdrift.allocation.ranks import AllocationError, adapter_parameters, ranks_by_layer, ranks_under_budget
from circuitdrift.config.methods import CircuitLoraMethod, Training
from circuitdrift.decoder.architectures import ARCHITECTURES
from circuitdrift.decoder.linears import (
    MODULES,
    LinearsError,
    ModuleGroup,
    block_linears,
    group_by_module,
    shape_of_config,
)
from circuitdrift.drift.modules import tabulate_module_changes
from circuitdrift.drift.series import DriftError
from circuitdrift.provenance import Provenance
from circuitdrift.training.allocated_adapter import write_allocated_adapter

ORIGIN = Provenance.detached(model="tiny")
ORIGINS = ("before", "after")


def changes_between(before: dict, after: dict) -> pd.DataFrame:
    return tabulate_module_changes(tables(before)[0], tables(after)[0], ORIGINS)


def slow_credit(before: dict, after: dict, normalised: bool) -> dict[tuple[int, str], float]:
    """The credit of each module by a loop over edges, in words of the definition."""
    scale = [sum(abs(score) for score in circuit.values()) if normalised else 1.0 for circuit in (before, after)]
    credit: dict[tuple[int, str], float] = defaultdict(float)
    for edge in graph_edges():
        source, target, qkv = edge
        change = abs(after.get(edge, 0.0) / scale[1] - before.get(edge, 0.0) / scale[0])
        if target.startswith("a"):
            credit[layer_of(target), str(qkv)] += change
        if target.startswith("m"):
            credit[layer_of(target), "mlp_input"] += change
        if source.startswith("a"):
            credit[layer_of(source), "output"] += change
        if source.startswith("m"):
            credit[layer_of(source), "mlp_output"] += change
    return credit


@settings(max_examples=25, deadline=None)
@given(a_circuit, a_circuit, st.sampled_from(["score_change", "score_change_normalised"]))
def test_every_module_is_credited_with_the_changes_of_its_edges(before, after, policy):
    table = changes_between(before, after)
    found = table.groupby(["layer", "module"])[policy].sum()
    expected = slow_credit(before, after, policy == "score_change_normalised")
    for layer in range(N_LAYERS):
        for module in MODULES:
            assert found.get((layer, module), 0.0) == pytest.approx(expected[layer, module], abs=1e-6)


def test_each_change_can_be_traced_to_its_edge_whatever_the_order_of_the_rows():
    before = {("input", "a1.h0", "q"): 1.0, ("a0.h1", "m2", None): -2.0, ("input", "logits", None): 4.0}
    after = {("a0.h1", "m2", None): 1.0, ("input", "a1.h0", "k"): 1.0, ("m1", "logits", None): 0.5}
    table = changes_between(before, after)
    rows = [
        (0, "output", "a0.h1", "m2", None, -2.0, 1.0, 3.0),
        (1, "q", "input", "a1.h0", "q", 1.0, 0.0, 1.0),
        (1, "k", "input", "a1.h0", "k", 0.0, 1.0, 1.0),
        (1, "mlp_output", "m1", "logits", None, 0.0, 0.5, 0.5),
        (2, "mlp_input", "a0.h1", "m2", None, -2.0, 1.0, 3.0),
    ]
    plain = table.drop(columns="score_change_normalised").astype(object)
    assert list(plain.where(plain.notna(), None).itertuples(index=False, name=None)) == rows
    edges = tables(before)[0].sample(frac=1, random_state=1), tables(after)[0].sample(frac=1, random_state=2)
    pd.testing.assert_frame_equal(tabulate_module_changes(*edges, ORIGINS), table)


def test_tables_that_cannot_be_compared_are_named():
    edges, circuit = tables({("input", "m0", None): 1.0})[0], {("input", "m0", None): 1.0}
    with pytest.raises(DriftError, match="before and after hold different edges"):
        tabulate_module_changes(edges, tables(circuit, n_layers=4)[0], ORIGINS)
    with pytest.raises(DriftError, match="different edges"):  # as many edges, but others
        tabulate_module_changes(edges, edges.replace({"source": {"a0.h0": "a9.h0"}}), ORIGINS)
    with pytest.raises(DriftError, match=r"after: the circuit's edge \['input', 'm0', .*has no finite score"):
        tabulate_module_changes(edges, tables({("input", "m0", None): float("nan")})[0], ORIGINS)
    with pytest.raises(DriftError, match=r"before: the table holds the edge .* twice"):
        tabulate_module_changes(pd.concat([edges, edges]), edges, ORIGINS)


GATED = {
    ("q",): ["self_attn.q_proj"], ("k",): ["self_attn.k_proj"], ("v",): ["self_attn.v_proj"],
    ("output",): ["self_attn.o_proj"], ("mlp_input",): ["mlp.gate_proj", "mlp.up_proj"],
    ("mlp_output",): ["mlp.down_proj"],
}  # fmt: skip
FUSED_BY_HEAD = {
    ("q", "k", "v"): ["self_attention.query_key_value"], ("output",): ["self_attention.dense"],
    ("mlp_input",): ["mlp.dense_h_to_4h"], ("mlp_output",): ["mlp.dense_4h_to_h"],
}  # fmt: skip
GROUPS = {
    "gpt_neox": {
        ("q", "k", "v"): ["attention.query_key_value"], ("output",): ["attention.dense"],
        ("mlp_input",): ["mlp.dense_h_to_4h"], ("mlp_output",): ["mlp.dense_4h_to_h"],
    },
    "gpt_neo": {
        ("q",): ["attn.attention.q_proj"], ("k",): ["attn.attention.k_proj"], ("v",): ["attn.attention.v_proj"],
        ("output",): ["attn.attention.out_proj"], ("mlp_input",): ["mlp.c_fc"], ("mlp_output",): ["mlp.c_proj"],
    },
    "opt": {
        ("q",): ["self_attn.q_proj"], ("k",): ["self_attn.k_proj"], ("v",): ["self_attn.v_proj"],
        ("output",): ["self_attn.out_proj"], ("mlp_input",): ["fc1"], ("mlp_output",): ["fc2"],
    },
    "gpt2": {
        ("q", "k", "v"): ["attn.c_attn"], ("output",): ["attn.c_proj"],
        ("mlp_input",): ["mlp.c_fc"], ("mlp_output",): ["mlp.c_proj"],
    },
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3"], GATED),
    **dict.fromkeys(["cohere", "gemma", "granite", "olmo", "smollm3", "stablelm"], GATED),
    **dict.fromkeys(["bloom", "falcon"], FUSED_BY_HEAD),
    "gpt_bigcode": {
        ("q", "k", "v"): ["attn.c_attn"], ("output",): ["attn.c_proj"],
        ("mlp_input",): ["mlp.c_fc"], ("mlp_output",): ["mlp.c_proj"],
    },
    "gptj": {
        ("q",): ["attn.q_proj"], ("k",): ["attn.k_proj"], ("v",): ["attn.v_proj"],
        ("output",): ["attn.out_proj"], ("mlp_input",): ["mlp.fc_in"], ("mlp_output",): ["mlp.fc_out"],
    },
    "mpt": {
        ("q", "k", "v"): ["attn.Wqkv"], ("output",): ["attn.out_proj"],
        ("mlp_input",): ["ffn.up_proj"], ("mlp_output",): ["ffn.down_proj"],
    },
    "phi": {
        **GATED, ("output",): ["self_attn.dense"], ("mlp_input",): ["mlp.fc1"], ("mlp_output",): ["mlp.fc2"],
    },
    "phi3": {
        ("q", "k", "v"): ["self_attn.qkv_proj"], ("output",): ["self_attn.o_proj"],
        ("mlp_input",): ["mlp.gate_up_proj"], ("mlp_output",): ["mlp.down_proj"],
    },
    "starcoder2": {**GATED, ("mlp_input",): ["mlp.c_fc"], ("mlp_output",): ["mlp.c_proj"]},
}  # fmt: skip


@pytest.mark.parametrize("architecture", GROUPS)
def test_groups_of_every_architecture(architecture):
    model = shape_of_config(OTHER_SIZES[architecture])
    groups = group_by_module(model, block_linears(model))
    found: dict[int, dict] = {layer: {} for layer in range(3)}
    for group, own in groups.items():
        found[group.layer][group.modules] = [linear.name.split(f".{group.layer}.", 1)[1] for linear in own]
    assert found == dict.fromkeys(range(3), GROUPS[architecture])
    assert [(g.layer, g.modules) for g in groups] == [(layer, m) for layer in range(3) for m in GROUPS[architecture]]


def test_groups_of_every_declared_architecture_are_tested():
    assert {type(shape_of_config(config)).__name__ for config in OTHER_SIZES.values()} == set(ARCHITECTURES)
    assert OTHER_SIZES.keys() == GROUPS.keys()


def test_an_architecture_that_nobody_described_is_refused():
    model = shape_of_config(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, is_decoder=True)
    )
    with pytest.raises(LinearsError, match="does not know the modules of BertLMHeadModel; use one of GPT2LMHead"):
        group_by_module(model, block_linears(model))


def changes(rows: list[tuple[int, str, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["layer", "module", "score_change"])


FUSED = (ModuleGroup(0, ("q", "k", "v")), ModuleGroup(0, ("output",)))


def test_a_fused_projection_has_the_sum_of_its_modules():
    table = changes([(0, "q", 1.0), (0, "v", 0.25), (0, "q", 2.0)])
    assert module_weights(table, "score_change", FUSED) == {FUSED[0]: 3.25, FUSED[1]: 0.0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "gives no module any weight: the 'score_change' of every edge is zero"),
        ([(0, "q", 0.0)], "gives no module any weight"),
        ([(0, "q", float("nan"))], "negative or not finite"),
        ([(0, "q", -1.0)], "negative or not finite"),
        ([(1, "q", 1.0)], "credits module 'q' of layer 1, which this model lacks"),
    ],
)
def test_changes_that_weigh_nothing_are_refused(rows, message):
    with pytest.raises(AllocationError, match=message):
        module_weights(changes(rows), "score_change", FUSED)


def slow_shares(groups: dict, rank: int, weights: dict, budget: int) -> dict:
    """Ranks by groups: floors of the exact shares, then one unit at a time to who lost most, round after round."""
    cost = {group: sum(x.in_features + x.out_features for x in own) for group, own in groups.items()}
    left = budget - rank * sum(cost.values())
    unit = left / sum(cost[group] * weights[group] for group in groups)
    ranks = {group: rank + int(unit * weights[group]) for group in groups}
    spent = sum(cost[group] * ranks[group] for group in groups)
    order = sorted(groups, key=lambda group: -((unit * weights[group]) % 1))
    while True:
        given = 0
        for group in order:
            if weights[group] > 0 and spent + cost[group] <= budget:
                ranks[group], spent, given = ranks[group] + 1, spent + cost[group], given + 1
        if not given:
            return ranks


@pytest.mark.parametrize("architecture", ["gpt_neox", "opt", "llama"])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_ranks_by_module_spend_the_budget_as_nearly_as_ranks_allow(architecture, data):
    model = shape_of_config(OTHER_SIZES[architecture])
    linears = block_linears(model)
    groups = group_by_module(model, linears)
    drawn = data.draw(st.lists(st.integers(0, 500), min_size=len(groups), max_size=len(groups), unique=True))
    weights = {group: number / 7 for group, number in zip(groups, drawn, strict=True)}
    budget = adapter_parameters(linears, ranks_by_layer(linears, 2, data.draw(st.integers(3, 20)), {0, 2}))
    ranks = ranks_under_budget(groups, 2, weights, budget)
    assert ranks.keys() == {linear.name for linear in linears}
    left = budget - adapter_parameters(linears, ranks)
    cost = {group: sum(linear.parameters_per_rank for linear in own) for group, own in groups.items()}
    assert 0 <= left < min(cost[group] for group in groups if weights[group])
    by_group = {group: {ranks[linear.name] for linear in own} for group, own in groups.items()}
    assert all(len(found) == 1 for found in by_group.values())
    assert all(by_group[group] == {2} for group in groups if not weights[group])
    unit = (budget - 2 * sum(cost.values())) / sum(cost[group] * weights[group] for group in groups)
    remainders = sorted((unit * weight) % 1 for weight in weights.values() if weight)
    gaps = np.diff([0.0, *remainders, 1.0])
    assume(gaps.min() > 1e-9)  # the slow twin, in floats, cannot tell equal shares apart
    slow = slow_shares(groups, 2, weights, budget)
    assert {group: next(iter(found)) for group, found in by_group.items()} == slow


def test_from_two_circuits_to_an_adapter_that_peft_reads(tmp_path):
    before = {("input", "m0", None): 1.0, ("a0.h0", "a1.h1", "v"): 2.0}
    after = {("input", "m0", None): -2.0, ("a0.h0", "a1.h1", "v"): 3.0, ("m2", "logits", None): 1.0}
    changes = tabulate_module_changes(tables(before)[0], tables(after)[0], ORIGINS)
    assert changes.groupby(["layer", "module"])["score_change"].sum().to_dict() == {
        (0, "mlp_input"): 3.0, (0, "output"): 1.0, (1, "v"): 1.0, (2, "mlp_output"): 1.0,
    }  # fmt: skip

    model = shape_of_config(OTHER_SIZES["llama"])
    critical = pd.DataFrame({"layer": range(3), "policy": "score_change", "value": [3.0, 2.0, 1.0]})
    critical = critical.assign(rank_order=[1, 2, 3], critical=critical["layer"] == 0, credit="source")
    critical = critical.assign(above_threshold=False, in_top=np.nan, lower=np.nan, upper=np.nan)
    method = CircuitLoraMethod(
        kind="circuit_lora", rank=2, critical_rank=8, critical_layers=1, phase_1="a", allocation="per_module"
    )
    file = tmp_path / "adapter_config.json"
    write_allocated_adapter(file, model, ("tiny", None), method, critical, changes, Training())
    linears = block_linears(model)
    config = LoraConfig.from_pretrained(str(tmp_path))
    adapted = get_peft_model(shape_of_config(OTHER_SIZES["llama"]), config).get_base_model()
    ranks = {name: m.r["default"] for name, m in adapted.named_modules() if isinstance(m, LoraLayer)}
    further = {name.removeprefix("model.layers."): rank - 2 for name, rank in ranks.items() if rank != 2}
    assert further.keys() == {
        "0.mlp.gate_proj", "0.mlp.up_proj", "0.self_attn.o_proj", "1.self_attn.v_proj", "2.mlp.down_proj",
    }  # fmt: skip
    budget = adapter_parameters(linears, ranks_by_layer(linears, 2, 8, {0}))
    unit = (budget - 2 * sum(x.parameters_per_rank for x in linears)) / (3 * 2 * 64 + 48 + 32 + 64)
    assert further["0.mlp.gate_proj"] == further["0.mlp.up_proj"]
    assert abs(further["0.mlp.up_proj"] - 3 * unit) < 1
    assert np.isclose(further["1.self_attn.v_proj"], unit, atol=1.5)
    assert budget - 32 < adapter_parameters(linears, ranks) <= budget
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 2

    with pytest.raises(AllocationError, match="needs the table of module changes"):
        write_allocated_adapter(file, model, ("tiny", None), method, critical, None, Training())
