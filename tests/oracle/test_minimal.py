"""Minimal circuits against the measured faithfulness of every size."""

from __future__ import annotations

import pytest
import torch
from random_models import one_token_pairs, random_pairs, small_llama

from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.metrics import measure_circuits
from circuitdrift.circuits.minimal import METRIC, minimal_circuit
from circuitdrift.circuits.prompts import PromptPairs
from circuitdrift.circuits.selection import prune, strongest_edges
from circuitdrift.config.circuits import Attribution, Faithfulness
from circuitdrift.decoder.anatomy import Anatomy, anatomy_of

MEASURE = Faithfulness(batch_size=8)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return anatomy_of(small_llama())


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return one_token_pairs(*random_pairs(8))


@pytest.fixture(scope="module")
def scores(anatomy: Anatomy, pairs: PromptPairs) -> torch.Tensor:
    return score_edges(anatomy, pairs, Attribution(), 8).scores


@pytest.fixture(scope="module")
def every_size(anatomy: Anatomy, pairs: PromptPairs, scores: torch.Tensor) -> dict[int, float]:
    """Faithfulness of the top circuit of each number of edges, from its definition."""
    graph = anatomy.graph
    sizes = range(1, graph.n_edges + 1)
    circuits = torch.stack([prune(graph, strongest_edges(graph, scores, n)) for n in sizes])
    means = [outcome[METRIC].mean(axis=0) for outcome in measure_circuits(anatomy, pairs, circuits, MEASURE)]
    return {n: float(1 - circuit / corrupted) for n, (_, circuit, corrupted) in zip(sizes, means, strict=True)}


@pytest.mark.parametrize("wanted", [0.2, 0.5, 0.9, 0.999])
def test_it_is_faithful_and_a_slightly_smaller_one_is_not(
    anatomy: Anatomy, pairs: PromptPairs, scores: torch.Tensor, every_size: dict[int, float], wanted: float
) -> None:
    graph = anatomy.graph
    circuit = minimal_circuit(anatomy, pairs, scores, wanted, MEASURE)
    n = next(n for n in every_size if torch.equal(circuit, prune(graph, strongest_edges(graph, scores, n))))
    # Sizes whose additional edges were all pruned give the same circuit; the search may have ended at any of them.
    same = [m for m in every_size if torch.equal(circuit, prune(graph, strongest_edges(graph, scores, m)))]
    assert every_size[n] >= wanted
    below = range(min(same) - max(1, int(0.02 * max(same))), min(same))
    assert any(every_size.get(m, 0.0) < wanted for m in below)


def test_prompts_that_make_no_difference_are_refused(anatomy: Anatomy, scores: torch.Tensor) -> None:
    clean, _ = random_pairs(4)
    with pytest.raises(ValueError, match="selection minimal: the model's output is the same"):
        minimal_circuit(anatomy, one_token_pairs(clean, clean), scores, 0.5, MEASURE)
