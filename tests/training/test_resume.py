"""A run that is killed and started again ends in the bytes of one that was not."""

import logging
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from small_models import examples, neox, save

import finetune
from circuitdrift.config.methods import FullMethod, GrpoMethod, LoraMethod, Training
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table
from circuitdrift.training import loop, resume
from circuitdrift.training.state import StateError, TrainingState

ORIGIN = Provenance.detached(model="tiny")
TRAINING = Training(epochs=3, batch_size=8, checkpoints=3, learning_rate_lora=1e-2, learning_rate_full=1e-3)
METHODS = {
    "lora": LoraMethod(kind="lora", rank=3),
    "full": FullMethod(kind="full"),
    "grpo": GrpoMethod(kind="grpo", rank=3),
}


@pytest.fixture
def manifest(tmp_path):
    """A model with dropout, so that the random states matter."""
    torch.manual_seed(0)
    return save(neox(hidden_dropout=0.1, attention_dropout=0.1), tmp_path / "models" / "tiny")


@pytest.fixture(autouse=True)
def a_state_after_every_step(monkeypatch):
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_STATES", 0.0)


def run(
    manifest, folder, method, training=TRAINING, train_seed=0, origin=ORIGIN, processes="auto", sharding="none",
    instruction=(),
):  # fmt: skip
    write_table(folder / "train.parquet", examples(32, (5, 6), (1,), train_seed, instruction), "examples", ORIGIN)
    write_table(folder / "test.parquet", examples(20, seed=1), "examples", ORIGIN)
    finetune.main(
        manifest=manifest, train=folder / "train.parquet", test=folder / "test.parquet", adapter_config=None,
        trials=None,
        checkpoints=[folder / "run" / "checkpoints" / f"{number:02d}" for number in range(training.checkpoints + 1)],
        training_log=folder / "run" / "training_log.parquet", accuracy=folder / "run" / "accuracy.parquet",
        predictions=folder / "run" / "predictions.parquet",
        method=method, training=training, seed=0, device="cpu", processes=processes, sharding=sharding,
        resume=folder / "run" / ".resume", provenance=origin,
    )  # fmt: skip
    return outputs(folder)


def outputs(folder):
    """Every file of the run by its name, without those that a killed writer left under a temporary one."""
    files = sorted(path for path in (folder / "run").rglob("*") if path.is_file() and path.suffix != ".part")
    return {str(path.relative_to(folder / "run")): path.read_bytes() for path in files}


def start(*arguments, **keywords):
    """The run in a process of its own, which starts as a copy of this one and so has nothing to import."""
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments, kwargs=keywords)
    process.start()
    return process


def delete_declared_outputs(folder):
    """As Snakemake does with those of a failed job."""
    for name in ("training_log.parquet", "accuracy.parquet", "predictions.parquet"):
        (folder / "run" / name).unlink(missing_ok=True)
    for checkpoint in (folder / "run" / "checkpoints").glob("??"):
        resume.remove_folder(checkpoint)


@pytest.mark.parametrize("name", METHODS)
def test_killed_at_random_moments_and_started_again_until_done(manifest, tmp_path, name, caplog):
    started = time.monotonic()
    expected = run(manifest, tmp_path / "uninterrupted", METHODS[name])
    duration = time.monotonic() - started
    assert "checkpoints/03/" + ("model" if name == "full" else "adapter_model") + ".safetensors" in expected
    draw = random.Random(7)
    kills = 0
    for _ in range(8):
        process = start(manifest, tmp_path / "killed", METHODS[name])
        process.join(draw.uniform(0.1, 0.7) * duration)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        kills += process.exitcode == -signal.SIGKILL
        delete_declared_outputs(tmp_path / "killed")
    assert kills >= 2
    assert run(manifest, tmp_path / "killed", METHODS[name]) == expected


def kill_at_flush(number, *arguments):
    """Run, and die in place of the flush to the disk of that number: every write passes one before it counts."""
    seen, flush = [0], os.fsync

    def flush_or_die(descriptor):
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(descriptor)

    os.fsync = flush_or_die
    run(*arguments)


@pytest.mark.parametrize("number", [3, 6, 9, 13, 18, 24, 31, 39, 48, 58, 69])
def test_killed_in_the_midst_of_writing(manifest, tmp_path, number):
    expected = run(manifest, tmp_path / "uninterrupted", METHODS["lora"])
    context = multiprocessing.get_context("fork")
    process = context.Process(target=kill_at_flush, args=(number, manifest, tmp_path / "killed", METHODS["lora"]))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    delete_declared_outputs(tmp_path / "killed")
    assert run(manifest, tmp_path / "killed", METHODS["lora"]) == expected
    assert not list((tmp_path / "killed").rglob("checkpoints/.*"))


class StoppedError(Exception):
    pass


def stop_after(step, manifest, folder, monkeypatch, method=METHODS["lora"], **keywords):
    """Start a run that stops when it has saved the state of a step; its declared outputs are deleted."""
    save_state = resume.ResumeFolder.save

    def save_and_stop(self, state, history):
        save_state(self, state, history)
        if history.step == step:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(resume.ResumeFolder, "save", save_and_stop)
        with pytest.raises(StoppedError):
            run(manifest, folder, method, **keywords)
    delete_declared_outputs(folder)
    return folder / "run" / ".resume"


def states(folder):
    return [path.name for path in sorted(folder.glob("step-*"))]


def messages(caplog, level):
    return [record.message for record in caplog.records if record.levelno == level and "resume" in record.name]


def test_steps_and_checkpoints_that_were_done_are_not_done_again(manifest, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    expected = run(manifest, tmp_path / "uninterrupted", METHODS["lora"])
    folder = stop_after(9, manifest, tmp_path / "stopped", monkeypatch)
    assert states(folder) == ["step-00000008", "step-00000009"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["00", "01", "02"]
    saved = []
    original = finetune.save_checkpoint
    monkeypatch.setattr(
        finetune, "save_checkpoint", lambda model, *rest: saved.append(rest[0].name) or original(model, *rest)
    )
    assert run(manifest, tmp_path / "stopped", METHODS["lora"]) == expected
    assert saved == ["03"]
    assert any("continuing after step 9" in message for message in messages(caplog, logging.INFO))
    assert not folder.exists()


def test_stopped_after_the_last_state_the_outputs_alone_are_written(manifest, tmp_path, monkeypatch):
    expected = run(manifest, tmp_path / "uninterrupted", METHODS["full"])
    stop_after(12, manifest, tmp_path / "stopped", monkeypatch, METHODS["full"])
    monkeypatch.setattr("circuitdrift.training.loop.accumulate_gradients", None)
    assert run(manifest, tmp_path / "stopped", METHODS["full"]) == expected


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_a_damaged_state_is_named_and_the_one_before_it_taken(manifest, tmp_path, monkeypatch, caplog, file, damage):
    caplog.set_level(logging.INFO)
    expected = run(manifest, tmp_path / "uninterrupted", METHODS["lora"])
    folder = stop_after(10, manifest, tmp_path / "stopped", monkeypatch)
    spoil(folder / "step-00000010" / file, damage)
    assert run(manifest, tmp_path / "stopped", METHODS["lora"]) == expected
    assert any(f"step-00000010/{file}" in message for message in messages(caplog, logging.WARNING))
    assert any("continuing after step 9" in message for message in messages(caplog, logging.INFO))


def spoil(path, damage):
    content = bytearray(path.read_bytes())
    match damage:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            content[-20] ^= 0x81
            path.write_bytes(content)
        case "missing":
            path.unlink()


def test_a_damaged_kept_checkpoint_is_named_and_all_is_done_again(manifest, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    expected = run(manifest, tmp_path / "uninterrupted", METHODS["lora"])
    folder = stop_after(10, manifest, tmp_path / "stopped", monkeypatch)
    spoil(folder / "checkpoints" / "01" / "adapter_model.safetensors", "truncated")
    assert run(manifest, tmp_path / "stopped", METHODS["lora"]) == expected
    assert any("checkpoints/01/adapter_model.safetensors" in message for message in messages(caplog, logging.WARNING))
    assert not any("continuing" in message for message in messages(caplog, logging.INFO))


OTHER_RUNS = {
    "settings": {"training": TRAINING.model_copy(update={"learning_rate_lora": 2e-2})},
    "inputs": {"train_seed": 5},
    "code": {"origin": ORIGIN.model_copy(update={"code_digest": "other"})},
    "packages": {"origin": ORIGIN.model_copy(update={"packages": {"torch": "0.1"}})},
}


@pytest.mark.parametrize("what", OTHER_RUNS)
def test_a_state_of_another_run_is_not_used(manifest, tmp_path, monkeypatch, caplog, what):
    caplog.set_level(logging.INFO)
    expected = run(manifest, tmp_path / "uninterrupted", METHODS["lora"], **OTHER_RUNS[what])
    stop_after(10, manifest, tmp_path / "stopped", monkeypatch)
    assert run(manifest, tmp_path / "stopped", METHODS["lora"], **OTHER_RUNS[what]) == expected
    assert any(f"other {what}," in message for message in messages(caplog, logging.INFO))
    assert not any("continuing" in message for message in messages(caplog, logging.INFO))


def test_a_run_that_breaks_down_keeps_what_it_had_done(manifest, tmp_path, monkeypatch):
    accumulate, steps = loop.accumulate_gradients, []

    def break_down_at_step_6(*arguments):
        loss, batches = accumulate(*arguments)
        steps.append(loss)
        return (loss * float("nan") if len(steps) == 6 else loss), batches

    expected = run(manifest, tmp_path / "uninterrupted", METHODS["lora"])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "accumulate_gradients", break_down_at_step_6)
        with pytest.raises(loop.TrainingError, match=r"step 6: the loss is nan .* example_id \[1"):
            run(manifest, tmp_path / "broken", METHODS["lora"])
    assert states(tmp_path / "broken" / "run" / ".resume") == ["step-00000004", "step-00000005"]
    delete_declared_outputs(tmp_path / "broken")
    assert run(manifest, tmp_path / "broken", METHODS["lora"]) == expected


def test_where_there_are_no_hard_links_checkpoints_are_copied(manifest, tmp_path, monkeypatch):
    expected = run(manifest, tmp_path / "uninterrupted", METHODS["lora"])

    def no_links(*_arguments):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    stop_after(10, manifest, tmp_path / "stopped", monkeypatch)
    assert run(manifest, tmp_path / "stopped", METHODS["lora"]) == expected


def state_of(model, rate=1e-3):
    return TrainingState(model, torch.optim.AdamW(model.parameters(), lr=rate, fused=True))


def test_a_state_holds_parameters_averages_counters_and_every_random_state():
    torch.manual_seed(0)
    model = neox()
    state = state_of(model)
    model(input_ids=torch.arange(8).reshape(2, 4)).logits.square().mean().backward()
    state.optimizer.step()
    tensors = {name: tensor.clone() for name, tensor in state.tensors().items()}
    values = state.values()
    drawn = torch.rand(3), random.random(), np.random.random(), np.random.standard_normal()
    other = state_of(neox())
    other.load(tensors, values)
    assert (torch.rand(3) == drawn[0]).all()
    assert (random.random(), np.random.random(), np.random.standard_normal()) == drawn[1:]
    loaded = other.tensors()
    assert loaded.keys() == tensors.keys()
    assert {name.split("/")[1] for name in tensors if name.startswith("optimizer/")} == {
        "exp_avg",
        "exp_avg_sq",
        "step",
    }
    others = [name for name in tensors if name != "random/cpu"]
    assert all(torch.equal(loaded[name], tensors[name]) for name in others)


def test_a_state_of_another_model_is_refused_and_changes_nothing():
    state, other = state_of(neox()), state_of(neox(hidden_size=16))
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    with pytest.raises(StateError, match=r"parameter .* is \[.* there and \[.* in this run"):
        state.load(other.tensors(), other.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())
