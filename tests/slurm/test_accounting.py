"""With an accounting database, Snakemake follows its jobs through sacct, as the profile has it."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest
import yaml
from slurm_calls import (
    HAS_ACCOUNTS,
    HERE,
    ON_ONE_MACHINE,
    PROFILE,
    ask,
    call_snakemake,
    finished,
    needs_slurm,
    start_snakemake,
    wait_until,
)

pytestmark = [
    needs_slurm,
    pytest.mark.slurm_slow,
    pytest.mark.skipif(not HAS_ACCOUNTS, reason="the cluster was started without ACCOUNTING=yes"),
]
THROUGH_SACCT = ("--slurm-status-command", "sacct")
JOBS = HERE / "jobs.smk"


def test_the_profile_asks_sacct():
    assert yaml.safe_load((PROFILE / "config.yaml").read_text())["slurm-status-command"] == "sacct"


def test_the_end_of_jobs_is_read_from_the_accounts(tmp_path):
    run = call_snakemake(JOBS, tmp_path, *ON_ONE_MACHINE, *THROUGH_SACCT, "--verbose", "unlucky.txt")
    assert run.status == 0, run.output[-3000:]
    failed, completed = run.jobs_of("unlucky")
    listed = ask(
        "sacct", "--allocations", "--parsable2", "--noheader", "--format=JobIDRaw,State", f"--jobs={failed},{completed}"
    )
    assert listed.split() == [f"{failed}|FAILED", f"{completed}|COMPLETED"]
    assert "command=sacct" in run.output
    assert "command=squeue" not in run.output


def test_a_call_that_waits_for_a_cancelled_job_can_be_ended_and_repeated(tmp_path):
    """Release 2.8 of the plugin does not know sacct's words "CANCELLED by UID", and goes on waiting."""
    snakemake = start_snakemake(JOBS, tmp_path, *ON_ONE_MACHINE, *THROUGH_SACCT, "patient.txt")
    wait_until((tmp_path / "patient.started").exists)
    (number,) = re.findall(r"^(\d+) rule_patient", ask("squeue", "--noheader", "--format=%A %k"), re.MULTILINE)
    ask("scancel", number)
    try:
        snakemake.wait(timeout=10)
    except subprocess.TimeoutExpired:
        snakemake.send_signal(signal.SIGINT)
    assert finished(snakemake, tmp_path).status != 0
    (tmp_path / "enough").touch()
    again = call_snakemake(JOBS, tmp_path, *ON_ONE_MACHINE, *THROUGH_SACCT, "patient.txt")
    assert again.status == 0, again.output[-3000:]
    assert len(again.jobs_of("patient")) == 1
