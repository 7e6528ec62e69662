"""The memory plan against what the allocator is asked for, and the batch sizes that follow from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from circuitdrift.circuits import memory
from circuitdrift.circuits.ablation import run_circuits
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.memory import (
    PairSize,
    bytes_to_run_a_circuit,
    bytes_to_score,
    circuits_at_once,
    examples_at_once,
    largest_pair,
)
from circuitdrift.circuits.prompts import PromptPairs, pair_batches
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.anatomy import Anatomy, anatomy_of

N_PAIRS, VOCABULARY = 8, 4000
SIZES = [PairSize(n_shared=18, n_after=3, n_answer=1), PairSize(n_shared=4, n_after=20, n_answer=3)]


def neox() -> PreTrainedModel:
    """Small, but large enough for activations to outweigh what does not grow with the batch."""
    sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 512}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCABULARY, attn_implementation="eager", **sizes))


def llama() -> PreTrainedModel:
    """With grouped keys and values and a gated MLP."""
    sizes = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 256}
    config = LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, attn_implementation="eager", **sizes)
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module", params=[neox, llama])
def anatomy(request: pytest.FixtureRequest) -> Anatomy:
    torch.manual_seed(0)
    return anatomy_of(request.param().eval())


def pairs_of_size(size: PairSize) -> PromptPairs:
    generator = torch.Generator().manual_seed(0)
    length = size.n_shared + size.n_after - (size.n_answer - 1)
    clean = torch.randint(VOCABULARY, (N_PAIRS, length), generator=generator).tolist()
    corrupted = [
        [*ids[: size.n_shared], (ids[size.n_shared] + 1) % VOCABULARY, *ids[size.n_shared + 1 :]] for ids in clean
    ]
    answers = [list(range(size.n_answer))] * N_PAIRS
    return PromptPairs(clean, corrupted, answers, answers)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that torch held at one time, less what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("size", SIZES)
def test_the_largest_pair_has_the_largest_counts(anatomy: Anatomy, size: PairSize) -> None:
    assert largest_pair(anatomy, pairs_of_size(size)) == size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "attribution", ["eap-ig-inputs", "clean-corrupted", "ceap", "eap-ig-activations", "relp", "gim"]
)
def test_scoring_stays_within_its_plan(anatomy: Anatomy, size: PairSize, attribution: str) -> None:
    objective = "answer_loss" if attribution in {"relp", "gim"} else "kl"
    recipe, pairs = Attribution(attribution=attribution, objective=objective), pairs_of_size(size)
    planned = N_PAIRS * bytes_to_score(anatomy, size, recipe)
    assert planned / 4 < peak_bytes(lambda: score_edges(anatomy, pairs, recipe, N_PAIRS)) < planned


@pytest.mark.parametrize("size", SIZES)
def test_circuit_runs_stay_within_their_plan(anatomy: Anatomy, size: PairSize) -> None:
    circuits = anatomy.graph.edge_mask.repeat(8, 1, 1)
    (batch,) = pair_batches(pairs_of_size(size), N_PAIRS, anatomy.device)
    planned = N_PAIRS * len(circuits) * bytes_to_run_a_circuit(anatomy, size)
    assert planned / 4 < peak_bytes(lambda: run_circuits(anatomy, batch, circuits, at_once=8)) < planned


@pytest.mark.parametrize(
    ("free", "examples", "circuits"),
    [(10**12, 32, 8), (2 * 1000 * 7, 4, 1), (2 * 1000 * 4, 4, 1), (2 * 1000 * 16 * 3, 32, 1), (10, 1, 1)],
)
def test_batches_are_the_powers_of_two_that_half_the_free_memory_holds(
    anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch, free: int, examples: int, circuits: int
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    assert examples_at_once(anatomy, "auto", 1000) == examples
    assert circuits_at_once(anatomy, examples, 1000) == circuits


def test_a_batch_size_that_is_asked_for_is_taken(anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 0)
    assert examples_at_once(anatomy, 48, 1000) == 48
