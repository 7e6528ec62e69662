"""Jobs beside each other never share a graphics card: real processes, with cards that are only pretended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.iocontainers import Namedlist

import circuitdrift
from circuitdrift import cards, stage
from circuitdrift.errors import CircuitDriftError

SCRIPTS = Path(circuitdrift.__file__).parents[1]
TWO = ("GPU-first", "GPU-second")

JOB = """
import os, sys, time
from circuitdrift import cards

cards.installed_cards = lambda: ("GPU-first", "GPU-second")
cards.SECONDS_BETWEEN_TRIES = 0.01
wanted = sys.argv[1] if sys.argv[1] == "auto" else int(sys.argv[1])
with cards.claimed_cards(wanted):
    print(os.environ["CUDA_VISIBLE_DEVICES"], time.monotonic(), flush=True)
    time.sleep(float(sys.argv[2]))
    print(time.monotonic(), flush=True)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A folder of locks for one test, and neither a scheduler nor a choice of the user."""
    monkeypatch.setattr(cards.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def started(wanted: int | str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JOB, str(wanted), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=SCRIPTS)


def held(job: subprocess.Popen[str]) -> tuple[set[str], float, float]:
    """The cards of a job that has ended, and from when to when it held them."""
    names, begin, end = job.communicate(timeout=60)[0].split()
    return set(names.split(",")), float(begin), float(end)


def visible() -> str | None:
    with cards.claimed_cards(1):
        return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_no_two_jobs_hold_one_card_at_a_time():
    """With jobs of both cards among them, which would wait for each other if two could gather cards at once."""
    intervals = [held(job) for job in [started(wanted, 0.2) for wanted in (1, 2, 1, "auto", 1, 2)]]
    assert sorted(len(names) for names, _, _ in intervals) == [1, 1, 1, 2, 2, 2]
    for card in TWO:
        times = sorted((begin, end) for names, begin, end in intervals if card in names)
        assert len(times) >= 3
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times))


def test_two_jobs_run_at_once_on_two_cards():
    long = started(1, 60)
    assert long.stdout.readline().startswith("GPU-first ")
    assert held(started(1, 0))[0] == {"GPU-second"}
    long.kill()
    long.communicate()


def test_a_job_that_is_killed_frees_its_cards():
    killed = started("auto", 60)
    assert killed.stdout.readline().startswith("GPU-first,GPU-second ")
    waiting = started(2, 0)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    assert held(waiting)[0] == set(TWO)
    killed.communicate()


@pytest.mark.parametrize(
    ("choice", "found"),
    [(None, "GPU-first"), ("1", "GPU-second"), ("GPU-second", "GPU-second"), ("1, 0", "GPU-second")],
)
def test_the_users_choice_of_cards_is_kept(monkeypatch, choice, found):
    monkeypatch.setattr(cards, "installed_cards", lambda: TWO)
    if choice is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", choice)
    assert visible() == found
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == choice


@pytest.mark.parametrize(("assigned", "job"), [("1", "7"), ("", None)])
def test_what_slurm_assigned_or_the_user_hid_stays_as_it_is(monkeypatch, tmp_path, assigned, job):
    monkeypatch.setattr(cards, "installed_cards", lambda: TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", assigned)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    assert visible() == assigned
    assert not list(tmp_path.iterdir())


def test_a_machine_without_the_driver_has_no_cards(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(cards.ctypes, "CDLL", missing)
    assert cards.installed_cards() == ()
    assert visible() is None


def test_a_folder_of_locks_that_leads_elsewhere_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(cards, "installed_cards", lambda: TWO)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"circuitdrift-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CircuitDriftError, match="belongs to another user; remove it"):
        visible()


@pytest.mark.parametrize(("device", "expected"), [("auto", "GPU-first,GPU-second"), ("cpu", None)])
def test_a_stage_holds_as_many_cards_as_it_has_processes(monkeypatch, device, expected):
    monkeypatch.setattr(cards, "installed_cards", lambda: TWO)
    found = []

    def main(device: str, processes: int) -> None:
        found.append(os.environ.get("CUDA_VISIBLE_DEVICES"))

    def named(**items):
        return Namedlist(fromdict=items)

    params = named(device=device, processes=2, code="digest")
    job = SimpleNamespace(rule="demo", input=named(), output=named(), wildcards=named(), params=params, log=())
    monkeypatch.setitem(main.__annotations__, "device", str)
    monkeypatch.setitem(main.__annotations__, "processes", int)
    stage._call(main, job)
    assert found == [expected]
