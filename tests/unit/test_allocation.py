import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig

from circuitdrift.allocation.policies import critical_layers, draw_layers, layer_weights
from circuitdrift.allocation.ranks import (
    AllocationError,
    adapter_parameters,
    matched_uniform_rank,
    pattern_of_module,
    rank_patterns,
    ranks_by_layer,
    ranks_under_budget,
    trainable_share,
)
from circuitdrift.config.methods import CircuitLoraMethod, RandomLoraMethod
from circuitdrift.decoder.linears import BlockLinear, block_linears, group_by_layer, shape_of_config
from circuitdrift.training.adapters import config_as_json, lora_config

PYTHIA_1_4B = GPTNeoXConfig(
    hidden_size=2048,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=8192,
    vocab_size=50304,
    tie_word_embeddings=False,
)


@pytest.fixture(scope="module")
def pythia():
    return shape_of_config(PYTHIA_1_4B)


def linears_of(layers: int) -> tuple[BlockLinear, ...]:
    return tuple(
        BlockLinear(f"model.layers.{layer}.{name}", layer, 3, size)
        for layer in range(layers)
        for name, size in (("up", 5), ("down", 7))
    )


@pytest.mark.parametrize(
    ("rank", "critical_rank", "percent"),
    [(2, 2, 0.1111), (8, 8, 0.4428), (16, 16, 0.8816), (32, 32, 1.7479), (8, 32, 0.7175), (16, 64, 1.4248)],
)
def test_published_shares_of_pythia_follow_from_shapes(pythia, rank, critical_rank, percent):
    base = sum(parameter.numel() for parameter in pythia.parameters())
    assert base == 1_414_647_808
    linears = block_linears(pythia)
    added = adapter_parameters(linears, ranks_by_layer(linears, rank, critical_rank, (0, 2, 4, 5, 6)))
    assert round(100 * trainable_share(added, base + added), 4) == percent


@pytest.mark.parametrize(("rank", "critical_rank", "uniform"), [(8, 32, 13), (16, 64, 26), (8, 31, None)])
def test_uniform_rank_of_equal_size(pythia, rank, critical_rank, uniform):
    linears = block_linears(pythia)
    ranks = ranks_by_layer(linears, rank, critical_rank, (0, 2, 4, 5, 6))
    assert matched_uniform_rank(linears, ranks) == uniform
    if uniform:
        matched = ranks_by_layer(linears, uniform, uniform, ())
        assert adapter_parameters(linears, matched) == adapter_parameters(linears, ranks)


def test_parameters_agree_with_those_that_peft_adds():
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        tie_word_embeddings=True,
    )
    model = shape_of_config(config)
    linears = block_linears(model)
    ranks = ranks_by_layer(linears, 2, 5, (1,))
    adapted = get_peft_model(model, lora_config(model, linears, rank_patterns(ranks, 2, 2.0), ("tiny", None)))
    trainable = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert trainable == adapter_parameters(linears, ranks)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (
            GPTNeoXConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
            {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
        ),
        (
            LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        ),
        (GPT2Config(n_embd=32, n_layer=2, n_head=4), {"c_attn", "c_proj", "c_fc"}),
    ],
)
def test_linears_are_those_of_the_blocks_without_the_head(config, names):
    model = shape_of_config(config)
    linears = block_linears(model)
    assert {linear.name.rsplit(".", 1)[-1] for linear in linears} == names
    assert {linear.layer for linear in linears} == {0, 1}
    assert all(f".{linear.layer}." in linear.name for linear in linears)
    for linear in linears:
        shape = set(model.get_submodule(linear.name).weight.shape)
        assert shape == {linear.in_features, linear.out_features}


def test_a_pattern_matches_its_module_alone():
    def matches(pattern, name):  # as peft does it
        return re.match(rf"(.*\.)?({pattern})$", name) is not None

    pattern = pattern_of_module("layers.1.up")
    assert matches(pattern, "layers.1.up")
    assert not matches(pattern, "layers.11.up")
    assert not matches(pattern, "model.layers.1.up")
    assert not matches(pattern, "layersx1.up")
    assert not matches(pattern, "layers.1.up.more")


def test_every_rank_has_its_own_alpha():
    linears = linears_of(12)
    patterns = rank_patterns(ranks_by_layer(linears, 8, 32, (1,)), 8, 1.5)
    assert patterns.alpha == 12
    assert patterns.rank_pattern == {r"^model\.layers\.1\.up": 32, r"^model\.layers\.1\.down": 32}
    assert patterns.alpha_pattern == {r"^model\.layers\.1\.up": 48, r"^model\.layers\.1\.down": 48}


def test_plain_peft_reads_the_configuration_and_gives_each_module_its_rank(tmp_path):
    model = shape_of_config(
        GPTNeoXConfig(hidden_size=16, num_hidden_layers=12, num_attention_heads=2, intermediate_size=32, vocab_size=20)
    )
    linears = block_linears(model)
    config = lora_config(
        model, linears, rank_patterns(ranks_by_layer(linears, 2, 8, (1, 4)), 2, 2.0), ("some/id", "abc")
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps(config_as_json(config)))
    read = LoraConfig.from_pretrained(str(tmp_path))
    assert (read.task_type, read.base_model_name_or_path, read.revision) == ("CAUSAL_LM", "some/id", "abc")
    found = {
        name: (module.r["default"], module.scaling["default"])
        for name, module in get_peft_model(model, read).get_base_model().named_modules()
        if isinstance(module, LoraLayer)
    }
    assert found == {linear.name: (8 if linear.layer in (1, 4) else 2, 2.0) for linear in linears}


def test_configuration_is_the_same_text_each_time():
    model = shape_of_config(PYTHIA_1_4B)
    linears = block_linears(model)
    config = lora_config(model, linears, rank_patterns(ranks_by_layer(linears, 2, 2, ()), 2, 2.0), ("a", None))
    config.target_modules = set(config.target_modules)
    assert config_as_json(config)["target_modules"] == sorted(config.target_modules)


def test_a_critical_layer_that_the_model_lacks_is_named():
    with pytest.raises(AllocationError, match=r"\[3\].*0\.\.2"):
        ranks_by_layer(linears_of(3), 2, 8, (1, 3))


def test_random_draw_ranks_every_layer_and_depends_on_seed_draw_model_and_task():
    table = draw_layers(24, 5, seed=0, draw=0, drawn_for="m/t")
    assert sorted(table["rank_order"]) == list(range(1, 25))
    assert set(table["policy"]) == {"random"}
    by_value = table.sort_values("value", ascending=False)
    assert list(by_value["rank_order"]) == list(range(1, 25))
    assert list(by_value["critical"]) == [True] * 5 + [False] * 19
    pd.testing.assert_frame_equal(table, draw_layers(24, 5, seed=0, draw=0, drawn_for="m/t"))
    drawn = {
        critical_layers(draw_layers(24, 5, seed, draw, name), "random", 5)
        for seed in range(3)
        for draw in range(3)
        for name in ("m/t", "m/u", "n/t")
    }
    assert len(drawn) == 27


def test_draws_for_two_tasks_agree_as_often_as_chance_has_it():
    both = [
        set(critical_layers(draw_layers(6, 2, seed, 0, "m/t"), "random", 2))
        & set(critical_layers(draw_layers(6, 2, seed, 0, "m/u"), "random", 2))
        for seed in range(600)
    ]
    assert 0.58 < sum(map(len, both)) / 600 < 0.76  # expected: 2 * 2 / 6


def test_a_draw_is_the_same_in_every_process():
    assert critical_layers(draw_layers(24, 3, 1, 2, "tiny-neox/lcm"), "random", 3) == (5, 12, 13)


def test_every_layer_is_drawn_about_equally_often():
    counts = sum(draw_layers(6, 2, 0, draw, "m/t")["critical"].to_numpy().astype(int) for draw in range(600))
    assert counts.min() > 150
    assert counts.max() < 250


def test_more_critical_layers_than_layers_is_refused():
    with pytest.raises(AllocationError, match="critical_layers: 7 is more than the 6 layers"):
        draw_layers(6, 7, 0, 0, "m/t")


def test_missing_policy_and_wrong_number_of_critical_layers_are_named():
    table = draw_layers(6, 2, 0, 0, "m/t")
    with pytest.raises(AllocationError, match=r"no policy 'score_change', only \['random'\]"):
        critical_layers(table, "score_change", 2)
    with pytest.raises(AllocationError, match=r"marks 2 layers .* asks for 3"):
        critical_layers(table, "random", 3)


def test_shapes_need_no_memory(pythia):
    assert {parameter.device for parameter in pythia.parameters()} == {torch.device("meta")}


LAYERS = st.integers(1, 8)


@st.composite
def budgets(draw):
    """Linears of layers of equal or of different sizes, ranks, weights, and the budget of a top-K allocation."""
    n_layers = draw(LAYERS)
    even = draw(st.booleans())
    linears = [
        BlockLinear(f"layers.{layer}.{name}", layer, draw(st.integers(1, 9)) if not even else 3, 5)
        for layer in range(n_layers)
        for name in ("up", "down")
    ]
    rank, critical_rank = draw(st.integers(1, 6)), draw(st.integers(7, 40))
    top = draw(st.sets(st.integers(0, n_layers - 1), min_size=1))
    weights = {layer: draw(st.floats(0, 1e6)) for layer in range(n_layers)}
    weights[draw(st.integers(0, n_layers - 1))] = draw(st.floats(1e-6, 1e6))
    return linears, rank, weights, adapter_parameters(linears, ranks_by_layer(linears, rank, critical_rank, top))


@given(budgets())
def test_allocations_spend_the_budget_as_nearly_as_ranks_allow_and_never_more(drawn):
    linears, rank, weights, budget = drawn
    ranks = ranks_under_budget(group_by_layer(linears), rank, weights, budget)
    left = budget - adapter_parameters(linears, ranks)
    assert left >= 0
    cost = {layer: sum(x.parameters_per_rank for x in linears if x.layer == layer) for layer in weights}
    assert left < min(cost[layer] for layer, weight in weights.items() if weight > 0)
    by_layer = {linear.layer: ranks[linear.name] for linear in linears}
    assert all(ranks[linear.name] == by_layer[linear.layer] for linear in linears)
    assert all(found >= rank for found in by_layer.values())
    assert all(by_layer[layer] == rank for layer, weight in weights.items() if weight == 0)
    if len(set(cost.values())) == 1:
        for a in weights:
            for b in weights:
                if weights[a] > weights[b]:
                    assert by_layer[a] >= by_layer[b]


@given(st.integers(1, 20), st.integers(1, 40), st.sets(st.integers(0, 11), min_size=1))
def test_equal_weights_give_the_ranks_of_a_top_allocation(rank, further, critical):
    linears = linears_of(12)
    expected = ranks_by_layer(linears, rank, rank + further, critical)
    weights = {layer: float(layer in critical) for layer in range(12)}
    budget = adapter_parameters(linears, expected)
    assert ranks_under_budget(group_by_layer(linears), rank, weights, budget) == expected


def test_rank_in_proportion_to_drift():
    linears = linears_of(4)
    ranks = ranks_under_budget(group_by_layer(linears), 2, {0: 5.0, 1: 3.0, 2: 2.0, 3: 0.0}, (4 * 2 + 10) * 18)
    assert [ranks[f"model.layers.{layer}.up"] for layer in range(4)] == [7, 5, 4, 2]


def test_a_budget_or_weights_that_allocate_nothing_are_refused():
    groups = group_by_layer(linears_of(2))
    with pytest.raises(AllocationError, match=r"budget of 71 parameters does not suffice for rank 2 everywhere"):
        ranks_under_budget(groups, 2, {0: 1.0}, 71)
    with pytest.raises(AllocationError, match=r"every weight is zero"):
        ranks_under_budget(groups, 2, {0: 0.0, 1: 0.0}, 100)


def drift_table(values, policy="score_change"):
    order = np.argsort(-np.array(values), kind="stable")
    rank_order = np.empty(len(values), dtype=int)
    rank_order[order] = np.arange(1, len(values) + 1)
    return pd.DataFrame(
        {"layer": range(len(values)), "policy": policy, "value": values, "rank_order": rank_order, "critical": False}
    )


@pytest.mark.parametrize(
    ("allocation", "weights"),
    [
        ("top", [1, 0, 0, 1, 0, 0]),
        ("inverted", [0, 0, 1, 0, 0, 1]),
        ("threshold", [0, 0, 0, 1, 0, 0]),
        ("proportional", [4.0, 3.0, 0.5, 20.0, 1.0, 0.0]),
    ],
)
def test_weights_of_layers(allocation, weights):
    table = pd.concat([drift_table([4.0, 3.0, 0.5, 20.0, 1.0, 0.0]), drift_table([1.0] * 6, "other")])
    found = layer_weights(table, "score_change", allocation, 2)
    assert [found[layer] for layer in range(6)] == weights


def test_where_no_layer_stands_out_the_first_is_critical():
    assert layer_weights(drift_table([1.0, 1.0, 1.0]), "score_change", "threshold", 2) == {0: 1.0, 1: 0.0, 2: 0.0}


@pytest.mark.parametrize(
    ("values", "allocation", "count", "message"),
    [
        ([1.0, float("nan")], "top", 1, "negative or not finite"),
        ([1.0, -1.0], "proportional", 1, "negative or not finite"),
        ([0.0, 0.0], "proportional", 1, "all values are zero"),
        ([1.0, 2.0], "inverted", 3, "critical_layers: 3 is more than the 2 layers"),
        ([1.0, 2.0], "other", 1, "'other' is unknown"),
    ],
)
def test_weights_that_cannot_be_obtained_are_refused(values, allocation, count, message):
    with pytest.raises(AllocationError, match=message):
        layer_weights(drift_table(values), "score_change", allocation, count)


def test_draws_with_without_and_only_of_layer_0():
    for seed in range(20):
        draws = {
            "with": draw_layers(24, 5, seed, 0, "m/t", include=(0,)),
            "without": draw_layers(24, 5, seed, 0, "m/t", exclude=(0,)),
            "only": draw_layers(24, 1, seed, 0, "m/t", include=(0,)),
        }
        chosen = {name: critical_layers(table, "random", 1 if name == "only" else 5) for name, table in draws.items()}
        assert 0 in chosen["with"]
        assert 0 not in chosen["without"]
        assert chosen["only"] == (0,)
        assert all(sorted(table["rank_order"]) == list(range(1, 25)) for table in draws.values())
        others = draws["with"].query("layer != 0").sort_values("rank_order")
        assert others["value"].is_monotonic_decreasing


def test_draws_that_cannot_be_are_refused():
    with pytest.raises(AllocationError, match=r"\[6\] are not layers of this model, which has layers 0\.\.5"):
        draw_layers(6, 2, 0, 0, "m/t", include=(6,))
    with pytest.raises(AllocationError, match=r"5 cannot be drawn from 6 layers without \[0, 1\]"):
        draw_layers(6, 5, 0, 0, "m/t", exclude=(0, 1))
    with pytest.raises(ValueError, match=r"exclude_layers: \[0\] are also in include_layers"):
        RandomLoraMethod(kind="random_lora", rank=1, critical_rank=2, include_layers=(0,), exclude_layers=(0,))
    with pytest.raises(ValueError, match=r"2 layers exceed critical_layers 1"):
        RandomLoraMethod(kind="random_lora", rank=1, critical_rank=2, critical_layers=1, include_layers=(0, 1))
    with pytest.raises(ValueError, match=r"critical_rank: 2 is not above rank 2"):
        CircuitLoraMethod(kind="circuit_lora", rank=2, critical_rank=2, phase_1="a", allocation="proportional")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"credit": "counts", "policy": "excess"}, r"credit: counts counts edges .* policy excess would be ignored"),
        ({"credit": "counts", "policy": "score_change_normalised"}, r"remove policy"),
        ({"allocation": "per_module", "policy": "excess"}, r"policy: excess is a value of layers"),
        ({"allocation": "per_module", "credit": "target"}, r"credit: target credits layers.* remove credit"),
    ],
)
def test_policies_and_credits_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CircuitLoraMethod(kind="circuit_lora", rank=2, critical_rank=8, phase_1="a", **settings)
