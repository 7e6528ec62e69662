"""How the tests call Snakemake on the one-machine cluster, and what they ask of SLURM."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PROFILE = ROOT / "profiles" / "slurm"
HAS_ACCOUNTS = os.environ.get("ACCOUNTING", "no") != "no"
# A one-machine cluster answers at once, and remembers finished jobs for an hour.
ON_ONE_MACHINE = (
    *("--workflow-profile", str(PROFILE)),
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1"),
    *("--max-status-checks-per-second", "10"),
    *("--latency-wait", "20"),
    "--slurm-keep-successful-logs",
)
SECONDS = 900
"""Snakemake waits for ever for a job that SLURM lost."""

needs_slurm = pytest.mark.skipif(
    shutil.which("sbatch") is None or "SLURM_CONF" not in os.environ,
    reason="no SLURM started for tests: run `make test-slurm`, or tests/slurm/one_node_slurm.sh with a command",
)


@dataclass(frozen=True)
class Run:
    """A finished call of Snakemake and the directory that it worked in."""

    directory: Path
    output: str
    status: int

    @property
    def slurm_logs(self) -> list[Path]:
        return sorted((self.directory / ".snakemake" / "slurm_logs").rglob("*.log"))

    @property
    def submitted(self) -> list[str]:
        """SLURM's numbers of all jobs, in the order of submission."""
        return re.findall(r"has been submitted with SLURM jobid (\d+)", self.output)

    def jobs_of(self, rule: str) -> list[str]:
        """SLURM's numbers of the jobs of a rule, in the order of submission."""
        return re.findall(rf"SLURM jobid (\d+) \(log: \S*/rule_{rule}/", self.output)


def command(snakefile: Path, directory: Path, *options: str) -> list[str]:
    directory.mkdir(exist_ok=True)
    prompt = [sys.executable, str(HERE / "prompt_snakemake.py")]
    return [*prompt, "--snakefile", str(snakefile), "--directory", str(directory), *options]


def start_snakemake(snakefile: Path, directory: Path, *options: str) -> subprocess.Popen[str]:
    called = command(snakefile, directory, *options)
    return subprocess.Popen(
        called,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        preexec_fn=_heed_ctrl_c,
    )


def _heed_ctrl_c() -> None:
    """Tests that run in the background of a shell ignore Ctrl-C, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finished(process: subprocess.Popen[str], directory: Path) -> Run:
    output, _ = process.communicate(timeout=SECONDS)
    return Run(directory, output, process.returncode)


def call_snakemake(snakefile: Path, directory: Path, *options: str) -> Run:
    return finished(start_snakemake(snakefile, directory, *options), directory)


def ask(*words: str) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def job(number: str) -> dict[str, str]:
    """What SLURM knows of a job, by name."""
    return dict(word.split("=", 1) for word in ask("scontrol", "show", "job", number).split() if "=" in word)


def wait_until(what: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
