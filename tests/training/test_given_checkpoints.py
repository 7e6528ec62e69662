"""Checkpoints that were trained elsewhere: fetched, checked against their base model, loaded, scored and compared.

The oracles are peft's own loading and merging, and the same model loaded as a model of its own.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
)
from small_models import examples, llama, neox, save
from transformers import AutoModelForCausalLM, PreTrainedModel

import allocate_circuit_lora
import compare_circuits
import fetch_checkpoint
import measure_accuracy
import score_edges
import select_base_circuit
from circuitdrift.circuits.score_file import read_scores
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.config.given import GIVEN, DriftRanks, GivenCheckpoint
from circuitdrift.config.methods import Training
from circuitdrift.decoder.anatomy import AnatomyError
from circuitdrift.models import hub
from circuitdrift.models.caches import hub_folder
from circuitdrift.models.manifest import ManifestError, read_manifest
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.checkpoints import load_checkpoint
from circuitdrift.training.evaluation import evaluate
from circuitdrift.training.examples import Examples

CPU = torch.device("cpu")
RUN = {"model": "base", "task": "t", "method": GIVEN, "seed": "0"}
NEOX_TARGETS = ["query_key_value", "dense_4h_to_h"]
LLAMA_TARGETS = ["q_proj", "down_proj"]


def changed(model: PreTrainedModel, seed: int = 1) -> PreTrainedModel:
    """The same model with other weights."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def with_adapter(base: Path, folder: Path, config, seed: int = 2) -> Path:
    """A folder that plain peft writes: an adapter on a saved base model, none of whose values is the initial one."""
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base.parent), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter += 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(folder)
    return folder


def fetched(base: Path, number: str, **given: Path | str) -> Path:
    """The folder of a given checkpoint, as the rule makes it."""
    checkpoint = base.parent / GIVEN / number
    fetch_checkpoint.main(base, checkpoint, GivenCheckpoint.model_validate(given))
    return checkpoint


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.arange(2, 12)[None]).logits


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Manifest of a two-block GPT-NeoX."""
    torch.manual_seed(0)
    return save(neox(), tmp_path / "base")


# ------------------------------------------------------------------------------------- from folders to tables


def scored(base: Path, checkpoint: Path | None, folder: Path) -> Path:
    """The score file of a checkpoint, or of the base model, and its circuit beside it."""
    origin = Provenance.detached(**RUN) if checkpoint else Provenance.detached(model="base", task="t")
    split, scores = folder / "circuit.parquet", folder / "scores.safetensors"
    folder.mkdir()
    write_table(split, examples(6), "examples", Provenance.detached())
    score_edges.main(base, split, [checkpoint] if checkpoint else [], [scores], Attribution(steps=2), "cpu", origin)
    choice = Selection(fraction=0.2)
    select_base_circuit.main(scores, folder / "edges.parquet", folder / "nodes.parquet", choice, origin)
    return scores


def test_given_checkpoints_have_the_circuits_of_their_models_and_drift_as_a_run(base: Path, tmp_path: Path) -> None:
    """01 is the base model again, 02 another model, 03 an adapter."""
    save(neox().from_pretrained(base.parent), tmp_path / "same")
    other = save(changed(neox().from_pretrained(base.parent)), tmp_path / "other")
    adapter = with_adapter(base, tmp_path / "adapter", LoraConfig(r=2, target_modules=NEOX_TARGETS))
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.parent), adapter).merge_and_unload()
    alone = {"02": other, "03": save(merged, tmp_path / "merged")}

    given = [
        fetched(base, "01", path=tmp_path / "same"),
        fetched(base, "02", path=tmp_path / "other"),
        fetched(base, "03", adapter=adapter),
    ]
    scores = [scored(base, None, tmp_path / "s00")]
    scores += [scored(base, checkpoint, tmp_path / f"s{checkpoint.name}") for checkpoint in given]
    assert [read_scores(path).checkpoint for path in scores] == ["00", "01", "02", "03"]
    for number, manifest in alone.items():
        own = read_scores(scored(manifest, None, tmp_path / f"own{number}")).scores
        torch.testing.assert_close(read_scores(scores[int(number)]).scores, own, rtol=0, atol=1e-6)
        assert not torch.allclose(own, read_scores(scores[0]).scores)

    drift = {name: tmp_path / f"{name}.parquet" for name in ("transitions", "summary", "layers")}
    tables = {name: [path.with_name(f"{name}.parquet") for path in scores] for name in ("edges", "nodes")}
    compare_circuits.main(**tables, **drift, provenance=Provenance.detached(**RUN))
    layers = read_table(drift["layers"], "layers").set_index(["from_checkpoint", "to_checkpoint"])
    assert not layers.loc[("00", "01"), ["added", "removed", "score_change"]].any(axis=None)
    assert layers.loc[("01", "02"), "score_change"].gt(0).any()

    allocation = tmp_path / "allocation"
    allocate_circuit_lora.main(
        manifest=base,
        layers=drift["layers"],
        scores=[scores[0], scores[-1]],
        edges=[],
        critical_layers=allocation / "critical_layers.parquet",
        module_changes=None,
        adapter_config=allocation / "adapter_config.json",
        method=DriftRanks(rank=1, critical_rank=3, critical_layers=1).as_method(GIVEN),
        training=Training(),
        choice=Selection(fraction=0.2),
        resamples=20,
        provenance=Provenance.detached(model="base", task="t", name=GIVEN, seed="0"),
    )
    config = LoraConfig.from_pretrained(allocation)
    assert (config.r, set(config.rank_pattern.values())) == (1, {3})


def test_accuracy_is_that_of_each_model_beside_the_base_models(base: Path, tmp_path: Path) -> None:
    changed(neox().from_pretrained(base.parent), seed=5).save_pretrained(tmp_path / "other")
    checkpoint = fetched(base, "01", path=tmp_path / "other")
    split = examples(40)
    write_table(tmp_path / "test.parquet", split, "examples", Provenance.detached())
    files = tmp_path / "accuracy.parquet", tmp_path / "predictions.parquet"
    measure_accuracy.main(base, tmp_path / "test.parquet", [checkpoint], *files, "cpu", Provenance.detached(**RUN))
    accuracy, predictions = read_table(files[0], "accuracy"), read_table(files[1], "predictions")
    assert accuracy["checkpoint"].tolist() == ["00", "01"]
    assert accuracy["step"].tolist() == [0, 1]
    assert not accuracy["trainable_parameters"].any()
    for name, folder in (("00", base.parent), ("01", tmp_path / "other")):
        score = evaluate(AutoModelForCausalLM.from_pretrained(folder), Examples(split, CPU))
        found = accuracy.set_index("checkpoint").loc[name]
        assert (found["accuracy"], found["answer_loss"]) == (score.correct / 40, pytest.approx(score.answer_loss))
        assert tuple(predictions.query("checkpoint == @name")["correct"]) == score.right


def test_without_answers_nothing_is_right_or_wrong(base: Path, tmp_path: Path) -> None:
    split = examples(8)
    for column in ("answer_ids", "corrupted_answer_ids"):
        split[column] = [[] for _ in range(len(split))]
    write_table(tmp_path / "test.parquet", split, "examples", Provenance.detached())
    files = tmp_path / "accuracy.parquet", tmp_path / "predictions.parquet"
    measure_accuracy.main(base, tmp_path / "test.parquet", [], *files, "cpu", Provenance.detached(**RUN))
    (row,) = read_table(files[0], "accuracy").to_dict("records")
    assert row["n"] == 0
    assert all(math.isnan(row[name]) for name in ("accuracy", "lower", "upper", "answer_loss"))
    assert read_table(files[1], "predictions").empty


# ------------------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=3, target_modules=LLAMA_TARGETS, rank_pattern={"layers.1.self_attn.q_proj": 1}),
        LoraConfig(r=2, target_modules="all-linear", use_rslora=True, use_dora=True),
        LoraConfig(r=2, target_modules=["v_proj"], layers_to_transform=[1], modules_to_save=["lm_head"]),
        LoraConfig(r=2, target_modules=["embed_tokens", "o_proj"]),
        AdaLoraConfig(init_r=3, target_r=1, total_step=10, target_modules=LLAMA_TARGETS, task_type="CAUSAL_LM"),
        IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        LoHaConfig(r=2, target_modules=LLAMA_TARGETS),
        LoKrConfig(r=2, target_modules=LLAMA_TARGETS),
    ],
    ids=["lora", "dora", "modules-to-save", "embedding", "adalora", "ia3", "loha", "lokr"],
)
def test_an_adapter_computes_what_peft_computes_with_it(config, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = save(llama(), tmp_path / "base")
    folder = with_adapter(base, tmp_path / "adapter", config)
    checkpoint = fetched(base, "01", adapter=folder)
    ours = logits(load_checkpoint(base, checkpoint, CPU))
    unmerged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.parent), folder)
    torch.testing.assert_close(ours, logits(unmerged), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(ours, logits(load_checkpoint(base, None, CPU)))
    names = {file.name for file in read_manifest(checkpoint / "manifest.json").files}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}


# ----------------------------------------------------------------------------------------------- provenance


def test_the_manifest_names_each_file_and_an_edit_is_noticed(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    changed(neox().from_pretrained(base.parent)).save_pretrained(other)
    checkpoint = fetched(base, "01", path=other)
    manifest = read_manifest(checkpoint / "manifest.json")
    assert not Path(manifest.source["path"]).is_absolute()
    load_checkpoint(base, checkpoint, CPU)
    before = other.joinpath("model.safetensors").read_bytes()
    changed(neox().from_pretrained(base.parent), seed=3).save_pretrained(other)
    os.utime(other / "model.safetensors", ns=(1, 1))
    with pytest.raises(ManifestError, match=r"model.safetensors: .*sha256.*--forcerun fetch_checkpoint"):
        load_checkpoint(base, checkpoint, CPU)
    fetched(base, "01", path=other)
    load_checkpoint(base, checkpoint, CPU)
    assert read_manifest(checkpoint / "manifest.json") != manifest
    assert before != other.joinpath("model.safetensors").read_bytes()


def test_checkpoints_on_the_hub_are_pinned_to_a_commit_and_need_no_pickles(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {"owner/base": tmp_path / "step2", "owner/lora": tmp_path / "lora"}
    changed(neox().from_pretrained(base.parent)).save_pretrained(folders["owner/base"])
    with_adapter(base, folders["owner/lora"], LoraConfig(r=2, target_modules=NEOX_TARGETS))
    asked: list[tuple[str, str, list[str]]] = []

    def snapshot(model_id: str, revision: str, allow_patterns: list[str]) -> str:
        asked.append((model_id, revision, allow_patterns))
        return str(shutil.copytree(folders[model_id], hub_folder(model_id, revision)))

    def unpickle(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "resolve_commit", lambda model_id, revision: {"step2": "a", "main": "b"}[revision] * 40)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr(torch, "load", unpickle)
    whole = fetched(base, "01", id="owner/base", revision="step2")
    adapter = fetched(base, "02", adapter_id="owner/lora")
    assert read_manifest(whole / "manifest.json").source == {
        "source": "hub", "id": "owner/base", "revision": "step2", "commit": "a" * 40, "given": True,
    }  # fmt: skip
    assert read_manifest(adapter / "manifest.json").source["commit"] == "b" * 40
    for checkpoint in (whole, adapter):
        load_checkpoint(base, checkpoint, CPU)
    patterns = {model_id: sorted(files) for model_id, _, files in asked}
    assert patterns["owner/lora"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert not any(name.endswith((".bin", ".py")) for _, _, files in asked for name in files)


# ------------------------------------------------------------------------------------------------- refusals


def of_another_width(folder: Path) -> dict[str, Path]:
    neox(hidden_size=16).save_pretrained(folder)
    return {"path": folder}


def of_more_tokens(folder: Path) -> dict[str, Path]:
    neox(vocab_size=72).save_pretrained(folder)
    return {"path": folder}


def of_another_architecture(folder: Path) -> dict[str, Path]:
    llama().save_pretrained(folder)
    return {"path": folder}


def sequential(folder: Path) -> dict[str, Path]:
    neox(use_parallel_residual=False).save_pretrained(folder)
    return {"path": folder}


def pickled(folder: Path) -> dict[str, Path]:
    neox().save_pretrained(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return {"path": folder}


def of_other_modules(folder: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    base = save(llama(), folder.with_name("llama"))
    return {"adapter": with_adapter(base, folder, LoraConfig(r=1, target_modules=["q_proj"]))}


def of_another_size(folder: Path) -> dict[str, Path]:
    base = save(neox(hidden_size=16), folder.with_name("narrow"))
    return {"adapter": with_adapter(base, folder, LoraConfig(r=1, target_modules=["query_key_value"]))}


def vera(folder: Path) -> dict[str, Path]:
    base = save(neox(), folder.with_name("again"))
    return {"adapter": with_adapter(base, folder, VeraConfig(r=1, target_modules=["query_key_value"]))}


def pickled_adapter(folder: Path) -> dict[str, Path]:
    base = save(neox(), folder.with_name("again"))
    with_adapter(base, folder, LoraConfig(r=1, target_modules=["query_key_value"]))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    return {"adapter": folder}


def adapter_that_sets(key: str, value: object):
    def made(folder: Path) -> dict[str, Path]:
        base = save(neox(), folder.with_name("again"))
        with_adapter(base, folder, LoraConfig(r=1, target_modules=["query_key_value"]))
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, key: value}))
        return {"adapter": folder}

    return made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (of_another_width, "has 16 width, the base model 32"),
        (of_more_tokens, "has 72 tokens, the base model 64"),
        (of_another_architecture, "has model_type llama, the base model gpt_neox"),
        (sequential, "one after the other, or side by side"),
        (pickled, "pickled weights are refused"),
        (of_other_modules, "target module 'q_proj' is no module of the base model"),
        (of_another_size, r"tensors do not fit the base model, .*\[1, 16\], model: \[1, 32\]"),
        (vera, "peft_type 'VERA' does not merge"),
        (pickled_adapter, "adapter_model.bin but no adapter_model.safetensors"),
        (adapter_that_sets("layer_replication", [[0, 2]]), "layer_replication is set, and it repeats blocks"),
        (adapter_that_sets("megatron_config", {"a": 1}), "megatron_config is set"),
        (adapter_that_sets("alora_invocation_tokens", [5]), "alora_invocation_tokens is set, and it acts on some"),
        (adapter_that_sets("of_the_future", 1), "of_the_future is set, and it is not known to merge exactly"),
        (adapter_that_sets("init_lora_weights", "pissa"), "init_lora_weights 'pissa' also changed"),
        (adapter_that_sets("task_type", "SEQ_CLS"), "task_type 'SEQ_CLS' is no language model"),
        (adapter_that_sets("r", 2), "tensors do not fit the base model"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(made, words: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises((ManifestError, AnatomyError), match=words):
        fetched(base, "01", **made(tmp_path / "given"))
    assert not (base.parent / GIVEN / "01" / "manifest.json").exists()


def test_weights_that_lack_a_tensor_are_refused_and_not_drawn(base: Path, tmp_path: Path) -> None:
    model = neox()
    state = {name: tensor for name, tensor in model.state_dict().items() if "layers.1.mlp" not in name}
    model.save_pretrained(tmp_path / "part", state_dict=state)
    checkpoint = fetched(base, "01", path=tmp_path / "part")
    with pytest.raises(ManifestError, match="lack 4 tensors of the model"):
        load_checkpoint(base, checkpoint, CPU)


def test_models_of_other_rotary_bases_are_compared(base: Path, tmp_path: Path) -> None:
    """An option that leaves the graph as it is; the checkpoint runs with its own."""
    neox(rope_parameters={"rope_type": "default", "rope_theta": 500.0}).save_pretrained(tmp_path / "long")
    model = load_checkpoint(base, fetched(base, "01", path=tmp_path / "long"), CPU)
    assert np.isclose(model.config.rope_parameters["rope_theta"], 500.0)
