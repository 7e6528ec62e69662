"""What the benchmarks share: seconds and memory of a piece of work, a process for each case, and tables."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

GIB = 2**30
LONG = 5.0
"""Seconds: work that takes longer is timed once, without a repeat that does not count."""

SECONDS_BETWEEN_SAMPLES = 0.005

Row = dict[str, object]


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median over a few repeats after one that does not count; work of over :data:`LONG` seconds is timed once."""
    first = _once(work, device)
    return first if first > LONG else statistics.median(_once(work, device) for _ in range(repeats))


def _once(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def peak_memory(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """GiB that the process (on CUDA: its tensors) held before the work, and at most while it was done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return before / GIB, torch.cuda.max_memory_allocated(device) / GIB
    process, ended = psutil.Process(), threading.Event()
    samples = [process.memory_info().rss]

    def sample() -> None:
        while not ended.wait(SECONDS_BETWEEN_SAMPLES):
            samples.append(process.memory_info().rss)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        work()
    finally:
        ended.set()
        sampler.join()
    return samples[0] / GIB, max(samples) / GIB


def in_own_process(script: str, options: Sequence[str]) -> Row:
    """Run a benchmark script for one case; it prints its row as JSON in its last line."""
    command = [sys.executable, script, *options, "--in-this-process"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def as_markdown(rows: Sequence[Row]) -> str:
    """A table whose head is the rows' keys."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_or_print(text: str, output: Path | None) -> None:
    """Write a text to a file, or to standard output where there is none."""
    if output is None:
        print(text, end="")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
