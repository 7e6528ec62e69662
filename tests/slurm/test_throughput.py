"""Jobs that only sleep: side by side, what Snakemake and SLURM add is small; in a group, they take turns in one job."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
import yaml
from slurm_calls import HERE, ON_ONE_MACHINE, PROFILE, ROOT, call_snakemake, job, needs_slurm

pytestmark = [needs_slurm, pytest.mark.slurm_slow]
JOBS, SECONDS = 8, 420  # what is added is fixed: 36 s on two busy cores, which start Snakemake twice for each job


def test_eight_jobs_that_sleep_reach_nine_tenths_of_the_ideal(tmp_path):
    wanted = [f"asleep/{number}.txt" for number in range(JOBS)]
    begin = time.monotonic()
    run = call_snakemake(HERE / "jobs.smk", tmp_path, *ON_ONE_MACHINE, "--config", f"seconds={SECONDS}", "--", *wanted)
    took = time.monotonic() - begin
    assert run.status == 0, run.output[-3000:]
    print(f"{JOBS} jobs of {SECONDS} s took {took:.1f} s: {SECONDS / took:.3f} of the ideal")
    assert SECONDS / took >= 0.9


def test_the_documented_group_does_short_jobs_in_turn_in_one_slurm_job(tmp_path):
    """The lines of docs/clusters.md, for another rule, as a part of the profile."""
    page = (ROOT / "docs" / "clusters.md").read_text()
    (lines,) = re.findall(r"```yaml\n(groups: .*?)```", page, re.DOTALL)
    group = yaml.safe_load(lines.replace("classify_edges", "asleep"))
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text()) | group
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    wanted = [f"asleep/{number}.txt" for number in range(4)]
    options = ("--workflow-profile", str(tmp_path / "profile"), *ON_ONE_MACHINE[2:])
    run = call_snakemake(HERE / "jobs.smk", tmp_path / "work", *options, "--", *wanted)
    assert run.status == 0, run.output[-3000:]
    (number,) = run.submitted
    booked = job(number)
    assert (booked["NumCPUs"], booked["MinMemoryNode"], booked["TimeLimit"]) == ("1", "500M", "00:20:00")
    times = sorted(tuple(map(float, (tmp_path / "work" / name).read_text().split())) for name in wanted)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(times))
