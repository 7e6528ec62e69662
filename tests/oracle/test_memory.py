"""The memory plan against what the allocator is asked for, and the batch sizes that follow from it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from circuitdrift.circuits import attribution, memory, metrics
from circuitdrift.circuits.ablation import run_circuits
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.memory import (
    FittingBatches,
    MemoryLimitError,
    PairSize,
    bytes_to_run_a_circuit,
    bytes_to_score,
    circuits_at_once,
    examples_at_once,
    is_out_of_memory,
    largest_pair,
)
from circuitdrift.circuits.metrics import measure_circuits
from circuitdrift.circuits.prompts import PairBatch, PromptPairs, pair_batches
from circuitdrift.config.circuits import Attribution, Faithfulness
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


SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    RuntimeError("could not create a primitive"),
    MemoryError(),
]
"""What torch and Python raise where memory runs out."""


@pytest.fixture(autouse=True)
def _little_garbage() -> Iterator[None]:
    """What was imported stays, as in a job, so that looking for garbage after a shortage takes no time."""
    gc.freeze()
    yield
    gc.unfreeze()


def running_out(function: Callable[..., Any], at_most: int, error: Exception) -> Callable[..., Any]:
    """A function of an anatomy and a batch that finds no memory for more than ``at_most`` examples."""

    def wrapped(anatomy: Anatomy, batch: PairBatch, *arguments: Any) -> Any:
        result = function(anatomy, batch, *arguments)  # first, so that hooks and buffers have been there
        if len(batch.indices) > at_most:
            raise error
        return result

    return wrapped


def test_scores_are_the_same_where_memory_runs_out(
    anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pairs, recipe = pairs_of_size(SIZES[0]), Attribution(folds=4)
    expected = score_edges(anatomy, pairs, recipe, N_PAIRS)
    method = running_out(attribution._METHODS[recipe.attribution], 3, SHORTAGES[0])
    monkeypatch.setitem(attribution._METHODS, recipe.attribution, method)
    with caplog.at_level(logging.WARNING):
        found = score_edges(anatomy, pairs, recipe, N_PAIRS)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-6, atol=1e-6 * float(expected.scores.abs().max()))
    torch.testing.assert_close(
        found.by_fold, expected.by_fold, rtol=1e-5, atol=1e-6 * float(expected.by_fold.abs().max())
    )
    assert found.fold_sizes == expected.fold_sizes
    assert [record.message.rpartition("; ")[2] for record in caplog.records] == ["going on with 4", "going on with 2"]


def test_faithfulness_is_the_same_where_memory_runs_out(anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, circuits = pairs_of_size(SIZES[1]), anatomy.graph.edge_mask.repeat(2, 1, 1)
    circuits[1, :, ::2] = False
    measure = Faithfulness(batch_size=N_PAIRS)
    expected = measure_circuits(anatomy, pairs, circuits, measure)
    monkeypatch.setattr(metrics, "run_circuits", running_out(metrics.run_circuits, 3, SHORTAGES[1]))
    for found, outcome in zip(measure_circuits(anatomy, pairs, circuits, measure), expected, strict=True):
        for metric, values in outcome.items():
            np.testing.assert_allclose(found[metric], values, rtol=1e-6, atol=1e-6)


def batch_of(n: int) -> PairBatch:
    (batch,) = pair_batches(PromptPairs([[1, 2]] * n, [[1, 3]] * n, [[4]] * n, [[5]] * n), n, torch.device("cpu"))
    return batch


@pytest.mark.parametrize(("n", "fits"), [(8, 8), (8, 4), (8, 3), (7, 1), (5, 2), (1, 1)])
def test_every_example_is_worked_on_once_and_in_order(n: int, fits: int) -> None:
    def sizes_that_fit(batch: PairBatch) -> int:
        if len(batch.indices) > fits:
            raise SHORTAGES[0]
        return len(batch.indices)

    fitting = FittingBatches()
    for _ in range(2):
        done = list(fitting.run(batch_of(n), sizes_that_fit))
        assert [index for part, _ in done for index in part.indices] == list(range(n))
        assert all(part.clean.shape[0] == part.answers.shape[0] == size <= fits for part, size in done)


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: str(error)[:20])
def test_what_torch_and_python_say_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_a_size_that_does_not_fit_is_tried_once() -> None:
    tried = []

    def work(batch: PairBatch) -> None:
        tried.append(len(batch.indices))
        if len(batch.indices) > 4:
            raise SHORTAGES[0]

    fitting = FittingBatches()
    for _ in range(2):
        list(fitting.run(batch_of(8), work))
    assert tried == [8, 4, 4, 4, 4]


def test_memory_that_a_single_example_does_not_fit_into_is_refused() -> None:
    def work(batch: PairBatch) -> None:
        raise SHORTAGES[1]

    with pytest.raises(MemoryLimitError, match=r"single example at once .*can't allocate.*give the job more memory"):
        list(FittingBatches().run(batch_of(4), work))


def test_another_error_is_no_shortage_of_memory() -> None:
    def work(batch: PairBatch) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(FittingBatches().run(batch_of(4), work))
