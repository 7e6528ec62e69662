"""Calls on a folder that is in use, was left by a killed call, or has an odd name; tests/faults has the longer ones."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from checkout import ROOT, Workflow, copy_repository

from circuitdrift.calls import only_call

sys.path.insert(0, str(ROOT / "tests" / "unit"))
from exchange_files import study_of_two_circuits

EDGES = "results/imported/circuits/imported/mine/00/edges.parquet"
LOCK = "results/imported/.in_use"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return study_of_two_circuits(tmp_path)


def leave_snakemakes_lock(folder: Path) -> Path:
    """What a killed call leaves of Snakemake's own lock."""
    lock = folder / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(f"{LOCK}\n{EDGES}\n")
    return lock


def test_a_call_on_a_study_in_use_is_refused_and_starts_nothing(workflow: Workflow, config: Path) -> None:
    with only_call(workflow.directory / LOCK):
        refused = workflow.call(EDGES, "--cores", "1", config=config)
    assert refused.returncode == 1
    assert f"works on this study (process {os.getpid()} on {socket.gethostname()}); wait until it" in refused.stderr
    assert len(refused.stderr.partition("Building DAG of jobs...")[2].splitlines()) <= 12, refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (workflow.directory / EDGES).exists()


def test_a_call_goes_on_from_a_killed_one_and_leaves_no_lock(workflow: Workflow, config: Path) -> None:
    lock = leave_snakemakes_lock(workflow.directory)
    other = lock.with_name("1.output.lock")
    other.write_text(f"results/another/.in_use\n{EDGES.replace('imported', 'another', 1)}\n")
    (workflow.directory / LOCK).parent.mkdir(parents=True)
    (workflow.directory / LOCK).write_text(f"4711 {socket.gethostname()}\n")
    ended = workflow.call(EDGES, "--cores", "1", config=config)
    assert ended.returncode == 0, ended.stderr
    assert f"(process 4711 on {socket.gethostname()}) was killed; this one goes on from there" in ended.stderr
    assert (workflow.directory / EDGES).is_file()
    assert not (workflow.directory / LOCK).exists()


def test_a_lock_of_another_machine_waits_for_the_user(workflow: Workflow, config: Path) -> None:
    leave_snakemakes_lock(workflow.directory)
    (workflow.directory / LOCK).parent.mkdir(parents=True)
    (workflow.directory / LOCK).write_text("4711 login-node-2\n")
    refused = workflow.call(EDGES, "--cores", "1", config=config)
    assert refused.returncode == 1
    assert "the last call (process 4711 on login-node-2) was killed there, or still runs; make sure" in refused.stderr
    assert not (workflow.directory / EDGES).exists()


def test_a_checkout_whose_path_has_spaces_and_other_letters_is_planned(tmp_path: Path, config: Path) -> None:
    folder = tmp_path / "Prüfung der Kreise (neu) & 漢字 'x'"
    workflow = Workflow(copy_repository(folder / "repository"), folder)
    assert workflow.rules_to_run(EDGES, config=config) >= {"import_circuits_mine"}
    assert "pretrain" in workflow.rules_to_run()
