"""Ranks by other rules than drift, from what they follow to a trained adapter; and the way of ranks into plain PEFT."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from small_models import examples, neox, random_model, save
from test_finetune import ORIGIN, TRAINING, run
from torch.nn import functional
from transformers import AutoModelForCausalLM, GPTNeoXForCausalLM

import allocate_ranks
import export_peft_experiment
import measure_activation_ranks
import measure_gradients
from circuitdrift.config.methods import AdaLoraMethod, AllocatedLoraMethod
from circuitdrift.decoder.linears import block_linears
from circuitdrift.models.loading import load_model
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_json, read_table, write_json, write_table
from circuitdrift.training.adapters import AdapterSize, attach_adapters, found_adapters
from circuitdrift.training.checkpoints import load_checkpoint
from circuitdrift.training.eva import activation_ranks
from circuitdrift.training.examples import Examples
from circuitdrift.training.weight_gradients import gradients_of_linears

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
WIDTHS = {"hidden_size": 16, "intermediate_size": 64}  # a unit of rank: 64, 32, 80 and 80 parameters


def method(allocation: str, **settings: object) -> AllocatedLoraMethod:
    ranks = {"rank": 1, "critical_rank": 4, "critical_layers": 1, "kind": "allocated_lora"}
    return AllocatedLoraMethod.model_validate({**ranks, "allocation": allocation, **settings})


def distinct_model() -> GPTNeoXForCausalLM:
    """A random model whose parts do not get equal inputs, as those of a new parallel model do."""
    torch.manual_seed(0)
    model = neox(**WIDTHS)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.5)
    return model.eval()


# ------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "opt", "qwen2"])
def test_gradients_are_those_of_one_example_after_the_other(architecture):
    torch.manual_seed(0)
    model = random_model(architecture).eval()
    table = examples(7, lengths=(5, 6), answer_tokens=(1, 2), instruction=(3, 4))
    found = gradients_of_linears(model, Examples(table, CPU)).set_index("module")
    linears = {linear.name: model.get_submodule(linear.name).weight for linear in block_linears(model)}
    assert list(found.index) == list(linears)
    squares = dict.fromkeys(linears, 0.0)
    totals = {name: torch.zeros_like(weight) for name, weight in linears.items()}
    for prompt, answer in zip(table["clean_ids"], table["answer_ids"], strict=True):
        tokens = torch.tensor([[*prompt, *answer]])
        logits = model(input_ids=tokens).logits[0, len(prompt) - 1 : -1]
        loss = functional.cross_entropy(logits, torch.tensor(answer, dtype=torch.int64), reduction="sum")
        for (name, weight), gradient in zip(
            linears.items(), torch.autograd.grad(loss, list(linears.values())), strict=True
        ):
            squares[name] += float((gradient**2).mean()) / len(table)
            totals[name] += gradient / len(table)
            assert weight.requires_grad
    assert dict(found["fisher"]) == pytest.approx(squares, rel=1e-4)
    assert dict(found["gradient_norm"]) == pytest.approx(
        {name: (weight.detach() * totals[name]).abs().mean().item() for name, weight in linears.items()}, rel=1e-4
    )
    assert dict(found["weights"]) == {name: weight.numel() for name, weight in linears.items()}


# ------------------------------------------------------------------------------------------------------------- EVA


def test_ranks_by_activations_are_the_directions_of_the_largest_shares_of_variance():
    model, split = distinct_model(), Examples(examples(120), CPU)
    rank = 3
    inputs: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(linear.name).register_forward_hook(
            lambda module, args, output, name=linear.name: inputs.update({name: args[0].flatten(0, -2)})
        )
        for linear in block_linears(model)
    ]
    with torch.no_grad():
        model(input_ids=split.batches[0].tokens)
    for handle in handles:
        handle.remove()
    shares = []
    for name, rows in inputs.items():
        variance = torch.linalg.svdvals(rows - rows.mean(dim=0)) ** 2
        shares += [(float(share), name) for share in (variance / variance.sum())[: 2 * rank]]
    kept = [name for _, name in sorted(shares, reverse=True)[: rank * len(inputs)]]
    found = activation_ranks(model, split, rank)
    assert found == {name: kept.count(name) for name in inputs}
    assert len(set(found.values())) > 2


# ---------------------------------------------------------------------------------------------------------- stages


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A model of two blocks, its splits, and what allocations follow, each as its stage writes it."""
    folder = tmp_path_factory.mktemp("study")
    manifest = save(distinct_model(), folder / "models" / "tiny")
    train = folder / "train.parquet"
    write_table(train, examples(32, lengths=(5, 6)), "examples", ORIGIN)
    gradients, eva = folder / "gradients.parquet", folder / "activation_ranks.parquet"
    measure_gradients.main(manifest=manifest, train=train, gradients=gradients, device="cpu", provenance=ORIGIN)
    measure_activation_ranks.main(
        manifest=manifest, train=train, activation_ranks=eva, method=method("eva"), device="cpu", provenance=ORIGIN
    )
    adalora = AdaLoraMethod(kind="adalora", initial_rank=4, target_rank=2, learning_rate=2e-2)
    checkpoints = run(manifest, folder / "adalora", adalora, training=TRAINING.model_copy(update={"epochs": 6}))
    layers = pd.DataFrame(
        [("00", "03", layer, "edge", 1, 0, change, change, change, change) for layer, change in ((0, 5.0), (1, 2.0))],
        columns=[
            "from_checkpoint", "to_checkpoint", "layer", "level", "added", "removed", "score_change",
            "score_change_normalised", "score_change_at_target", "score_change_normalised_at_target",
        ],
    )  # fmt: skip
    write_table(folder / "layers.parquet", layers, "layers", ORIGIN)
    follows = {
        "fisher": {"gradients": gradients}, "gradient_norm": {"gradients": gradients},
        "eva": {"activation_ranks": eva}, "adalora": {"checkpoint": checkpoints / "03"},
        "inverted": {"layers": folder / "layers.parquet"},
    }  # fmt: skip
    return manifest, train, follows


def allocate(study, folder, rule, seed=0):
    manifest, _, follows = study
    nothing = dict.fromkeys(("gradients", "activation_ranks", "layers", "checkpoint"))
    allocate_ranks.main(
        manifest=manifest, **(nothing | follows.get(rule.allocation, {})), ranks=folder / "ranks.parquet",
        adapter_config=folder / "adapter_config.json", method=rule, training=TRAINING, seed=seed,
        provenance=Provenance.detached(model="tiny", task="lcm"),
    )  # fmt: skip
    return read_table(folder / "ranks.parquet", "ranks").set_index("module")


RULES = [
    method("random"), method("inverted", phase_1="a"), method("mlp", critical_rank=9), method("fisher"),
    method("gradient_norm"), method("gradient_norm", by="modules"), method("eva"), method("adalora", phase_1="b"),
    method("uniform", critical_rank=3),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.allocation}-{rule.by}")
def test_every_allocation_reaches_peft_with_its_ranks_and_one_scale(tmp_path, study, rule):
    table = allocate(study, tmp_path, rule)
    assert table["parameters"].sum() == (rule.rank + rule.critical_rank) * 256
    adapted = attach_adapters(distinct_model(), LoraConfig.from_pretrained(str(tmp_path)), seed=0)
    ranks = table["rank"][table["rank"] > 0]
    assert found_adapters(adapted) == {name: AdapterSize(rank, 2.0) for name, rank in ranks.items()}
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert trained == table["parameters"].sum()
    first = (tmp_path / "adapter_config.json").read_bytes(), (tmp_path / "ranks.parquet").read_bytes()
    allocate(study, tmp_path, rule)
    assert first == ((tmp_path / "adapter_config.json").read_bytes(), (tmp_path / "ranks.parquet").read_bytes())


def test_ranks_follow_what_their_allocation_names(tmp_path, study):
    inverted = allocate(study, tmp_path, method("inverted", phase_1="a"))
    assert inverted.groupby("layer")["rank"].agg(["min", "max"]).to_numpy().tolist() == [[1, 1], [4, 4]]
    gradients = read_table(study[2]["fisher"]["gradients"], "gradients")
    total = (gradients["fisher"] * gradients["weights"]).groupby(gradients["layer"]).sum()
    fisher = allocate(study, tmp_path, method("fisher"))
    assert set(fisher.loc[fisher["rank"] == 4, "layer"]) == {total.idxmax()}
    modules = allocate(study, tmp_path, method("gradient_norm", by="modules"))
    assert modules["value"].tolist() == gradients["gradient_norm"].tolist()
    reused = allocate(study, tmp_path, method("adalora", phase_1="b"))
    assert dict(reused["value"]) == read_json(study[2]["adalora"]["checkpoint"] / "ranks.json")
    draws = {tuple(allocate(study, tmp_path, method("random"), seed)["rank"]) for seed in range(6)}
    assert len(draws) == 2
    assert allocate(study, tmp_path, method("uniform", critical_rank=3))["value"].isna().all()


def test_modules_without_rank_stay_as_they_are_in_training(tmp_path, study):
    rule = method("mlp", critical_rank=9)
    allocate(study, tmp_path / "allocation", rule)
    config = LoraConfig.from_pretrained(str(tmp_path / "allocation"))
    assert (config.exclude_modules, set(config.target_modules)) == (None, {"dense_h_to_4h", "dense_4h_to_h"})
    checkpoints = run(study[0], tmp_path / "run", rule, adapter_config=tmp_path / "allocation" / "adapter_config.json")
    base, merged = load_checkpoint(study[0], None, CPU), load_checkpoint(study[0], checkpoints / "03", CPU)
    changed = {
        linear.name.split(".")[-1]: not torch.equal(*(m.get_submodule(linear.name).weight for m in (base, merged)))
        for linear in block_linears(base)
    }
    assert changed == {"query_key_value": False, "dense": False, "dense_h_to_4h": True, "dense_4h_to_h": True}


def test_single_modules_without_rank_are_excluded_by_their_full_names(tmp_path, study):
    adapted = {"gpt_neox.layers.1.mlp.dense_h_to_4h": 14, "gpt_neox.layers.0.attention.dense": 5}
    checkpoint = tmp_path / "checkpoint"
    found = read_json(study[2]["adalora"]["checkpoint"] / "ranks.json")
    write_json(checkpoint / "ranks.json", {name: adapted.get(name, 0) for name in found})
    rule = method("adalora", phase_1="b")
    table = allocate((*study[:2], {"adalora": {"checkpoint": checkpoint}}), tmp_path, rule)
    assert {name: rank for name, rank in table["rank"].items() if rank} == adapted
    config = LoraConfig.from_pretrained(str(tmp_path))
    assert config.exclude_modules == {"gpt_neox.layers.0.mlp.dense_h_to_4h", "gpt_neox.layers.1.attention.dense"}
    sizes = found_adapters(attach_adapters(distinct_model(), config, seed=0))
    assert sizes == {name: AdapterSize(rank, 2.0) for name, rank in adapted.items()}


# ------------------------------------------------------------------------------------------------------- plain PEFT


def test_the_documented_script_trains_the_ranks_in_plain_peft(tmp_path, study, monkeypatch):
    manifest, train, _ = study
    ranks = allocate(study, tmp_path / "allocation", method("eva"))["rank"]
    folder, adapter = str(manifest.parent), str(tmp_path / "adapter")
    script = ROOT / "docs" / "examples" / "train_with_ranks.py"
    monkeypatch.setattr(sys, "argv", [str(script), folder, str(tmp_path / "allocation"), str(train), adapter])
    torch.manual_seed(0)
    trained = runpy.run_path(str(script))["model"].eval()
    tokens = torch.arange(2, 14).reshape(2, 6)

    def logits(model):
        with torch.inference_mode():
            return model(input_ids=tokens).logits

    base = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert (logits(trained) - logits(base)).abs().max() > 1e-2
    loaded = PeftModel.from_pretrained(base, adapter).eval()
    found = {
        name: (module.r["default"], module.scaling["default"])
        for name, module in loaded.get_base_model().named_modules()
        if isinstance(module, LoraLayer)
    }
    assert found == {name: (rank, 2.0) for name, rank in ranks.items() if rank}
    expected = logits(trained)
    torch.testing.assert_close(logits(loaded), expected)
    torch.testing.assert_close(logits(loaded.merge_and_unload()), expected, rtol=1e-4, atol=1e-5)
    losses = [answer_loss(model, train) for model in (load_model(manifest, CPU), trained)]
    assert losses[1] < losses[0]


def answer_loss(model, train):
    rows = read_table(train, "examples")
    with torch.inference_mode():
        return np.mean(
            [
                functional.cross_entropy(
                    model(input_ids=torch.tensor(prompt)[None]).logits[:, -1], torch.tensor(answer[:1]).long()
                ).item()
                for prompt, answer in zip(rows["clean_ids"], rows["answer_ids"], strict=True)
            ]
        )


BENCHMARK = {
    "model_id": str, "dtype": str, "max_seq_length": int, "batch_size": int, "batch_size_eval": int, "max_steps": int,
    "eval_steps": int, "compile": bool, "use_gc": bool, "query_template": str, "seed": int,
    "grad_norm_clip": (int, float), "optimizer_type": str, "optimizer_kwargs": dict, "lr_scheduler": (str, type(None)),
    "use_amp": bool, "autocast_adapter_dtype": bool, "generation_kwargs": dict,
    "attn_implementation": (str, type(None)), "init_kv_cache_prefix": (str, type(None)),
}  # fmt: skip
"""Keys and types of training_params.json in peft's method_comparison; any other key is an error there."""


def test_an_exported_experiment_has_the_format_of_the_method_comparison_of_peft(tmp_path, study, caplog):
    manifest, train, _ = study
    rule = method("eva")
    allocate(study, tmp_path / "allocation", rule)
    experiment = tmp_path / "experiments" / "lora" / "tiny-lcm-eva-seed-7"
    export_peft_experiment.main(
        manifest=manifest, train=train, adapter_config=tmp_path / "allocation" / "adapter_config.json", trials=None,
        experiment=experiment / "adapter_config.json", training_params=experiment / "training_params.json",
        method=rule, training=TRAINING, seed=7,
    )  # fmt: skip
    params = json.loads((experiment / "training_params.json").read_text())
    assert all(isinstance(value, BENCHMARK[key]) for key, value in params.items())
    assert params["dtype"] in {"float32", "float16", "bfloat16", "int8", "int4"}
    assert 0 < params["eval_steps"] <= params["max_steps"] == 8
    assert hasattr(torch.optim, params["optimizer_type"])
    assert params["lr_scheduler"] in {None, "cosine"}
    torch.optim.AdamW([torch.zeros(1)], **params["optimizer_kwargs"])
    assert (params["seed"], params["batch_size"], params["optimizer_kwargs"]["lr"]) == (7, 8, 1e-2)
    assert "write the path of its folder as model_id" in caplog.text
    read = PeftConfig.from_pretrained(str(experiment))
    assert read.to_dict() == PeftConfig.from_pretrained(str(tmp_path / "allocation")).to_dict()
