"""The binder between a Snakemake job and a script's main."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from pydantic import ValidationError
from snakemake.iocontainers import Namedlist

import circuitdrift
from circuitdrift import stage
from circuitdrift.config.methods import LoraMethod, MethodConfig
from circuitdrift.errors import CircuitDriftError
from circuitdrift.figures.training_cost import seconds_of_job
from circuitdrift.job_arguments import arguments
from circuitdrift.provenance import Provenance, digest_of_config


def job(inputs=(), outputs=(), params=(), log=()):
    def named(items):
        return Namedlist(fromdict=dict(items))

    return SimpleNamespace(
        rule="demo",
        input=named(inputs),
        output=named(outputs),
        params=named(params),
        wildcards=named({"seed": "7"}),
        log=log,
    )


def main(
    first: Path, many: list[Path], none: Path | None, method: MethodConfig, n: int, provenance: Provenance
) -> None:
    """A stage."""


VALUES = {
    "inputs": {"first": "a.parquet", "many": ["b", "c"], "none": []},
    "params": {"method": {"kind": "lora", "rank": 2}, "n": 3, "code": "digest"},
}


def test_values_arrive_as_the_annotated_types():
    given = arguments(main, job(**VALUES))
    assert given["first"] == Path("a.parquet")
    assert given["many"] == [Path("b"), Path("c")]
    assert given["none"] is None
    assert given["method"] == LoraMethod(kind="lora", rank=2)
    origin = given["provenance"]
    assert (origin.rule, origin.wildcards, origin.seed, origin.code_digest) == ("demo", {"seed": "7"}, 7, "digest")
    assert origin.config_digest == digest_of_config({"method": {"kind": "lora", "rank": 2}, "n": 3})


def test_provenance_goes_only_to_a_main_that_asks_for_it():
    def without(n: int) -> None:
        """A stage whose outputs have no place for their origin."""

    assert arguments(without, job(params={"n": 3, "code": "digest"})) == {"n": 3}


def test_a_main_that_asks_for_no_provenance_gets_none():
    def plain(n: int) -> None:
        """A stage."""

    assert arguments(plain, job(params={"n": 3, "code": "digest"})) == {"n": 3}


def test_one_file_is_a_list_of_one_where_several_may_come():
    values = {**VALUES, "inputs": {**VALUES["inputs"], "many": "b"}}
    assert arguments(main, job(**values))["many"] == [Path("b")]


def test_a_value_of_another_type_is_refused():
    values = {**VALUES, "params": {**VALUES["params"], "n": "three"}}
    with pytest.raises(ValidationError):
        arguments(main, job(**values))


@pytest.fixture
def screen_and_log(tmp_path, monkeypatch, capfd):
    """Runs a ``main`` that raises an error, in a job, and gives what is then on the screen and in the log file."""

    def run_failing(error: BaseException, code: int = 1) -> tuple[str, str]:
        def failing(provenance: Provenance) -> None:
            raise error

        log = tmp_path / "logs" / "job.log"
        running = job(params={"code": "digest"}, log=[str(log)])
        monkeypatch.setattr(sys.modules["__main__"], "snakemake", running, raising=False)
        monkeypatch.setattr(logging.root, "handlers", [])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            stage.run(failing)
        assert ended.value.code == code
        return capfd.readouterr().err, log.read_text()

    return run_failing


def error_classes() -> list[type[Exception]]:
    """Every exception class that a module of the library defines."""
    names = [module.name for module in pkgutil.walk_packages(circuitdrift.__path__, "circuitdrift.")]
    modules = [importlib.import_module(name) for name in names]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__.startswith("circuitdrift.")
    }
    return sorted(found, key=lambda kind: kind.__qualname__)


def test_every_error_class_of_the_library_is_one_that_ends_a_job_with_its_message():
    classes = error_classes()
    assert len(classes) > 15
    assert [kind for kind in classes if not issubclass(kind, CircuitDriftError)] == []


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_an_error_raised_on_purpose_ends_a_job_with_its_message_alone(screen_and_log, kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "results/x: broken; mend it")
    for text in screen_and_log(error):
        assert text.endswith(" error: results/x: broken; mend it\n")
        assert text.count("\n") == 1


def test_another_error_leaves_one_line_on_the_screen_and_its_traceback_in_the_log(screen_and_log):
    screen, log = screen_and_log(LookupError("a wire is loose\nand more"))
    assert screen.endswith(" unexpected error: LookupError: a wire is loose\n")
    assert screen.count("\n") == 1
    assert "Traceback (most recent call last)" in log
    assert "raise error" in log
    assert "LookupError: a wire is loose" in log


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "make room on that file system"),
        (errno.EDQUOT, "your quota on that file system is used up"),
        (errno.EROFS, "that file system is mounted read-only: mount it for writing"),
        (errno.EACCES, "give yourself the right"),
    ],
)
def test_what_the_operating_system_refuses_ends_a_job_with_a_fix(screen_and_log, number, fix):
    for text in screen_and_log(OSError(number, os.strerror(number), "results/x")):
        assert f" error: results/x: {os.strerror(number)}; {fix}" in text
        assert text.endswith("then call again: what is finished is kept\n")
        assert text.count("\n") == 1


def test_a_refusal_behind_an_error_of_a_library_in_rust_is_recognised(screen_and_log):
    for text in screen_and_log(RuntimeError("cannot save the tokenizer: No space left on device (os error 28)")):
        assert " error: a file of this job: No space left on device; make room on that file system" in text


def test_ctrl_c_ends_a_job_in_one_line(screen_and_log):
    for text in screen_and_log(KeyboardInterrupt(), code=130):
        assert text.endswith(" interrupted; the next call goes on from here\n")
        assert text.count("\n") == 1


def test_a_log_on_a_full_disk_leaves_the_messages_on_the_screen(monkeypatch, capfd):
    def failing(provenance: Provenance) -> None:
        raise LookupError("a wire is loose")

    running = job(params={"code": "digest"}, log=["/dev/full"])
    monkeypatch.setattr(sys.modules["__main__"], "snakemake", running, raising=False)
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging, "raiseExceptions", True)
    with pytest.raises(SystemExit):
        stage.run(failing)
    assert capfd.readouterr().err.endswith(" unexpected error: LookupError: a wire is loose\n")


def test_a_job_ends_with_its_snakemake():
    """Also when that is killed, which no handler notices, and before its own parent takes note of its end."""
    snakemake = subprocess.Popen(["sleep", "60"])
    script = f"from circuitdrift import stage; stage._end_with({snakemake.pid}); print('goes on')"
    environment = os.environ | {"PYTHONPATH": str(Path(stage.__file__).parents[1])}
    running = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(timeout=3)
    snakemake.kill()
    assert running.wait(timeout=60) == -signal.SIGKILL
    assert running.stdout.read() == b""
    assert snakemake.wait() == -signal.SIGKILL


def test_an_error_that_was_not_expected_is_shown_whole_where_no_log_keeps_it(monkeypatch):
    def failing(provenance: Provenance) -> None:
        raise LookupError("a wire is loose")

    running = job(params={"code": "digest"})
    monkeypatch.setattr(sys.modules["__main__"], "snakemake", running, raising=False)
    with pytest.raises(LookupError, match="a wire is loose"):
        stage.run(failing)


def test_a_job_leaves_what_it_has_used_where_its_rule_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "new" / "benchmark.tsv"

    def work() -> None:
        sum(range(3_000_000))

    stage._call(work, job(outputs={"benchmark": str(path)}, params={"code": "digest"}))
    used = pd.read_csv(path, sep="\t").iloc[0]
    assert list(used.index) == ["s", "h:m:s", "max_rss", "cpu_time"]
    assert used["cpu_time"] > 0
    assert 10 < used["max_rss"] < 100_000  # MiB
    assert seconds_of_job(path) == used["s"]
    assert f"done in {used['s']:.1f} s" in caplog.text


def test_a_job_that_fails_leaves_no_usage(tmp_path):
    path = tmp_path / "benchmark.tsv"

    def fail() -> None:
        raise CircuitDriftError("reason")

    with pytest.raises(CircuitDriftError):
        stage._call(fail, job(outputs={"benchmark": str(path)}, params={"code": "digest"}))
    assert not path.exists()
