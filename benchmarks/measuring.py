"""Common parts of the benchmarks: random models and prompts, seconds and memory, a process for each row, tables."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

SHAPES = {
    "pythia-70m": (6, 8, 512),
    "pythia-160m": (12, 12, 768),
    "pythia-410m": (24, 16, 1024),
    "pythia-1.4b": (24, 16, 2048),
}
"""Layers, heads, width."""

VOCABULARY = 50304
COMMON, SHARED, LENGTH = 16, 18, 21
"""Add/Sub prompts in Pythia's tokens: tokens that all prompts share, tokens that a pair shares, all tokens."""

GIB = 2**30
LONG = 5.0
"""Seconds: work that takes longer is timed once, without a repeat that does not count."""

SECONDS_BETWEEN_SAMPLES = 0.005

IN_THIS_PROCESS = "--in-this-process"
"""With this option a benchmark measures one row and prints it as JSON; it starts no further process."""

Row = dict[str, object]


def random_gpt_neox(shape: str, attention: str = "eager") -> GPTNeoXForCausalLM:
    """A GPT-NeoX of a shape, with random weights from a fixed seed."""
    layers, heads, width = SHAPES[shape]
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        attn_implementation=attention,
    )
    return GPTNeoXForCausalLM(config).eval()


def add_sub_like_prompts(n: int) -> list[list[int]]:
    """Random token ids with the lengths of Add/Sub prompts: all begin with the same ``COMMON`` ids."""
    generator = torch.Generator().manual_seed(1)
    instruction = torch.randint(VOCABULARY, (COMMON,), generator=generator).tolist()
    rest = torch.randint(VOCABULARY, (n, LENGTH - COMMON), generator=generator).tolist()
    return [[*instruction, *tokens] for tokens in rest]


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median over a few repeats after a warm-up; work of more than :data:`LONG` seconds is timed once.

    On the CPU it is the CPU time of the process, which other work on the machine changes little.
    """
    first = _once(work, device)
    return first if first > LONG else statistics.median(_once(work, device) for _ in range(repeats))


def _once(work: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def peak_memory(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """GiB that the process (on CUDA: its tensors) held before the work, and the peak during the work."""
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


def largest_resident_set() -> float:
    """The most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def row_of_own_process(script: str, options: Sequence[object]) -> Row:
    """One row, measured by the same script in a process of its own, so that its memory is measured alone."""
    command = [sys.executable, script, *map(str, options), IN_THIS_PROCESS]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def write_tables(tables: Sequence[Sequence[Row]], output: Path | None) -> None:
    """Write markdown tables, each of rows of the same columns, to a file or to standard output."""
    text = "\n".join(map(_as_markdown, tables))
    if output is None:
        print(text, end="")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)


def _as_markdown(rows: Sequence[Row]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
