"""What the benchmarks share: shapes and data with random contents, a process for each row, the table of the rows."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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
"""Add/Sub prompts in Pythia's tokens: what all share, what a pair shares, and the whole."""

IN_THIS_PROCESS = "--in-this-process"
"""The option with which a benchmark measures one row, and prints it as JSON, in place of starting further processes."""


def random_gpt_neox(shape: str) -> GPTNeoXForCausalLM:
    """A GPT-NeoX of that shape with random weights, the same each time."""
    layers, heads, width = SHAPES[shape]
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        attn_implementation="eager",
    )
    return GPTNeoXForCausalLM(config).eval()


def add_sub_like_prompts(n: int) -> list[list[int]]:
    """Random token ids with the lengths of Add/Sub prompts: all begin with the same ``COMMON`` ids."""
    generator = torch.Generator().manual_seed(1)
    instruction = torch.randint(VOCABULARY, (COMMON,), generator=generator).tolist()
    rest = torch.randint(VOCABULARY, (n, LENGTH - COMMON), generator=generator).tolist()
    return [[*instruction, *tokens] for tokens in rest]


def peak_memory() -> float:
    """The largest resident set that this process has had, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def row_of_own_process(script: str, options: Sequence[object]) -> dict[str, object]:
    """One row, measured by the same script in a process of its own, so that its peak memory is its own too."""
    command = [sys.executable, script, *map(str, options), IN_THIS_PROCESS]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_rows(rows: Sequence[dict[str, object]], output: Path | None) -> None:
    """Write rows of the same columns as a markdown table, to a file or to standard output."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(table)
    else:
        print(table, end="")
