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
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import (
    IN_THIS_PROCESS,
    SHAPES,
    SHARED,
    VOCABULARY,
    add_sub_like_prompts,
    peak_memory,
    random_gpt_neox,
    row_of_own_process,
    write_rows,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from circuitdrift.circuits.ablation import circuit_logits
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.objectives import kl_divergence
from circuitdrift.circuits.pair_runs import trace_pair
from circuitdrift.circuits.prompts import PromptPairs, pair_batches
from circuitdrift.circuits.selection import top_circuit
from circuitdrift.config.circuits import Attribution
from circuitdrift.models.anatomy import anatomy_of
from circuitdrift.models.tracing import last_logits, one_key_per_query_head, run_prefix, without_parameter_gradients


def add_sub_like_pairs(n: int) -> PromptPairs:
    """Token ids with the lengths of Add/Sub prompts; a pair differs in the token of its operator."""
    clean = add_sub_like_prompts(n)
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
    anatomy, pairs, recipe = anatomy_of(random_gpt_neox(shape)), add_sub_like_pairs(n), Attribution()
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
        "peak memory (GiB)": round(peak_memory(), 2),
    }


def main() -> None:
    """Measure each shape in a process of its own and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", type=Path, help="markdown file; standard output without it")
    parser.add_argument(IN_THIS_PROCESS, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_this_process:
        torch.set_num_threads(1)
        print(json.dumps(measure(given.shapes[0], given.pairs, given.batch_size)))
        return
    common = ["--pairs", given.pairs, "--batch-size", given.batch_size]
    rows = [row_of_own_process(__file__, ["--shapes", shape, *common]) for shape in given.shapes]
    write_rows(rows, given.output)


if __name__ == "__main__":
    main()
