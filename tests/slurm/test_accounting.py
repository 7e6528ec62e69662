"""With an accounting database, Snakemake follows its jobs through sacct, as the profile has it."""

from __future__ import annotations

import pytest
import yaml
from slurm_calls import HAS_ACCOUNTS, HERE, ON_ONE_MACHINE, PROFILE, ask, call_snakemake, needs_slurm

pytestmark = [
    needs_slurm,
    pytest.mark.slurm_slow,
    pytest.mark.skipif(not HAS_ACCOUNTS, reason="the cluster was started without ACCOUNTING=yes"),
]


def test_the_profile_asks_sacct():
    assert yaml.safe_load((PROFILE / "config.yaml").read_text())["slurm-status-command"] == "sacct"


def test_the_end_of_jobs_is_read_from_the_accounts(tmp_path):
    run = call_snakemake(HERE / "jobs.smk", tmp_path, *ON_ONE_MACHINE, "unlucky.txt", "--verbose")
    assert run.status == 0, run.output[-3000:]
    failed, completed = run.jobs_of("unlucky")
    listed = ask(
        "sacct", "--allocations", "--parsable2", "--noheader", "--format=JobIDRaw,State", f"--jobs={failed},{completed}"
    )
    assert listed.split() == [f"{failed}|FAILED", f"{completed}|COMPLETED"]
    assert "command=sacct" in run.output
    assert "command=squeue" not in run.output
