import json

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from small_models import examples, llama, neox, save
from transformers import AutoModelForCausalLM

import allocate_random_lora
import finetune
from circuitdrift.allocation.policies import draw_layers
from circuitdrift.allocation.ranks import rank_patterns, ranks_by_layer
from circuitdrift.config.methods import CircuitLoraMethod, FullMethod, LoraMethod, RandomLoraMethod, Training
from circuitdrift.decoder.linears import block_linears
from circuitdrift.models.loading import load_model, load_shape
from circuitdrift.models.manifest import base_model_name
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.adapters import (
    AdapterError,
    AdapterSize,
    attach_adapters,
    found_adapters,
    lora_config,
    verify_adapters,
    wanted_adapters,
)
from circuitdrift.training.allocated_adapter import write_allocated_adapter
from circuitdrift.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from circuitdrift.training.evaluation import evaluate
from circuitdrift.training.examples import Examples
from circuitdrift.training.preparation import prepare_model

CPU = torch.device("cpu")
ORIGIN = Provenance.detached(model="tiny")
TRAINING = Training(epochs=2, batch_size=8, checkpoints=3, learning_rate_lora=1e-2, learning_rate_full=1e-3)
TOKENS = torch.arange(2, 14).reshape(2, 6)


@pytest.fixture(params=["neox", "llama"])
def manifest(request, tmp_path):
    torch.manual_seed(0)
    return save({"neox": neox, "llama": llama}[request.param](), tmp_path / "models" / "tiny")


def run(manifest, folder, method, seed=0, adapter_config=None, training=TRAINING):
    write_table(folder / "train.parquet", examples(32, lengths=(5, 6)), "examples", ORIGIN)
    write_table(folder / "test.parquet", examples(20, seed=1), "examples", ORIGIN)
    finetune.main(
        manifest=manifest,
        train=folder / "train.parquet",
        test=folder / "test.parquet",
        adapter_config=adapter_config,
        trials=None,
        checkpoints=[folder / "checkpoints" / f"{number:02d}" for number in range(training.checkpoints + 1)],
        training_log=folder / "training_log.parquet",
        accuracy=folder / "accuracy.parquet",
        predictions=folder / "predictions.parquet",
        method=method,
        training=training,
        seed=seed,
        device="cpu",
        processes="auto",
        sharding="none",
        resume=folder / ".resume",
        provenance=ORIGIN,
    )
    return folder / "checkpoints"


def logits(model):
    with torch.inference_mode():
        return model(input_ids=TOKENS).logits.float()


def all_bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("method", "files"),
    [
        (
            LoraMethod(kind="lora", rank=3),
            ["adapter_config.json", "adapter_config.json.sha256", "adapter_model.safetensors"],
        ),
        (FullMethod(kind="full"), ["config.json", "config.json.sha256", "model.safetensors"]),
    ],
)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(manifest, tmp_path, method, files):
    checkpoints = run(manifest, tmp_path / "a", method)
    run(manifest, tmp_path / "b", method)
    run(manifest, tmp_path / "c", method, seed=1)
    assert [path.name for path in sorted(checkpoints.iterdir())] == ["00", "01", "02", "03"]
    assert sorted(path.name for path in (checkpoints / "03").iterdir()) == files
    first, again, other = (all_bytes(tmp_path / name) for name in "abc")
    assert first == again
    assert first["checkpoints/03/" + files[-1]] != other["checkpoints/03/" + files[-1]]
    assert str(tmp_path) not in (checkpoints / "03" / files[0]).read_text()
    accuracy = pd.read_parquet(tmp_path / "a" / "accuracy.parquet")
    assert list(accuracy["checkpoint"]) == ["00", "01", "02", "03"]
    assert list(accuracy["step"]) == [0, 3, 5, 8]
    assert accuracy["answer_loss"].nunique() == 4


def test_merged_lora_equals_unmerged_and_checkpoint_00_equals_the_base(manifest, tmp_path):
    checkpoints = run(manifest, tmp_path / "run", LoraMethod(kind="lora", rank=3))
    base = load_checkpoint(manifest, None, CPU)
    torch.testing.assert_close(logits(load_checkpoint(manifest, checkpoints / "00", CPU)), logits(base))
    merged = load_checkpoint(manifest, checkpoints / "03", CPU)
    unmerged = PeftModel.from_pretrained(load_model(manifest, CPU), str(checkpoints / "03"))
    torch.testing.assert_close(logits(merged), logits(unmerged), rtol=1e-4, atol=1e-5)
    assert (logits(merged) - logits(base)).abs().max() > 1e-2
    assert type(merged) is type(base)
    assert [name for name, _ in merged.named_parameters()] == [name for name, _ in base.named_parameters()]
    assert not merged.training
    assert all(parameter.requires_grad for parameter in merged.parameters())


def test_full_checkpoint_loads_here_and_with_plain_transformers(manifest, tmp_path):
    checkpoints = run(manifest, tmp_path / "run", FullMethod(kind="full"))
    ours = load_checkpoint(manifest, checkpoints / "03", CPU)
    plain = AutoModelForCausalLM.from_pretrained(checkpoints / "03", attn_implementation="eager")
    assert torch.equal(logits(ours), logits(plain))
    torch.testing.assert_close(
        logits(load_checkpoint(manifest, checkpoints / "00", CPU)), logits(load_model(manifest, CPU))
    )
    assert pd.read_parquet(tmp_path / "run" / "accuracy.parquet")["trainable_share"].iloc[0] == 1.0


def test_saved_accuracy_is_that_of_the_loaded_checkpoint(manifest, tmp_path):
    checkpoints = run(manifest, tmp_path / "run", LoraMethod(kind="lora", rank=3))
    score = evaluate(load_checkpoint(manifest, checkpoints / "03", CPU), Examples(examples(20, seed=1), CPU))
    row = pd.read_parquet(tmp_path / "run" / "accuracy.parquet").iloc[-1]
    assert row["accuracy"] == score.correct / score.n
    assert row["answer_loss"] == pytest.approx(score.answer_loss, rel=1e-4)
    predictions = read_table(tmp_path / "run" / "predictions.parquet", "predictions")
    assert list(predictions["checkpoint"].unique()) == ["00", "01", "02", "03"]
    last = predictions[predictions["checkpoint"] == "03"]
    assert last["example_id"].tolist() == examples(20, seed=1)["example_id"].tolist()
    assert last["correct"].tolist() == list(score.right)


def test_bfloat16_base_is_fully_tuned_in_float32_and_saved_in_bfloat16(tmp_path):
    torch.manual_seed(0)
    manifest = save(neox(), tmp_path / "models" / "tiny", dtype="bfloat16")
    checkpoints = run(manifest, tmp_path / "run", FullMethod(kind="full"))
    assert {tensor.dtype for tensor in load_file(checkpoints / "03" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((checkpoints / "03" / "config.json").read_text())["dtype"] == "bfloat16"


UNMEASURED = {"credit": "source", "above_threshold": False, "in_top": np.nan, "lower": np.nan, "upper": np.nan}
"""What a table of critical layers says of layers whose certainty nobody measured."""


def allocate(manifest, config, method, table):
    """Write the adapter's configuration for critical layers as they were found or drawn."""
    write_allocated_adapter(config, load_shape(manifest), base_model_name(manifest), method, table, None, TRAINING)


def test_circuit_lora_from_critical_layers_to_verified_ranks(tmp_path):
    torch.manual_seed(0)
    manifest = save(neox(layers=12), tmp_path / "models" / "tiny")
    table = pd.DataFrame({"layer": range(12), "policy": "score_change", "value": [float(x) for x in range(12)]})
    table = table.assign(rank_order=range(12, 0, -1), critical=table["layer"].isin([1, 10]), **UNMEASURED)
    method = CircuitLoraMethod(kind="circuit_lora", rank=2, critical_rank=8, critical_layers=2, phase_1="lora_r2")
    allocate(manifest, tmp_path / "allocation" / "adapter_config.json", method, table)
    checkpoints = run(
        manifest, tmp_path / "run", method, adapter_config=tmp_path / "allocation" / "adapter_config.json"
    )
    tensors = load_file(checkpoints / "03" / "adapter_model.safetensors")
    ranks = {name: tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name}
    assert len(ranks) == 48
    assert all(rank == (8 if ".layers.1." in name or ".layers.10." in name else 2) for name, rank in ranks.items())
    accuracy = pd.read_parquet(tmp_path / "run" / "accuracy.parquet")
    assert accuracy["trainable_parameters"].iloc[0] == sum(tensor.numel() for tensor in tensors.values())
    assert json.loads((checkpoints / "03" / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    unmerged = PeftModel.from_pretrained(load_model(manifest, CPU), str(checkpoints / "03"))
    merged = load_checkpoint(manifest, checkpoints / "03", CPU)
    torch.testing.assert_close(logits(merged), logits(unmerged), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("allocation", ["top", "threshold", "proportional", "inverted"])
def test_every_allocation_keeps_to_the_budget_of_the_top_layers(tmp_path, allocation):
    manifest = save(neox(layers=6), tmp_path / "models" / "tiny")
    table = pd.DataFrame({"layer": range(6), "policy": "score_change", "value": [9.0, 1.0, 0.5, 4.0, 0.0, 2.0]})
    table = table.assign(rank_order=[1, 4, 5, 2, 6, 3], critical=table["layer"].isin([0, 3]), **UNMEASURED)
    method = CircuitLoraMethod(
        kind="circuit_lora", rank=2, critical_rank=8, critical_layers=2, phase_1="lora_r2", allocation=allocation
    )
    config = tmp_path / "allocation" / "adapter_config.json"
    allocate(manifest, config, method, table)
    adapted = attach_adapters(neox(layers=6), LoraConfig.from_pretrained(str(config.parent)), seed=0)
    sizes = found_adapters(adapted)
    ranks = [sizes[f"gpt_neox.layers.{layer}.mlp.dense_h_to_4h"].rank for layer in range(6)]
    expected = {
        "top": [8, 2, 2, 8, 2, 2], "threshold": [14, 2, 2, 2, 2, 2], "proportional": [9, 3, 2, 5, 2, 3],
        "inverted": [2, 2, 8, 2, 8, 2],
    }  # fmt: skip
    assert ranks == expected[allocation]
    assert {size.scale for size in sizes.values()} == {2.0}
    assert sum(ranks) == 24


def test_random_lora_from_a_draw_to_a_fine_tuning(tmp_path):
    torch.manual_seed(0)
    manifest = save(llama(layers=3), tmp_path / "models" / "tiny")
    method = RandomLoraMethod(kind="random_lora", rank=1, critical_rank=4, critical_layers=1, draw=2)
    table = tmp_path / "critical_layers.parquet"
    origin = Provenance.detached(model="tiny", task="lcm")
    config = tmp_path / "allocation" / "adapter_config.json"
    allocate_random_lora.main(
        manifest=manifest, critical_layers=table, adapter_config=config, method=method, training=TRAINING, seed=3,
        provenance=origin,
    )  # fmt: skip
    drawn = pd.read_parquet(table)
    expected = draw_layers(3, 1, 3, 2, "tiny/lcm")
    pd.testing.assert_frame_equal(drawn, expected.astype(drawn.dtypes))
    assert list(drawn["layer"]) == [0, 1, 2]
    assert drawn["critical"].sum() == 1
    assert run(manifest, tmp_path / "run", method, adapter_config=config).is_dir()


def test_layers_that_are_given_train_as_the_same_layers_chosen_by_drift(tmp_path):
    """Sets of layers are the reference of a CircuitLoRA's choice because the same layers give the same run."""
    torch.manual_seed(0)
    manifest = save(neox(layers=4), tmp_path / "models" / "tiny")
    ranks = {"rank": 1, "critical_rank": 4, "critical_layers": 2}
    given = RandomLoraMethod(kind="random_lora", include_layers=(3, 1), **ranks)
    chosen = CircuitLoraMethod(kind="circuit_lora", phase_1="lora_r1", **ranks)
    assert given.given_layers == (1, 3)
    configs = {name: tmp_path / name / "adapter_config.json" for name in ("given", "chosen")}
    allocate_random_lora.main(
        manifest=manifest, critical_layers=tmp_path / "given" / "critical_layers.parquet",
        adapter_config=configs["given"], method=given, training=TRAINING, seed=5,
        provenance=Provenance.detached(model="tiny", task="lcm"),
    )  # fmt: skip
    by_drift = pd.DataFrame({"layer": range(4), "policy": "score_change", "value": [1.0, 4.0, 2.0, 8.0]})
    by_drift = by_drift.assign(rank_order=[4, 2, 3, 1], critical=[False, True, False, True], **UNMEASURED)
    allocate(manifest, configs["chosen"], chosen, by_drift)
    for (name, config), method in zip(configs.items(), (given, chosen), strict=True):
        run(manifest, tmp_path / name / "run", method, 5, config)
    one, other = (tmp_path / name for name in configs)
    for file in ("adapter_config.json", "run/checkpoints/03/adapter_config.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    first, second = (load_file(folder / "run/checkpoints/03/adapter_model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    pd.testing.assert_frame_equal(
        *(read_table(folder / "run" / "predictions.parquet", "predictions") for folder in (one, other))
    )


def lora(model, patterns=None):
    linears = block_linears(model)
    uniform = rank_patterns(ranks_by_layer(linears, 4, 4, ()), 4, 2.0)
    return lora_config(model, linears, patterns or uniform, ("tiny", None))


def test_a_loose_pattern_is_caught():
    model = neox(layers=12)
    config = lora(model)
    config.rank_pattern = {r"layers\.1\.attention\.dense": 8}
    with pytest.raises(AdapterError, match=r"patterns for modules that the model lacks"):
        attach_adapters(model, config, seed=0)


def test_rank_without_its_alpha_changes_the_scale_and_is_caught():
    model = neox()
    config = lora(model)
    name = block_linears(model)[0].name
    config.rank_pattern = {"^" + name.replace(".", r"\."): 8}
    adapted = attach_adapters(model, config, seed=0)
    wanted = {linear.name: AdapterSize(4, 2.0) for linear in block_linears(neox())} | {name: AdapterSize(8, 2.0)}
    with pytest.raises(AdapterError, match=rf"module {name}: wanted rank 8 and scale 2, found rank 8 and scale 1"):
        verify_adapters(adapted, wanted)


def test_missing_and_superfluous_adapters_are_caught():
    model = neox()
    config = lora(model)
    wanted = wanted_adapters(config, block_linears(model))
    adapted = attach_adapters(model, config, seed=0)
    extra = {**wanted, "gpt_neox.embed_in": AdapterSize(4, 2.0)}
    with pytest.raises(AdapterError, match=r"embed_in: wanted rank 4 and scale 2, found no adapter"):
        verify_adapters(adapted, extra)
    last = max(wanted)
    with pytest.raises(AdapterError, match=rf"module {last}: wanted no adapter, found rank 4"):
        verify_adapters(adapted, {name: size for name, size in wanted.items() if name != last})


@pytest.mark.parametrize("method", [LoraMethod(kind="lora", rank=2), FullMethod(kind="full")])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing", "other"])
def test_damaged_checkpoints_are_refused_by_the_files_name(tmp_path, method, damage):
    torch.manual_seed(0)
    manifest = save(neox(), tmp_path / "models" / "tiny")
    model = prepare_model(
        load_model(manifest, CPU), ("tiny", None), method, 2.0, None, Examples(examples(8), CPU), 8, 0
    )
    folder = tmp_path / "checkpoints" / "00"
    save_checkpoint(model, folder, torch.float32, ORIGIN)
    weights = next(folder.glob("*.safetensors"))
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-40])
        case "garbage":
            weights.write_bytes(b"\x00" * 100)
        case "missing":
            weights.unlink()
        case "other":
            manifest = save(neox(hidden_size=16), tmp_path / "models" / "other")
    with pytest.raises(CheckpointError, match=weights.name):
        load_checkpoint(manifest, folder, CPU)


@pytest.mark.parametrize("method", [LoraMethod(kind="lora", rank=2), FullMethod(kind="full")])
def test_a_flipped_byte_in_any_file_of_a_checkpoint_is_refused_with_the_folder_to_delete(tmp_path, method):
    manifest = save(neox(), tmp_path / "models" / "tiny")
    model = prepare_model(
        load_model(manifest, CPU), ("tiny", None), method, 2.0, None, Examples(examples(8), CPU), 8, 0
    )
    folder = tmp_path / "checkpoints" / "00"
    save_checkpoint(model, folder, torch.float32, ORIGIN)
    load_checkpoint(manifest, folder, CPU)
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        for place in (0, 8, len(content) // 2, len(content) - 1):
            damaged = bytearray(content)
            damaged[place] ^= 1
            file.write_bytes(damaged)
            with pytest.raises(CheckpointError) as caught:
                load_checkpoint(manifest, folder, CPU)
            assert str(folder / file.name.removesuffix(".sha256")) in str(caught.value)
            assert f"rm -rf {folder} && snakemake" in str(caught.value)
        file.write_bytes(content)
    load_checkpoint(manifest, folder, CPU)


def test_truncated_configuration_and_empty_folder_are_refused(tmp_path):
    manifest = save(neox(), tmp_path / "models" / "tiny")
    folder = tmp_path / "checkpoints" / "00"
    save_checkpoint(attach_adapters(load_model(manifest, CPU), lora(neox()), seed=0), folder, torch.float32, ORIGIN)
    (folder / "adapter_config.json").write_text('{"r": ')
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        load_checkpoint(manifest, folder, CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(manifest, tmp_path / "empty", CPU)


def test_a_failed_save_leaves_the_old_checkpoint_and_no_rest(tmp_path, monkeypatch):
    manifest = save(neox(), tmp_path / "models" / "tiny")
    model = attach_adapters(load_model(manifest, CPU), lora(neox()), seed=0)
    folder = tmp_path / "checkpoints" / "00"
    save_checkpoint(model, folder, torch.float32, ORIGIN)
    before = all_bytes(folder)

    def disk_full(*_args, **_keywords):
        raise OSError("no space left on device")

    monkeypatch.setattr("circuitdrift.training.checkpoints.write_tensors", disk_full)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(model, folder, torch.float32, ORIGIN)
    assert all_bytes(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["00"]


def test_a_method_with_allocated_ranks_needs_its_configuration(tmp_path):
    manifest = save(neox(), tmp_path / "models" / "tiny")
    method = RandomLoraMethod(kind="random_lora", rank=1, critical_rank=4, critical_layers=1)
    with pytest.raises(ValueError, match=r"random_lora needs the adapter_config\.json"):
        run(manifest, tmp_path / "run", method)


def test_checkpoint_folders_that_do_not_fit_the_configuration_are_refused(tmp_path):
    manifest = save(neox(), tmp_path / "models" / "tiny")
    with pytest.raises(ValueError, match=r"training\.checkpoints asks for"):
        finetune.main(
            manifest=manifest, train=tmp_path, test=tmp_path, adapter_config=None, trials=None,
            checkpoints=[tmp_path / "00"], training_log=tmp_path, accuracy=tmp_path,
            predictions=tmp_path,
            method=FullMethod(kind="full"), training=TRAINING, seed=0,
            device="cpu", processes="auto", sharding="none", resume=tmp_path / ".resume", provenance=ORIGIN,
        )  # fmt: skip
