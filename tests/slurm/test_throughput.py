"""Jobs that only sleep run side by side: what Snakemake and SLURM add is small against jobs of a few minutes."""

from __future__ import annotations

import time

import pytest
from slurm_calls import HERE, ON_ONE_MACHINE, call_snakemake, needs_slurm

pytestmark = [needs_slurm, pytest.mark.slurm_slow]
JOBS, SECONDS = 8, 240


def test_eight_jobs_that_sleep_reach_nine_tenths_of_the_ideal(tmp_path):
    wanted = [f"asleep/{number}.txt" for number in range(JOBS)]
    begin = time.monotonic()
    run = call_snakemake(HERE / "jobs.smk", tmp_path, *ON_ONE_MACHINE, "--config", f"seconds={SECONDS}", "--", *wanted)
    took = time.monotonic() - begin
    assert run.status == 0, run.output[-3000:]
    print(f"{JOBS} jobs of {SECONDS} s took {took:.1f} s: {SECONDS / took:.3f} of the ideal")
    assert SECONDS / took >= 0.9
