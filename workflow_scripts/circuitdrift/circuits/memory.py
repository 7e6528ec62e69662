"""The number of prompt pairs and of circuits in one batch that the free memory allows.

The counts of bytes below estimate the largest tensors that exist at one time. A batch may take half of the free
memory. Batch sizes are powers of two, so that a little more or less memory changes no number.

Memory may run out all the same, where another process takes it or a limit is not known here. :class:`FittingBatches`
then goes on with smaller batches.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from circuitdrift.circuits.prompts import PairBatch, PromptPairs, pair_batches
from circuitdrift.compute import free_memory
from circuitdrift.config.circuits import Attribution, BatchSize
from circuitdrift.decoder.anatomy import Anatomy
from circuitdrift.errors import CircuitDriftError

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

LARGEST_BATCH = 32
"""Larger batches are no faster on any device that was measured."""

LARGEST_CIRCUIT_BATCH = 256
"""Rows, examples times circuits, above which more circuits at once are no faster."""

SHARE_OF_FREE_MEMORY = 0.5

VECTORS_PER_LAYER_AND_TOKEN = 30
"""Activations of d_model that one layer keeps per token for a backward pass: those of MLP, attention and norms."""

VECTORS_OF_A_FORWARD_PASS = 12
"""Activations of d_model that one block of a forward pass holds per token, most of them in its MLP."""


OUT_OF_MEMORY = (
    "out of memory",  # MPS, and CUDA in libraries
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",  # the CPU
    "bad_alloc",
    "could not create a primitive",  # oneDNN on the CPU, which gives no reason
    "could not create a memory",
)
"""What torch's RuntimeErrors say when memory runs out, beside OutOfMemoryError."""


class MemoryLimitError(CircuitDriftError):
    """Memory that a single example does not fit into."""


@dataclass(frozen=True)
class PairSize:
    """The size of the largest example: tokens that the pair shares, tokens after them, tokens of the answer."""

    n_shared: int
    n_after: int
    n_answer: int


def largest_pair(anatomy: Anatomy, pairs: PromptPairs) -> PairSize:
    """The largest of each count over all examples."""
    batches = pair_batches(pairs, 1, anatomy.device)
    return PairSize(
        n_shared=max(batch.n_shared for batch in batches),
        n_after=max(batch.clean.shape[1] - batch.n_shared for batch in batches),
        n_answer=max(batch.n_answer for batch in batches),
    )


def bytes_to_score(anatomy: Anatomy, size: PairSize, recipe: Attribution) -> int:
    """Bytes per example of a batch while edges are scored."""
    n_passes = 2 if recipe.attribution in {"eap", "clean-corrupted", "relp", "gim"} else recipe.steps
    weight, accumulated = anatomy.dtype.itemsize, anatomy.accumulation_dtype.itemsize
    graph, d_model = anatomy.graph, anatomy.embedding.weight.shape[1]
    attention = graph.n_heads * (size.n_shared + size.n_after)
    per_layer = VECTORS_PER_LAYER_AND_TOKEN * d_model + 3 * attention
    backward = n_passes * size.n_after * graph.n_layers * per_layer * weight
    if recipe.attribution == "ceap":
        written = graph.n_heads * anatomy.d_head + d_model
        backward += (n_passes + 2) * size.n_after * graph.n_layers * written * weight
    differences = graph.n_writers * size.n_after * d_model * accumulated
    readers = 3 * graph.n_heads * size.n_after * d_model * accumulated
    return backward + differences + 3 * readers + _bytes_of_ends(anatomy, size, n_passes + 2)


def bytes_to_run_a_circuit(anatomy: Anatomy, size: PairSize) -> int:
    """Bytes per example of a batch and per circuit that runs on it."""
    weight, accumulated = anatomy.dtype.itemsize, anatomy.accumulation_dtype.itemsize
    graph, d_model = anatomy.graph, anatomy.embedding.weight.shape[1]
    differences = (graph.n_writers + 4 * graph.n_heads) * d_model * accumulated
    block = (VECTORS_OF_A_FORWARD_PASS * d_model + 4 * graph.n_heads * (size.n_shared + size.n_after)) * weight
    return size.n_after * (differences + block) + _bytes_of_ends(anatomy, size, 1)


def _bytes_of_ends(anatomy: Anatomy, size: PairSize, n_passes: int) -> int:
    """Bytes of logits, and of the shared tokens' keys and values, in several passes over an example."""
    weight, accumulated = anatomy.dtype.itemsize, anatomy.accumulation_dtype.itemsize
    graph = anatomy.graph
    cache = 3 * graph.n_layers * graph.n_heads * anatomy.d_head * size.n_shared * weight
    logits = 4 * size.n_answer * anatomy.embedding.weight.shape[0] * accumulated
    return n_passes * (cache + logits)


def examples_at_once(anatomy: Anatomy, wanted: BatchSize, bytes_per_example: int) -> int:
    """The given batch size; for ``auto`` the largest power of two up to :data:`LARGEST_BATCH` that memory allows."""
    if wanted != "auto":
        return wanted
    free = free_memory(anatomy.device)
    size = _power_of_two(SHARE_OF_FREE_MEMORY * free / bytes_per_example, LARGEST_BATCH)
    logger.info(
        "%d examples at once: about %.2f GiB each, %.1f GiB are free", size, bytes_per_example / 2**30, free / 2**30
    )
    return size


def circuits_at_once(anatomy: Anatomy, batch_size: int, bytes_per_example: int) -> int:
    """Number of circuits that run as one batch with this many examples."""
    free = free_memory(anatomy.device)
    room = SHARE_OF_FREE_MEMORY * free / (bytes_per_example * batch_size)
    return _power_of_two(room, max(1, LARGEST_CIRCUIT_BATCH // batch_size))


def _power_of_two(at_most: float, largest: int) -> int:
    """The largest power of two that is at most both, and at least one."""
    return 1 << max(0, min(int(at_most), largest).bit_length() - 1)


class FittingBatches:
    """Runs work on batches, and on halves of a batch once memory has run out.

    A batch that did not fit is repeated in two parts, these in parts again if need be, and all later batches have at
    most the size that fitted.
    """

    def __init__(self) -> None:
        self._most = sys.maxsize

    def run(self, batch: PairBatch, work: Callable[[PairBatch], Result]) -> Iterator[tuple[PairBatch, Result]]:
        """Call ``work`` on the batch, or on parts of it that fit, and yield each part with its result.

        ``work`` must leave nothing behind where memory ran out in it.

        Raises:
            MemoryLimitError: memory ran out with a single example.
        """
        waiting = [batch]
        while waiting:
            part, *waiting = [*waiting[0].parts(self._most), *waiting[1:]]
            try:
                result = work(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            else:
                yield part, result
                continue
            # Outside of the handler, whose exception holds the frames of the work, and so their tensors.
            self._take_fewer_than(len(part.indices), reason)
            waiting.insert(0, part)

    def _take_fewer_than(self, size: int, reason: str) -> None:
        if size == 1:
            raise MemoryLimitError(
                f"memory ran out with a single example at once ({reason}); give the job more memory (mem_mb), run "
                "fewer jobs at a time (--cores 1), use a larger device or execution.device cpu, or fewer circuit.steps"
            )
        self._most = _power_of_two(size - 1, size)
        logger.warning("memory ran out with %d examples at once (%s); going on with %d", size, reason, self._most)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
