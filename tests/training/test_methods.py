"""Every method, from its configuration through training to a checkpoint that loads and merges."""

import json
from typing import get_args

import pandas as pd
import pytest
import torch
from peft import PeftModel
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from small_models import ARCHITECTURES, examples, neox, random_model, save
from test_resume import outputs, run, stop_after
from transformers import GPTNeoXConfig

from circuitdrift.config.methods import (
    AdaLoraMethod,
    AllocatedLoraMethod,
    CircuitLoraMethod,
    DoraMethod,
    EvaLoraMethod,
    FullMethod,
    Ia3Method,
    LoraMethod,
    MethodConfig,
    RandomLoraMethod,
    RsLoraMethod,
    Training,
)
from circuitdrift.decoder.linears import block_linears, shape_of_config
from circuitdrift.models.loading import load_model
from circuitdrift.training import resume
from circuitdrift.training.adalora import final_parameter_counts, rank_schedule
from circuitdrift.training.adapters import (
    AdapterError,
    AdapterSize,
    ScaledSide,
    attach_adapters,
    parameter_counts,
    verify_adapters,
    wanted_adapters,
)
from circuitdrift.training.checkpoints import load_checkpoint
from circuitdrift.training.eva import start_from_activations
from circuitdrift.training.examples import Examples
from circuitdrift.training.loop import _optimizer, fine_tune, plan_run
from circuitdrift.training.preparation import BUILDERS, adapter_config_of, prepare_model

CPU = torch.device("cpu")
BASE = ("tiny", None)
TOKENS = torch.arange(2, 14).reshape(2, 6)
TRAINING = Training(epochs=6, batch_size=8, checkpoints=4, learning_rate_lora=1e-2)
ADALORA = AdaLoraMethod(kind="adalora", initial_rank=6, target_rank=2, learning_rate=2e-2)
METHODS = {
    "lora": LoraMethod(kind="lora", rank=3),
    "dora": DoraMethod(kind="dora", rank=3),
    "rslora": RsLoraMethod(kind="rslora", rank=4, alpha=3.0),
    "eva_lora": EvaLoraMethod(kind="eva_lora", rank=3),
    "adalora": ADALORA,
    "ia3": Ia3Method(kind="ia3", learning_rate=5e-2),
}


@pytest.fixture(autouse=True)
def a_state_after_every_step(monkeypatch):
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_STATES", 0.0)


def test_every_kind_of_method_has_a_builder_or_needs_none():
    without = {FullMethod, CircuitLoraMethod, RandomLoraMethod, AllocatedLoraMethod}
    assert set(get_args(get_args(MethodConfig)[0])) == {*BUILDERS, *without}
    assert not without & set(BUILDERS)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=TOKENS).logits.float()


def adapted_model(method, model=None, steps=24, seed=0):
    torch.manual_seed(0)
    model = random_model("gpt_neox") if model is None else model
    return prepare_model(model, BASE, method, 2.0, None, Examples(examples(64), CPU), steps, seed)


def plan(training=TRAINING, method=ADALORA, n=32):
    return plan_run(method, training, n, torch.float32, 0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", METHODS)
def test_trained_checkpoints_merge_to_the_model_that_was_trained(tmp_path, architecture, name):
    torch.manual_seed(0)
    manifest = save(random_model(architecture), tmp_path / "models" / "tiny")
    run(manifest, tmp_path / "run", METHODS[name], training=TRAINING)
    checkpoints = tmp_path / "run" / "run" / "checkpoints"
    base = load_checkpoint(manifest, None, CPU)
    # A start from zero matrices, or from factors of one: checkpoint 00 is the base model.
    torch.testing.assert_close(logits(load_checkpoint(manifest, checkpoints / "00", CPU)), logits(base))
    for number in ("02", "04"):
        merged = load_checkpoint(manifest, checkpoints / number, CPU)
        unmerged = PeftModel.from_pretrained(load_model(manifest, CPU), str(checkpoints / number)).eval()
        torch.testing.assert_close(logits(merged), logits(unmerged), rtol=1e-3, atol=1e-4)
        assert (logits(merged) - logits(base)).abs().max() > 1e-3
        assert type(merged) is type(base)
        assert merged.state_dict().keys() == base.state_dict().keys()
        assert torch.equal(merged.get_input_embeddings().weight, base.get_input_embeddings().weight)
    log = pd.read_parquet(tmp_path / "run" / "run" / "training_log.parquet")
    assert log["loss"].tail(4).mean() < log["loss"].head(4).mean()


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2"])
@pytest.mark.parametrize("name", METHODS)
def test_adapters_of_a_bfloat16_model_are_trained_and_saved_in_float32(tmp_path, architecture, name):
    torch.manual_seed(0)
    manifest = save(random_model(architecture), tmp_path / "models" / "tiny", dtype="bfloat16")
    training = Training(epochs=2, batch_size=8, checkpoints=2, learning_rate_lora=1e-2, precision="bfloat16")
    run(manifest, tmp_path / "run", METHODS[name], training=training)
    folder = tmp_path / "run" / "run" / "checkpoints" / "02"
    assert {tensor.dtype for tensor in load_file(folder / "adapter_model.safetensors").values()} == {torch.float32}
    merged = load_checkpoint(manifest, folder, CPU)
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    assert logits(merged).isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", METHODS)
def test_exactly_the_linears_of_the_blocks_are_adapted(architecture, name):
    names = ARCHITECTURES[architecture][1]
    adapted = adapted_model(METHODS[name], random_model(architecture))
    found = [
        path for path, module in adapted.get_base_model().named_modules() if isinstance(module, LoraLayer | IA3Layer)
    ]
    linears = block_linears(random_model(architecture))
    assert sorted(found) == sorted(linear.name for linear in linears)
    assert {path.rsplit(".", 1)[-1] for path in found} == names
    assert not any("lm_head" in path or "embed" in path for path in found)
    trainable = [path for path, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert all("lora_" in path or "ia3_" in path for path in trainable)


PYTHIA_1_4B = GPTNeoXConfig(
    hidden_size=2048, num_hidden_layers=24, num_attention_heads=16, intermediate_size=8192, vocab_size=50304,
    tie_word_embeddings=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("method", "percent"),
    [
        (LoraMethod(kind="lora", rank=2), 0.1111),
        (LoraMethod(kind="lora", rank=8), 0.4428),
        (LoraMethod(kind="lora", rank=13), 0.7175),
        (LoraMethod(kind="lora", rank=16), 0.8816),
        (LoraMethod(kind="lora", rank=26), 1.4248),
        (LoraMethod(kind="lora", rank=32), 1.7479),
        (AdaLoraMethod(kind="adalora"), 1.7481),
        (Ia3Method(kind="ia3"), 0.0313),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_published_shares_are_those_of_the_adapters_that_peft_adds(method, percent):
    model = shape_of_config(PYTHIA_1_4B)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_414_647_808
    adapted = attach_adapters(model, adapter_config_of(method, model, 2.0, 1000, BASE), seed=0)
    trainable, total = parameter_counts(adapted)
    assert round(100 * trainable / total, 4) == percent


def test_dora_adds_one_magnitude_for_each_output():
    plain, dora = (parameter_counts(adapted_model(METHODS[name]))[0] for name in ("lora", "dora"))
    assert dora - plain == sum(linear.out_features for linear in block_linears(random_model("gpt_neox")))


def test_adalora_trains_one_value_for_each_rank_beside_the_vectors():
    adapted = adapted_model(ADALORA)
    linears = block_linears(random_model("gpt_neox"))
    assert parameter_counts(adapted)[0] == sum(6 * (linear.parameters_per_rank + 1) for linear in linears)


def test_scale_of_rank_stabilised_lora_falls_with_the_root_of_the_rank():
    linears = block_linears(random_model("gpt_neox"))
    model = random_model("gpt_neox")
    wanted = wanted_adapters(adapter_config_of(METHODS["rslora"], model, 2.0, 10, BASE), linears)
    assert set(wanted.values()) == {AdapterSize(4, 1.5)}
    adapted = attach_adapters(model, adapter_config_of(METHODS["rslora"], model, 2.0, 10, BASE), seed=0)
    with pytest.raises(AdapterError, match=r"wanted rank 4 and scale 0\.75, found rank 4 and scale 1\.5"):
        verify_adapters(adapted, {linear.name: AdapterSize(4, 0.75) for linear in linears})


def test_ia3_multiplies_outputs_of_attention_and_inputs_of_the_mlp():
    for architecture in ARCHITECTURES:
        model = random_model(architecture)
        wanted = wanted_adapters(adapter_config_of(METHODS["ia3"], model, 2.0, 10, BASE), block_linears(model))
        for name, side in wanted.items():
            assert side == ScaledSide("output" if "attn" in name or "attention" in name else "input"), name
    adapted = attach_adapters(model, adapter_config_of(METHODS["ia3"], model, 2.0, 10, BASE), seed=0)
    name = next(iter(wanted))
    with pytest.raises(AdapterError, match=rf"{name}: wanted factors on the input, found factors on the output"):
        verify_adapters(adapted, {**wanted, name: ScaledSide("input")})


def test_ia3_factors_are_not_decayed():
    method = METHODS["ia3"]
    optimizer = _optimizer(adapted_model(method).get_base_model(), plan(method=method))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0]
    optimizer = _optimizer(adapted_model(METHODS["dora"]).get_base_model(), plan(method=method))
    assert {len(group["params"]): group["weight_decay"] for group in optimizer.param_groups} == {16: 0.01, 8: 0.0}


# ------------------------------------------------------------------------------------------------------- AdaLoRA


def test_adalora_ranks_move_and_end_at_the_target(tmp_path):
    torch.manual_seed(0)
    manifest = save(neox(), tmp_path / "models" / "tiny")
    run(manifest, tmp_path / "run", ADALORA, training=TRAINING)
    checkpoints = tmp_path / "run" / "run" / "checkpoints"
    ranks = [json.loads((folder / "ranks.json").read_text()) for folder in sorted(checkpoints.iterdir())]
    totals = [sum(found.values()) for found in ranks]
    assert set(ranks[0].values()) == {6}
    assert totals[0] == 8 * 6
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == 8 * 2
    assert len(set(ranks[-1].values())) > 1, "every module has the same rank: nothing was allocated"
    tensors = load_file(checkpoints / "04" / "adapter_model.safetensors")
    values = {name: tensor for name, tensor in tensors.items() if name.endswith("lora_E")}
    assert {int((tensor != 0).sum()) for tensor in values.values()} == set(ranks[-1].values())
    for name, tensor in values.items():
        module = name.removeprefix("base_model.model.").removesuffix(".lora_E")
        assert int((tensor != 0).sum()) == ranks[-1][module]
    counted = pd.read_parquet(tmp_path / "run" / "run" / "accuracy.parquet")
    base = neox()
    per_rank = {linear.name: linear.parameters_per_rank + 1 for linear in block_linears(base)}
    expected = sum(rank * per_rank[name.removeprefix("base_model.model.")] for name, rank in ranks[-1].items())
    assert set(counted["trainable_parameters"]) == {expected}
    first = 6 * sum(per_rank.values())
    total = parameter_counts(adapted_model(ADALORA))[1] - first + expected
    assert counted["trainable_share"].tolist() == pytest.approx([expected / total] * len(counted))


def test_parameters_before_the_first_cut_and_of_other_methods_are_all_counted():
    for name in ("adalora", "lora"):
        adapted = adapted_model(METHODS[name])
        assert final_parameter_counts(adapted) == parameter_counts(adapted)


def test_without_the_call_after_each_step_the_ranks_would_not_move(monkeypatch):
    adapted = adapted_model(ADALORA)
    split = Examples(examples(32), CPU)
    monkeypatch.setattr("circuitdrift.training.adalora.RankSchedule.after_step", lambda self, step: None)
    fine_tune(adapted, split, plan(), lambda number: None)
    assert set(rank_schedule(adapted).ranks().values()) == {6}


def test_adalora_penalty_is_what_peft_adds_to_the_models_own_loss():
    adapted = adapted_model(ADALORA)
    inputs = {"input_ids": TOKENS, "labels": TOKENS}
    plain = adapted.get_base_model()(**inputs).loss
    assert rank_schedule(adapted).penalty().item() == pytest.approx((adapted(**inputs).loss - plain).item(), rel=1e-4)


@pytest.mark.parametrize("steps", [5, 12, 24, 1000])
def test_adalora_schedule_lies_within_the_run(steps):
    model = shape_of_config(PYTHIA_1_4B)
    config = adapter_config_of(AdaLoraMethod(kind="adalora"), model, 2.0, steps, BASE)
    assert 0 <= config.tinit < config.total_step - config.tfinal <= config.total_step == steps
    assert 1 <= config.deltaT <= config.total_step - config.tfinal - config.tinit
    assert (config.init_r, config.target_r, config.lora_alpha) == (32, 16, 64)


def test_adalora_without_room_for_its_schedule_is_refused():
    with pytest.raises(AdapterError, match=r"3 steps leaves 2|3 steps leaves 1"):
        adapter_config_of(AdaLoraMethod(kind="adalora", final_share=0.6), shape_of_config(PYTHIA_1_4B), 2.0, 3, BASE)
    with pytest.raises(ValueError, match=r"target_rank: 8 is not below initial_rank 8"):
        AdaLoraMethod(kind="adalora", initial_rank=8, target_rank=8)
    with pytest.raises(ValueError, match=r"leave no steps to prune ranks in"):
        AdaLoraMethod(kind="adalora", initial_share=0.5, final_share=0.5)


@pytest.mark.parametrize("step", [1, 7, 13, 17, 20])
def test_adalora_continues_where_it_was_stopped(tmp_path, monkeypatch, step):
    torch.manual_seed(0)
    manifest = save(neox(hidden_dropout=0.1), tmp_path / "models" / "tiny")
    expected = run(manifest, tmp_path / "uninterrupted", ADALORA, training=TRAINING)
    stop_after(step, manifest, tmp_path / "stopped", monkeypatch, ADALORA, training=TRAINING)
    assert run(manifest, tmp_path / "stopped", ADALORA, training=TRAINING) == expected


@pytest.mark.parametrize("name", ["ia3", "eva_lora", "dora"])
def test_other_methods_continue_where_they_were_stopped(tmp_path, monkeypatch, name):
    torch.manual_seed(0)
    manifest = save(neox(), tmp_path / "models" / "tiny")
    expected = run(manifest, tmp_path / "uninterrupted", METHODS[name], training=TRAINING)
    stop_after(9, manifest, tmp_path / "stopped", monkeypatch, METHODS[name], training=TRAINING)
    assert run(manifest, tmp_path / "stopped", METHODS[name], training=TRAINING) == expected
    assert outputs(tmp_path / "stopped") == expected


# ----------------------------------------------------------------------------------------------------------- EVA


def test_eva_starts_from_the_principal_directions_of_each_linears_inputs():
    torch.manual_seed(0)
    model = random_model("gpt_neox").eval()
    split = Examples(examples(64), CPU)
    linear = "gpt_neox.layers.1.mlp.dense_4h_to_h"
    inputs = []
    handle = model.get_submodule(linear).register_forward_hook(lambda m, args, output: inputs.append(args[0]))
    with torch.no_grad():
        model(input_ids=split.batches[0].tokens)
    handle.remove()
    rows = inputs[0].flatten(0, 1)
    directions = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh[:2]
    method = EvaLoraMethod(kind="eva_lora", rank=2)
    adapted = prepare_model(model, BASE, method, 2.0, None, split, 10, 0)
    found = adapted.get_base_model().get_submodule(linear).lora_A["default"].weight
    overlap = torch.linalg.svdvals(found @ directions.T)  # cosines of the angles between the two planes
    assert overlap.min() > 0.99
    assert torch.equal(adapted.get_base_model().get_submodule(linear).lora_B["default"].weight.sum(), torch.tensor(0.0))


def test_eva_depends_on_the_data_alone_and_leaves_a_plain_lora_configuration():
    def first_matrices(data_seed, seed=0):
        torch.manual_seed(0)
        split = Examples(examples(64, seed=data_seed), CPU)
        adapted = prepare_model(random_model("gpt_neox"), BASE, METHODS["eva_lora"], 2.0, None, split, 10, seed)
        config = adapted.peft_config["default"]
        assert (config.init_lora_weights, config.eva_config, config.rank_pattern) == (True, None, {})
        assert config.target_modules == adapted_model(METHODS["lora"]).peft_config["default"].target_modules
        return [parameter.detach() for name, parameter in adapted.named_parameters() if "lora_A" in name]

    first = first_matrices(0)
    assert all(torch.equal(a, b) for a, b in zip(first, first_matrices(0, seed=1), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, first_matrices(1), strict=True))


def test_eva_that_cannot_be_determined_is_refused(monkeypatch):
    split = Examples(examples(2), CPU)
    with pytest.raises(AdapterError, match=r"eva: no batch of prompts has 16 tokens; lower rank"):
        prepare_model(random_model("gpt_neox"), BASE, EvaLoraMethod(kind="eva_lora", rank=16), 2.0, None, split, 10, 0)
    model = random_model("gpt_neox")
    adapted = attach_adapters(model, adapter_config_of(METHODS["eva_lora"], model, 2.0, 10, BASE), seed=0)
    monkeypatch.setattr("circuitdrift.training.eva.MOST_BATCHES", 2)
    with pytest.raises(AdapterError, match=r"have not settled .* fewer than 3 directions; lower rank"):
        start_from_activations(adapted, Examples(examples(64), CPU))
