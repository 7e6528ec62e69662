"""Time and memory of scoring edges and of circuit runs, beside the bare passes of the same recipe in the same run.

    python benchmarks/attribution.py --shapes pythia-70m pythia-160m
    python benchmarks/attribution.py --shapes --model results/STUDY/models/M/manifest.json .../circuit.parquet

Shapes are Pythia's, with random weights and prompts as long as Add/Sub prompts in Pythia's tokens: 21 tokens, of which
a pair shares the first 18 and all prompts share the first 16. A model comes from its manifest, with the first pairs of
its own examples. Each case runs in a process of its own, on one core if the device is the CPU.

Bare passes are the nominal cost of the recipe: two plain forward passes over whole prompts, and for each step one
forward and one backward pass, with gradients of activations only and the head on the last position. The steps run the
tokens from the first difference of a pair on ("bare passes"), or whole prompts ("bare passes, whole prompts"), as an
implementation without shared prefixes would.

The second table compares bfloat16 with float32: the seconds of scoring, the rank correlation (Spearman) of all absolute
scores, and the Jaccard index of the strongest 5 % of edges. Beside it stands the noise to judge it by: the mean Jaccard
index of the strongest 5 % from two disjoint halves of the same prompts, in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from measuring import (
    GIB,
    IN_THIS_PROCESS,
    SHAPES,
    SHARED,
    VOCABULARY,
    Row,
    add_sub_like_prompts,
    peak_memory,
    random_gpt_neox,
    row_of_own_process,
    seconds,
    write_tables,
)

from circuitdrift.circuits.ablation import circuit_logits
from circuitdrift.circuits.attribution import EdgeScores, score_edges
from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.memory import bytes_to_score, largest_pair
from circuitdrift.circuits.prompts import PromptPairs, pair_batches, prompt_pairs
from circuitdrift.circuits.selection import edge_count, select_circuit, strongest_edges
from circuitdrift.circuits.traced_pairs import trace_pair
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.decoder.anatomy import Anatomy, anatomy_of
from circuitdrift.decoder.logits import kl_divergence, log_probabilities
from circuitdrift.decoder.tracing import logits_after, one_key_per_query_head, run_prefix, without_parameter_gradients
from circuitdrift.drift.fold_circuits import rows_of_scores
from circuitdrift.drift.reliability import FoldScores, draw_halves, similarity
from circuitdrift.storage import read_table

FRACTION = 0.05
HALF_SPLITS = 20


@dataclass(frozen=True)
class Case:
    """A model, its prompt pairs, and how many of them are run as one."""

    anatomy: Anatomy
    pairs: PromptPairs
    batch_size: int


def add_sub_like_pairs(n: int) -> PromptPairs:
    """Token ids with the lengths of Add/Sub prompts; a pair differs in the token of its operator."""
    clean = add_sub_like_prompts(n)
    corrupted = [[*ids[:SHARED], (ids[SHARED] + 1) % VOCABULARY, *ids[SHARED + 1 :]] for ids in clean]
    return PromptPairs(clean, corrupted, [[1]] * n, [[2]] * n)


def real_model(manifest: Path, device: torch.device) -> Anatomy:
    """The model of a manifest in float32."""
    _, anatomy = next(checkpoint_anatomies(manifest, [], "float32", device))
    return anatomy


def bare_step_seconds(case: Case, share_prefixes: bool) -> float:
    """One forward and one backward pass over all pairs, from the first differing token on or over whole prompts."""
    anatomy = case.anatomy
    batches = [
        (batch.clean, batch.n_shared if share_prefixes else 0)
        for batch in pair_batches(case.pairs, case.batch_size, anatomy.device)
    ]
    work = [(clean[:, n_shared:], run_prefix(anatomy, clean[:, :n_shared])) for clean, n_shared in batches]
    reference = log_probabilities(torch.randn(anatomy.embedding.num_embeddings, device=anatomy.device))

    def step() -> None:
        for tokens, prefix in work:
            x = anatomy.embedding(tokens).detach().requires_grad_(True)
            logits = logits_after(anatomy, prefix, x, 1)
            torch.autograd.grad(kl_divergence(reference.expand_as(logits), log_probabilities(logits)).sum(), x)

    with without_parameter_gradients(anatomy):
        return seconds(step, anatomy.device)


def plain_forward_seconds(case: Case) -> float:
    """A forward pass over all clean prompts, the head on the last position."""
    anatomy = case.anatomy
    batches = pair_batches(case.pairs, case.batch_size, anatomy.device)

    @torch.no_grad()
    def forward() -> None:
        for batch in batches:
            anatomy.unembedding(anatomy.backbone(input_ids=batch.clean, use_cache=False).last_hidden_state[:, -1])

    return seconds(forward, anatomy.device)


def circuit_run_seconds(case: Case, scores: torch.Tensor) -> float:
    """A run of the strongest 5 % of edges on all pairs, clean and corrupted activations being at hand."""
    anatomy = case.anatomy
    circuit = select_circuit(anatomy.graph, scores, Selection(fraction=FRACTION))[None]
    with one_key_per_query_head(anatomy):
        traced = [trace_pair(anatomy, batch) for batch in pair_batches(case.pairs, case.batch_size, anatomy.device)]

        def run() -> None:
            for pair in traced:
                circuit_logits(anatomy, pair, pair.corrupted, circuit)

        return seconds(run, anatomy.device)


def measure(name: str, case: Case) -> Row:
    """One row of the first table."""
    anatomy, recipe = case.anatomy, Attribution()

    scores = torch.empty(0)

    def score() -> None:
        nonlocal scores
        scores = score_edges(anatomy, case.pairs, recipe, case.batch_size).scores

    before, peak = peak_memory(score, anatomy.device)
    planned = (
        min(case.batch_size, len(case.pairs)) * bytes_to_score(anatomy, largest_pair(anatomy, case.pairs), recipe) / GIB
    )
    scoring, plain = seconds(score, anatomy.device), plain_forward_seconds(case)
    bare = 2 * plain + recipe.steps * bare_step_seconds(case, share_prefixes=True)
    whole = 2 * plain + recipe.steps * bare_step_seconds(case, share_prefixes=False)
    circuit_run = circuit_run_seconds(case, scores)
    return {
        "model": name,
        "prompt pairs": len(case.pairs),
        "scoring (s)": round(scoring, 3),
        "bare passes (s)": round(bare, 3),
        "scoring / bare passes": round(scoring / bare, 2),
        "bare passes, whole prompts (s)": round(whole, 3),
        "scoring / those": round(scoring / whole, 2),
        "circuit run (s)": round(circuit_run, 3),
        "plain forward (s)": round(plain, 3),
        "circuit run / plain forward": round(circuit_run / plain, 2),
        "model in memory (GiB)": round(before, 2),
        "peak while scoring (GiB)": round(peak, 2),
        "planned beside the model (GiB)": round(planned, 2),
    }


def compare_precisions(name: str, case: Case) -> Row:
    """One row of the second table; the model is in bfloat16 afterwards."""
    anatomy, recipe = case.anatomy, Attribution()
    found: dict[int, EdgeScores] = {}
    took = []
    for place, dtype in enumerate((torch.float32, torch.bfloat16)):
        anatomy.model.to(dtype=dtype)

        def score(place: int = place) -> None:
            found[place] = score_edges(anatomy, case.pairs, recipe, case.batch_size)

        took.append(seconds(score, anatomy.device))
    exact, rounded = (found[place].scores[anatomy.graph.edge_mask].double().numpy()[None] for place in (0, 1))
    return {
        "model": name,
        "float32 (s)": round(took[0], 3),
        "bfloat16 (s)": round(took[1], 3),
        "float32 / bfloat16": round(took[0] / took[1], 2),
        "rank correlation": round(float(spearmanr(np.abs(exact[0]), np.abs(rounded[0])).statistic), 4),
        "Jaccard of 5 % of edges": round(jaccard_of_strongest(anatomy, exact, rounded), 3),
        "Jaccard of halves of the prompts": round(jaccard_of_halves(anatomy, found[0]), 3),
    }


def jaccard_of_halves(anatomy: Anatomy, found: EdgeScores) -> float:
    """Mean Jaccard index of the strongest 5 % of edges from random disjoint halves of the folds."""
    folds = FoldScores(found.by_fold[:, anatomy.graph.edge_mask].double().numpy(), np.array(found.fold_sizes))
    halves = draw_halves(np.arange(folds.n_folds), folds.n_folds, folds.n_folds // 2, HALF_SPLITS, seed=0)
    return jaccard_of_strongest(anatomy, *map(folds.means, halves))


def jaccard_of_strongest(anatomy: Anatomy, one: np.ndarray, other: np.ndarray) -> float:
    """Mean Jaccard index of the strongest 5 % of edges, row by row of scores."""
    graph = anatomy.graph
    n = edge_count(graph, FRACTION)
    kept = [strongest_edges(graph, rows_of_scores(graph, rows), n).flatten(1).numpy() for rows in (one, other)]
    return float(similarity("jaccard", *kept).mean())


TABLES = {"speed": measure, "precision": compare_precisions}


def main() -> None:
    """Measure each case in a process of its own and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--pairs", type=int, default=64, help="prompt pairs of a shape")
    parser.add_argument(
        "--model", nargs=2, action="append", type=Path, default=[], metavar=("MANIFEST", "EXAMPLES"), help="and a model"
    )
    parser.add_argument("--model-pairs", type=int, default=12, help="prompt pairs of a model")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="markdown file; standard output without it")
    parser.add_argument(IN_THIS_PROCESS, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_this_process:
        torch.set_num_threads(1)
        device = resolve_device(given.device)
        if given.shapes:
            name, pairs = given.shapes[0], add_sub_like_pairs(given.pairs)
            attention = "eager" if device.type == "cpu" else "sdpa"
            anatomy = anatomy_of(random_gpt_neox(name, attention).to(device))
        else:
            manifest, examples = given.model[0]
            name, anatomy = manifest.parent.name, real_model(manifest, device)
            pairs = prompt_pairs(read_table(examples, "examples").head(given.model_pairs))
        print(json.dumps(TABLES[given.tables[0]](name, Case(anatomy, pairs, given.batch_size))))
        return
    cases = [["--shapes", shape] for shape in given.shapes]
    cases += [["--shapes", "--model", *map(str, paths)] for paths in given.model]
    counts = ["--pairs", str(given.pairs), "--model-pairs", str(given.model_pairs)]
    common = [*counts, "--batch-size", str(given.batch_size), "--device", given.device]
    tables = [
        [row_of_own_process(__file__, [*case, *common, "--tables", table]) for case in cases] for table in given.tables
    ]
    write_tables(tables, given.output)


if __name__ == "__main__":
    main()
