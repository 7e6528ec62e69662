"""A study of a dozen jobs in a folder of its own, calls of Snakemake on it that can be disturbed, and its bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
NAME = "disturbed"
CONFIG: dict[str, Any] = {
    "study": NAME,
    "models": {
        "toy": {
            **{"source": "scratch", "layers": 2, "heads": 2, "width": 32, "mlp_width": 64, "largest_number": 200},
            **{"steps": 10, "batch_size": 16},
        }
    },
    "tasks": {"sums": {"family": "add_sub", "max_operand": 100, "train": 64, "circuit": 16, "test": 32}},
    "methods": {"lora_r1": {"kind": "lora", "rank": 1}},
    "training": {"epochs": 1, "checkpoints": 2},
    "circuit": {"fraction": 0.2, "folds": 8},
    "faithfulness": {"examples": 8, "bootstrap": 100},
}
RESULTS = f"results/{NAME}"
TARGETS = ("circuits", f"{RESULTS}/figures/method_accuracy.svg", f"{RESULTS}/tables/method_accuracy.csv")
TIMED = ("benchmark.tsv", "scoring_benchmark.tsv")
LONGEST = 900.0
MOST_LINES = 13
GOES_ON = "was killed; this one goes on from there"


@dataclass(frozen=True)
class Ended:
    """What a call printed, and its exit code."""

    text: str
    code: int

    def lines_from(self, start: str, end: str) -> list[str]:
        """The lines from one that holds ``start`` to the one before the next that holds ``end``."""
        lines = self.text.splitlines()
        first = next(number for number, line in enumerate(lines) if start in line)
        return lines[first : next(number for number in range(first, len(lines)) if end in lines[number])]


class Call:
    """A call of Snakemake in a process group of its own, as a shell on a terminal starts it."""

    def __init__(self, command: list[str], folder: Path, log: Path) -> None:
        self.log = log
        with log.open("w") as opened:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=opened,
                stderr=opened,
                start_new_session=True,
                # A call in the background of a script ignores Ctrl-C, and hands that on.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def jobs(self) -> list[psutil.Process]:
        """The processes of jobs, and theirs."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to Snakemake and all of its jobs, as a terminal does."""
        os.killpg(self.process.pid, number)

    def wait_for(self, words: str, seconds: float = 120.0) -> None:
        """Wait until the call has printed something."""
        end = time.monotonic() + seconds
        while words not in self.log.read_text():
            assert self.is_running, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def end(self) -> Ended:
        """Wait for the end."""
        try:
            code = self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.signal_group(signal.SIGKILL)
            raise
        return Ended(self.log.read_text(errors="replace"), code)


@dataclass(frozen=True)
class Study:
    """A working directory, whose results a checkout makes."""

    folder: Path
    repository: Path = ROOT

    @property
    def results(self) -> Path:
        return self.folder / RESULTS

    def start(self, *options: str, targets: tuple[str, ...] = TARGETS) -> Call:
        """Start a call for the targets on two cores."""
        config = self.folder / "study.yaml"
        if not config.exists():
            config.write_text(yaml.safe_dump(CONFIG, allow_unicode=True))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.repository / "Snakefile")]
        command += ["--directory", str(self.folder), "--configfile", str(config), "--cores", "2", *options]
        command += ["--printshellcmds"]  # with Snakemake's own lines, which tests wait for
        log = self.folder.parent / f"{self.folder.name}-{time.monotonic_ns()}.log"
        return Call([*command, "--", *targets] if targets else command, self.folder, log)

    def call(self, *options: str, targets: tuple[str, ...] = TARGETS) -> Ended:
        """Call and wait."""
        return self.start(*options, targets=targets).end()

    def finish(self) -> Ended:
        """The one more call after a fault, which must succeed."""
        ended = self.call()
        assert ended.code == 0, ended.text[-4000:]
        return ended

    def digests(self) -> dict[str, str]:
        """The sha256 of every file in the results, hidden ones too, but for those that hold times."""
        files = [path for path in sorted(self.results.rglob("*")) if path.is_file() and path.name not in TIMED]
        return {str(path.relative_to(self.results)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def copy_to(self, folder: Path) -> Study:
        """A study in another folder that has come as far as this one; times of files are kept."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Study(folder, self.repository)


def job_processes(folder: Path) -> list[psutil.Process]:
    """The processes that run a job's script in a working directory."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder / ".snakemake" / "scripts") in word for word in process.info["cmdline"] or [])
    ]


def assert_no_job_is_left(folder: Path, seconds: float = 60.0) -> None:
    """Jobs of killed calls have ended, or end before they do anything."""
    end = time.monotonic() + seconds
    while left := job_processes(folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)


@dataclass(frozen=True)
class Twin:
    """The undisturbed study.

    Attributes:
        study: the finished study; tests copy it.
        digests: the bytes of its results.
        seconds: the time that it took.
    """

    study: Study
    digests: dict[str, str]
    seconds: float
