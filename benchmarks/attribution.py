"""Time and memory of scoring edges and of circuit runs, beside the bare passes of the same recipe in the same run.

    python benchmarks/attribution.py --shapes pythia-70m pythia-160m --output benchmark.md

Models have the shapes of Pythia and random weights. Prompts have the lengths of Add/Sub prompts in Pythia's tokens: 21,
of which the first 18 are what a pair shares and 16 what all prompts share. Everything runs on one core in float32; each
shape has a process of its own, whose largest resident set is the peak. Bare passes are what the recipe nominally asks
for: two plain forwards of whole prompts, and for each step one forward and one backward pass over the tokens that
differ, gradients of activations only, the head on the last position.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from circuitdrift.circuits.ablation import circuit_logits
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.objectives import kl_divergence
from circuitdrift.circuits.pair_runs import trace_pair
from circuitdrift.circuits.prompts import PromptPairs, pair_batches
from circuitdrift.circuits.selection import top_circuit
from circuitdrift.config.circuits import Attribution
from circuitdrift.models.anatomy import Anatomy, anatomy_of
from circuitdrift.models.tracing import last_logits, one_key_per_query_head, run_prefix, without_parameter_gradients

SHAPES = {
    "pythia-70m": (6, 8, 512),
    "pythia-160m": (12, 12, 768),
    "pythia-410m": (24, 16, 1024),
    "pythia-1.4b": (24, 16, 2048),
}
"""Layers, heads, width."""

VOCABULARY = 50304
COMMON, SHARED, LENGTH = 16, 18, 21


def random_model(shape: str) -> Anatomy:
    """A GPT-NeoX of that shape with random weights, ready to be taken apart."""
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
    return anatomy_of(GPTNeoXForCausalLM(config).eval())


def add_sub_like_pairs(n: int) -> PromptPairs:
    """Token ids with the lengths of Add/Sub prompts; a pair differs in the token of its operator."""
    generator = torch.Generator().manual_seed(1)
    instruction = torch.randint(VOCABULARY, (COMMON,), generator=generator).tolist()
    rest = torch.randint(VOCABULARY, (n, LENGTH - COMMON), generator=generator).tolist()
    clean = [[*instruction, *tokens] for tokens in rest]
    corrupted = [[*ids[:SHARED], (ids[SHARED] + 1) % VOCABULARY, *ids[SHARED + 1 :]] for ids in clean]
    return PromptPairs(clean, corrupted, [[1]] * n, [[2]] * n)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median over a few repeats, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(shape: str, n: int, batch_size: int) -> dict[str, object]:
    """One row of the table."""
    anatomy, pairs, recipe = random_model(shape), add_sub_like_pairs(n), Attribution()
    batches = pair_batches(pairs, batch_size, anatomy.device)

    @torch.no_grad()
    def forward() -> None:
        for batch in batches:
            anatomy.unembedding(anatomy.backbone(input_ids=batch.clean, use_cache=False).last_hidden_state[:, -1])

    prefixes = [run_prefix(anatomy, batch.clean[:, : batch.n_shared]) for batch in batches]

    reference = torch.randn(VOCABULARY)

    def step() -> None:
        for batch, prefix in zip(batches, prefixes, strict=True):
            x = anatomy.embedding(batch.clean[:, batch.n_shared :]).detach().requires_grad_(True)
            logits = last_logits(anatomy, x, prefix, 1)
            torch.autograd.grad(kl_divergence(reference.expand_as(logits), logits).sum(), x)

    scores = score_edges(anatomy, pairs, recipe, batch_size).scores
    circuit = top_circuit(anatomy.graph, scores, 0.05)[None]

    def run_circuit() -> None:
        with one_key_per_query_head(anatomy):
            for pair in traced:
                circuit_logits(anatomy, pair, pair.corrupted, circuit)

    plain = seconds(forward)
    with without_parameter_gradients(anatomy):
        bare_step = seconds(step)
    scoring = seconds(lambda: score_edges(anatomy, pairs, recipe, batch_size))
    with one_key_per_query_head(anatomy):
        traced = [trace_pair(anatomy, batch) for batch in batches]
    circuit_run = seconds(run_circuit)
    bare = 2 * plain + recipe.steps * bare_step
    return {
        "shape": shape,
        "prompt pairs": n,
        "scoring (s)": round(scoring, 3),
        "bare passes (s)": round(bare, 3),
        "scoring / bare passes": round(scoring / bare, 2),
        "circuit run (s)": round(circuit_run, 3),
        "plain forward (s)": round(plain, 3),
        "circuit run / plain forward": round(circuit_run / plain, 2),
        "peak memory (GiB)": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Measure each shape in a process of its own and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", type=Path, help="markdown file; standard output without it")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_this_process:
        torch.set_num_threads(1)
        print(json.dumps(measure(given.shapes[0], given.pairs, given.batch_size)))
        return
    rows = []
    for shape in given.shapes:
        options = ["--shapes", shape, "--pairs", str(given.pairs), "--batch-size", str(given.batch_size)]
        command = [sys.executable, __file__, *options, "--in-this-process"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(table)
    else:
        print(table, end="")


if __name__ == "__main__":
    main()
