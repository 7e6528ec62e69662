"""Jobs that end badly: too little memory, a failure, scancel, a time limit, a node that goes down."""

from __future__ import annotations

import re

import pytest
from slurm_calls import (
    HERE,
    ON_ONE_MACHINE,
    Run,
    ask,
    call_snakemake,
    finished,
    job,
    needs_slurm,
    start_snakemake,
    wait_until,
)

pytestmark = needs_slurm
JOBS = HERE / "jobs.smk"


@pytest.fixture(scope="module")
def troubled(tmp_path_factory) -> Run:
    """One call with three jobs: out of memory at first, failing at first, and cancelled while it runs."""
    directory = tmp_path_factory.mktemp("troubled")
    snakemake = start_snakemake(JOBS, directory, *ON_ONE_MACHINE, "hungry.txt", "unlucky.txt", "patient.txt")
    wait_until((directory / "patient.started").exists)
    running = ask("squeue", "--noheader", "--format=%A %k")
    (number,) = re.findall(r"^(\d+) rule_patient", running, re.MULTILINE)
    ask("scancel", number)
    return finished(snakemake, directory)


def test_a_job_that_ran_out_of_memory_gets_twice_as_much(troubled):
    first, second = troubled.jobs_of("hungry")
    assert job(first)["MinMemoryNode"] == "500M"
    assert job(first)["JobState"] in {"OUT_OF_MEMORY", "FAILED", "CANCELLED"}
    assert job(second)["MinMemoryNode"] == "1000M"
    assert job(second)["JobState"] == "COMPLETED"
    assert (troubled.directory / "hungry.txt").read_text() == "fed\n"


def test_a_job_that_failed_once_runs_again_with_more_memory(troubled):
    first, second = troubled.jobs_of("unlucky")
    assert (job(first)["JobState"], job(first)["MinMemoryNode"]) == ("FAILED", "500M")
    assert (job(second)["JobState"], job(second)["MinMemoryNode"]) == ("COMPLETED", "1000M")
    assert (troubled.directory / "unlucky.txt").read_text() == "lucky\n"


def test_a_cancelled_job_fails_alone_and_the_next_call_runs_it_alone(troubled):
    (cancelled,) = troubled.jobs_of("patient")
    assert job(cancelled)["JobState"] == "CANCELLED"
    assert troubled.status == 1
    assert re.search(rf"SLURM-job '{cancelled}' failed, SLURM status is: 'CANCELLED", troubled.output)
    (troubled.directory / "enough").touch()
    again = call_snakemake(JOBS, troubled.directory, *ON_ONE_MACHINE, "hungry.txt", "unlucky.txt", "patient.txt")
    assert again.status == 0, again.output[-3000:]
    assert len(again.submitted) == len(again.jobs_of("patient")) == 1


@pytest.mark.slurm_slow
def test_a_job_beyond_its_time_limit_is_ended(tmp_path):
    run = call_snakemake(JOBS, tmp_path, *ON_ONE_MACHINE, "endless.txt")
    (number,) = run.jobs_of("endless")
    assert run.status == 1
    assert job(number)["JobState"] == "TIMEOUT"
    assert f"SLURM-job '{number}' failed, SLURM status is: 'TIMEOUT'" in run.output
    assert not (tmp_path / "endless.txt").exists()


@pytest.mark.slurm_slow
def test_a_job_whose_node_goes_down_runs_again_when_it_is_back(tmp_path):
    (node,) = ask("sinfo", "--noheader", "--format=%n").split()
    snakemake = start_snakemake(JOBS, tmp_path, *ON_ONE_MACHINE, "patient.txt")
    wait_until((tmp_path / "patient.started").exists)
    (tmp_path / "patient.started").unlink()
    ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    wait_until(lambda: ask("squeue", "--noheader", "--states=PENDING").strip())
    (tmp_path / "enough").touch()
    ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
    run = finished(snakemake, tmp_path)
    assert run.status == 0, run.output[-3000:]
    (number,) = run.jobs_of("patient")
    assert (job(number)["JobState"], job(number)["Restarts"]) == ("COMPLETED", "1")
