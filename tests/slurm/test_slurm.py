"""The smoke study through a real SLURM: the same bytes as on this machine alone, one SLURM job for each step."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pandas as pd
import pytest
from slurm_calls import ON_ONE_MACHINE, ROOT, Run, ask, call_snakemake, needs_slurm

COMPARED = {".parquet", ".safetensors", ".json", ".csv", ".md", ".tex"}
# Threads are bounded alike in both runs, because the order of a sum, and with it the last bits, follows the number of
# threads.
SMOKE = ("--configfile", str(ROOT / "configs" / "smoke.yaml"), "--max-threads", "1", "--printshellcmds")

# Every stage, and one figure: the others differ in what they read and draw, not in how SLURM runs them.
WANTED = ("--", "train", "circuits", "drift", "recipes", "circuitlora", "tables", "plot_change_rates")

pytestmark = needs_slurm


def digests(run: Run) -> dict[str, str]:
    """SHA-256 of each result file, by its path below results; of measured times that they are there, no more."""
    results = run.directory / "results"
    files = [path for path in sorted(results.rglob("*")) if path.suffix in COMPARED]
    return {str(path.relative_to(results)): hashlib.sha256(without_times(path)).hexdigest() for path in files}


def without_times(path: Path) -> bytes:
    """A file's bytes; of tables with measured times, the CSV file less its columns of seconds."""
    if path.stem not in {"training_cost", "recipes"}:
        return path.read_bytes()
    if path.suffix != ".csv":
        return b""
    table = pd.read_csv(path, dtype=str)
    return table[[name for name in table.columns if not name.endswith("seconds")]].to_csv().encode()


@pytest.fixture(scope="module")
def through_slurm(tmp_path_factory) -> Run:
    run = call_snakemake(ROOT / "Snakefile", tmp_path_factory.mktemp("slurm"), *SMOKE, *ON_ONE_MACHINE, *WANTED)
    assert run.status == 0, run.output[-8000:]
    return run


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Run:
    run = call_snakemake(ROOT / "Snakefile", tmp_path_factory.mktemp("local"), *SMOKE, "--cores", "2", *WANTED)
    assert run.status == 0, run.output[-8000:]
    return run


def test_results_are_those_of_a_local_run_byte_for_byte(through_slurm, local):
    there, here = digests(through_slurm), digests(local)
    assert here, "the local run left no results to compare with"
    assert sorted(there) == sorted(here)
    differing = [path for path in here if there[path] != here[path]]
    assert not differing, "SLURM and local run differ in:\n" + "\n".join(differing)


def test_every_job_went_through_slurm(through_slurm):
    steps = re.findall(r"^rule \S+:$", through_slurm.output, re.MULTILINE)
    assert len(through_slurm.submitted) == len(steps) > 0
    assert sorted(path.stem for path in through_slurm.slurm_logs) == sorted(through_slurm.submitted)
    states = ask("squeue", "--noheader", "--states=all", "--format=%A %T")
    assert set(through_slurm.submitted) <= set(re.findall(r"^(\d+) COMPLETED$", states, re.MULTILINE))


def test_memory_and_time_of_a_rule_reach_slurm(through_slurm):
    (log,) = (path for path in through_slurm.slurm_logs if "rule_pretrain" in path.parts)
    booked = ask("scontrol", "show", "job", log.stem)
    memory, minutes = re.search(r"mem_mb=(\d+).*runtime=(\d+)", log.read_text()).groups()
    assert f"MinMemoryNode={_as_slurm_writes_it(int(memory))} " in booked
    hours, rest = divmod(int(minutes), 60)
    assert f"TimeLimit={hours:02}:{rest:02}:00 " in booked


def _as_slurm_writes_it(megabytes: int) -> str:
    return f"{megabytes // 1024}G" if megabytes % 1024 == 0 else f"{megabytes}M"


def test_a_second_run_has_nothing_to_do(through_slurm):
    again = call_snakemake(ROOT / "Snakefile", through_slurm.directory, *SMOKE, *ON_ONE_MACHINE, *WANTED)
    assert again.status == 0, again.output[-3000:]
    assert "Nothing to be done" in again.output
