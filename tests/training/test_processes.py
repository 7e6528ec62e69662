"""Several processes train as one does, continue as one does, and end together. On CPU, with gloo."""

import json
import multiprocessing
import os
import signal
import sys
import time
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver
from unittest import mock

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file
from small_models import examples, neox, random_model, save
from test_resume import delete_declared_outputs, outputs, run, start, states

import finetune
from circuitdrift.config.methods import AdaLoraMethod, DoraMethod, FullMethod, GrpoMethod, LoraMethod, Training
from circuitdrift.config.reading import ConfigError, load_study
from circuitdrift.training import launching, loop, processes, resume
from circuitdrift.training.examples import Examples, answer_loss
from circuitdrift.training.launching import ProcessError, resolve_processes
from circuitdrift.training.processes import ALONE, Processes
from circuitdrift.training.sharding import shard

CPU = torch.device("cpu")
TRAINING = Training(
    precision="float32", epochs=2, batch_size=7, checkpoints=3, learning_rate_lora=1e-2, learning_rate_full=1e-3
)
SHORT = TRAINING.model_copy(update={"epochs": 1})
METHODS = {
    "lora": LoraMethod(kind="lora", rank=3),
    "full": FullMethod(kind="full"),
    "adalora": AdaLoraMethod(kind="adalora", initial_rank=3, target_rank=2),
    "grpo": GrpoMethod(kind="grpo", rank=3, group_size=4),
    "dora": DoraMethod(kind="dora", rank=3),
}


@pytest.fixture
def manifest(tmp_path):
    torch.manual_seed(0)
    return save(neox(), tmp_path / "models" / "tiny")


@pytest.fixture
def dropping_manifest(tmp_path):
    """A model with dropout, so that the random states matter."""
    torch.manual_seed(0)
    return save(neox(hidden_dropout=0.1, attention_dropout=0.1), tmp_path / "models" / "dropping")


@pytest.fixture(scope="module", autouse=True)
def server():
    """A process that has imported all and done nothing, so its copies are safe, unlike those of this one."""
    multiprocessing.set_forkserver_preload(["finetune", "test_processes"])
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path)}):
        forkserver.ensure_running()


@pytest.fixture(autouse=True)
def workers_that_have_nothing_to_import(monkeypatch):
    monkeypatch.setattr(launching, "START_METHOD", "forkserver")


@contextmanager
def workers_after(change):
    """Workers of fine-tunings call a function before their work: nothing that a test patches here reaches them."""
    with mock.patch.object(finetune, "launch", partial(launch_after, change)):
        yield


def launch_after(change, count, device, work):
    launching.launch(count, device, partial(change_and_work, change, work))


def change_and_work(change, work, own):
    assert own.count > 1, "the change would stay in this process"
    change()
    work(own)


def log_of(folder):
    return pd.read_parquet(folder / "run" / "training_log.parquet")


def weights_of(folder, name):
    file = "model" if name == "full" else "adapter_model"
    return load_file(folder / "run" / "checkpoints" / "03" / f"{file}.safetensors")


def assert_trained_alike(folder, other, name):
    found, expected = log_of(folder), log_of(other)
    columns = ["loss", "gradient_norm", "learning_rate", "epoch", "reward"]
    np.testing.assert_allclose(found[columns], expected[columns], rtol=2e-4, atol=1e-7)
    if name != "grpo":  # where a step has a prompt twice, one process runs what is alike in both but once
        assert (found["tokens"] == expected["tokens"]).all()
        once_a_pass = name in ("adalora", "dora")  # the penalty, and the norms of weights
        assert (found["flops"] == expected["flops"]).all() == (not once_a_pass)
    weights = weights_of(other, name)
    for key, tensor in weights_of(folder, name).items():
        torch.testing.assert_close(tensor, weights[key], rtol=1e-3, atol=2e-5)


def sum_few_gradients_at_once():
    processes.NUMBERS_PER_SUM = 700


CASES = [*((name, "none") for name in METHODS if name != "dora"), ("full", "full"), ("dora", "full")]


@pytest.mark.parametrize(("name", "sharding"), CASES)
def test_two_processes_take_the_steps_of_one(manifest, tmp_path, name, sharding):
    """Seven examples a step, of two lengths: four are for the one process and three for the other."""
    run(manifest, tmp_path / "one", METHODS[name], SHORT)
    with workers_after(sum_few_gradients_at_once):
        run(manifest, tmp_path / "two", METHODS[name], SHORT, processes=2, sharding=sharding)
    assert_trained_alike(tmp_path / "two", tmp_path / "one", name)
    assert (log_of(tmp_path / "one")["gradient_norm"] > 0).all()


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_process_may_have_no_examples(manifest, tmp_path, sharding):
    training = TRAINING.model_copy(update={"batch_size": 2, "epochs": 0.3})
    run(manifest, tmp_path / "one", METHODS["lora"], training)
    run(manifest, tmp_path / "three", METHODS["lora"], training, processes=3, sharding=sharding)
    assert_trained_alike(tmp_path / "three", tmp_path / "one", "lora")


def test_new_interpreters_do_the_same_as_copies(manifest, tmp_path, monkeypatch):
    expected = run(manifest, tmp_path / "copies", METHODS["lora"], SHORT, processes=2)
    monkeypatch.setattr(launching, "START_METHOD", "spawn")
    assert run(manifest, tmp_path / "new", METHODS["lora"], SHORT, processes=2) == expected


def report_sockets(own, folder):
    """Write the addresses of all sockets of a worker that has just talked to the others."""
    own.sum(torch.ones(3))
    found = [connection.laddr.ip for connection in psutil.Process().net_connections("inet")]
    (folder / f"{own.index}.json").write_text(json.dumps(found))
    own.sum(torch.ones(3))


def test_workers_listen_on_the_loopback_interface_alone(tmp_path, monkeypatch):
    """Whatever interface the environment names: here one that others can reach, if the machine has one."""
    interfaces = psutil.net_if_addrs()
    reachable = [name for name in interfaces if name != launching.loopback_interface()]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", next(iter(reachable), "lo"))
    launching.launch(2, CPU, partial(report_sockets, folder=tmp_path))
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert [len(addresses) > 0 for addresses in found] == [True, True]
    assert {address for addresses in found for address in addresses} == {"127.0.0.1"}


def test_a_machine_without_loopback_interface_is_refused(monkeypatch):
    monkeypatch.setattr(psutil, "net_if_addrs", dict)
    with pytest.raises(ProcessError, match=r"no network interface has the address 127\.0\.0\.1"):
        launching.loopback_interface()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_are_disjoint_complete_and_even_in_every_length(count):
    data = Examples(examples(23, lengths=(5, 6, 7, 7)), CPU)
    whole = list(data.select(np.arange(23)))
    shares = [list(Processes(index, count).share(whole)) for index in range(count)]
    for number, batch in enumerate(whole):
        places = [share[number][1] for share in shares]
        assert sorted(np.concatenate(places)) == list(range(len(batch)))
        assert max(map(len, places)) - min(map(len, places)) <= 1
    totals = [sum(len(places) for _, places in share) for share in shares]
    assert max(totals) - min(totals) <= 1


def test_random_numbers_of_a_step_are_each_processs_own_and_those_of_one_alone_go_on():
    def drawn(own, step):
        torch.manual_seed(5)
        own.seed_step(0, step)
        return torch.rand(1).item()

    places = [(Processes(index, 2), step) for index in range(2) for step in (1, 2)]
    assert len({drawn(*place) for place in places}) == 4
    assert [drawn(*place) for place in places] == [drawn(*place) for place in places]
    assert drawn(ALONE, 1) == drawn(ALONE, 2)


def test_adapters_on_a_sharded_bfloat16_model_with_tied_embeddings_and_a_shared_instruction(tmp_path):
    """In passes of two examples, of which one process has more than the other."""
    torch.manual_seed(0)
    manifest = save(random_model("opt"), tmp_path / "models" / "tiny", dtype="bfloat16")
    training = SHORT.model_copy(update={"batch_size": 5, "micro_batch_size": 2})
    for folder, how in (("one", {}), ("two", {"processes": 2, "sharding": "full"})):
        run(manifest, tmp_path / folder, METHODS["lora"], training, instruction=(3, 9, 4, 1), **how)
    columns = ["loss", "gradient_norm"]
    found, expected = (log_of(tmp_path / folder)[columns] for folder in ("two", "one"))
    np.testing.assert_allclose(found, expected, rtol=3e-2)


def assert_parts_are_kept(own):
    model = neox()
    n_numbers = sum(parameter.numel() for parameter in model.parameters())
    shard(model, own)
    n_own = sum(parameter.to_local().numel() for parameter in model.parameters())
    assert n_own <= 0.51 * n_numbers
    torch.autograd.backward(answer_loss(model, Examples(examples(2), CPU).batches[0], torch.float32))
    assert sum(parameter.grad.to_local().numel() for parameter in model.parameters()) == n_own


def test_a_process_keeps_its_part_of_weights_and_gradients_alone():
    launching.launch(2, CPU, assert_parts_are_kept)


@pytest.mark.parametrize("kind", ["adalora", "grpo"])
def test_methods_that_cannot_be_sharded_are_refused_by_name(tmp_path, kind):
    methods = {"plain": {"kind": "lora", "rank": 2}, "mine": METHODS[kind].model_dump(mode="json")}
    with pytest.raises(ConfigError, match=rf"execution\.sharding: 'mine' is of kind {kind}, .*none"):
        load_study({"methods": methods, "execution": {"sharding": "full"}}, tmp_path, "config.yaml")
    load_study({"methods": methods, "execution": {"sharding": "none"}}, tmp_path, "config.yaml")


class StoppedError(Exception):
    pass


def save_every_step():
    resume.SECONDS_BETWEEN_STATES = 0.0


def stop_after_step_3():
    """Save every step, and let the first process stop when it has saved the third."""
    save_every_step()
    save_state = resume.ResumeFolder.save

    def save_and_stop(self, state, history):
        save_state(self, state, history)
        if history.step == 3 and self.processes.is_first:
            raise StoppedError("enough")

    resume.ResumeFolder.save = save_and_stop


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_stopped_and_started_again_it_ends_in_the_same_bytes(dropping_manifest, tmp_path, caplog, sharding):
    caplog.set_level("INFO")
    how = {"processes": 2, "sharding": sharding}
    with workers_after(save_every_step):
        expected = run(dropping_manifest, tmp_path / "uninterrupted", METHODS["full"], SHORT, **how)
    with workers_after(stop_after_step_3), pytest.raises(RuntimeError, match="process 1 of 2: StoppedError: enough"):
        run(dropping_manifest, tmp_path / "stopped", METHODS["full"], SHORT, **how)
    delete_declared_outputs(tmp_path / "stopped")
    assert states(tmp_path / "stopped" / "run" / ".resume")[-1] == "step-00000003"
    caplog.clear()
    with workers_after(save_every_step):
        assert run(dropping_manifest, tmp_path / "stopped", METHODS["full"], SHORT, **how) == expected
    assert len([message for message in caplog.messages if "continuing after step 3" in message]) == 1


def keep_states():
    resume.ResumeFolder.remove = lambda self: None


def test_a_state_of_another_number_of_processes_is_not_used(manifest, tmp_path, caplog):
    caplog.set_level("INFO")
    expected = run(manifest, tmp_path / "uninterrupted", METHODS["lora"], SHORT)
    with workers_after(keep_states):
        run(manifest, tmp_path / "other", METHODS["lora"], SHORT, processes=2)
    delete_declared_outputs(tmp_path / "other")
    assert run(manifest, tmp_path / "other", METHODS["lora"], SHORT, processes=1) == expected
    assert [message for message in caplog.messages if "other settings" in message]


def fail_at_step(number, index, fail):
    """Let one process do something else in a step."""
    accumulate, steps = loop.accumulate_gradients, []

    def accumulate_or_fail(*arguments):
        loss, batches = accumulate(*arguments)
        steps.append(loss)
        return (fail(loss) if len(steps) == number and arguments[-1].index == index else loss), batches

    loop.accumulate_gradients = accumulate_or_fail


def spoil(loss):
    return loss * float("nan")


def break_down(loss):
    raise LookupError("a wire is loose")


def be_killed(loss):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(loss):
    os._exit(3)


FAILURES = {
    "nan": (spoil, ProcessError, r"DivergenceError: step 3: the loss is nan .* example_id \[1\d*, .*rate"),
    "error": (break_down, RuntimeError, r"process 2 of 2: LookupError: a wire is loose"),
    "killed": (be_killed, ProcessError, r"process 2 of 2 was killed by SIGKILL; .* memory"),
    "exit": (leave, ProcessError, r"process 2 of 2 exited with code 3"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_in_one_process_ends_all_with_its_message(manifest, tmp_path, failure):
    fail, kind, message = FAILURES[failure]
    started = time.monotonic()
    with workers_after(partial(fail_at_step, 3, 1, fail)), pytest.raises(kind, match=message) as caught:
        run(manifest, tmp_path, METHODS["lora"], TRAINING, processes=2)
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert ("in break_down" in notes) == (failure == "error")
    assert time.monotonic() - started < 30
    assert multiprocessing.active_children() == []
    assert "training_log.parquet" not in outputs(tmp_path)


def test_nan_names_all_examples_of_the_step(manifest, tmp_path):
    with workers_after(partial(fail_at_step, 1, 0, spoil)), pytest.raises(ProcessError) as caught:
        run(manifest, tmp_path, METHODS["lora"], TRAINING, processes=2)
    named = str(caught.value).split("[")[1].split("]")[0].split(", ")
    assert len(named) == TRAINING.batch_size


def test_workers_end_with_the_process_that_started_them(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "START_METHOD", "fork")
    monkeypatch.setattr(loop, "accumulate_gradients", lambda *arguments: time.sleep(60))
    process = start(manifest, tmp_path, METHODS["lora"], TRAINING, processes=2)
    workers = []
    while len(workers) < 2:
        workers = psutil.Process(process.pid).children()
        time.sleep(0.05)
    process.kill()
    process.join()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_one_process_for_each_device_in_sight_unless_a_number_is_given(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda, mps = torch.device("cuda"), torch.device("mps")
    assert [resolve_processes("auto", device) for device in (CPU, mps, cuda)] == [1, 1, 2]
    assert [resolve_processes(1, device) for device in (CPU, mps, cuda)] == [1, 1, 1]
    assert resolve_processes(3, CPU) == 3
    with pytest.raises(ProcessError, match=r"execution\.processes: 3 processes .* 2 of type cuda .*clusters\.md"):
        resolve_processes(3, cuda)
    with pytest.raises(ProcessError, match=r"2 processes .* 1 of type mps"):
        resolve_processes(2, mps)


@pytest.mark.parametrize("number", [0, -1, 1.5, "two", [2]])
def test_numbers_that_are_none_are_refused_by_name(tmp_path, number):
    with pytest.raises(ConfigError, match=r"execution\.processes"):
        load_study({"execution": {"processes": number}}, tmp_path, "config.yaml")
