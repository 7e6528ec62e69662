"""Cost of a training step in floating-point operations (FLOPs) of its matrix products, forward and backward.

FLOPs are counted by torch's own formulas rather than derived from the model's sizes. So they are right for the products
that a method needs on an architecture, such as no gradient into the first block's inputs under LoRA, or DoRA's norms
of the weights. A multiplication with its addition counts as two operations. Attention is counted in its plain form, so
that the count does not depend on the device's kernel. Element-wise work, including the optimiser's, is left out.

If a step's passes are known in advance, two counted passes for each length of the split are enough: a pass costs one
amount for its first example, which includes the tokens that all examples share, and another for each further example.
A method whose passes depend on its samples counts them as they come (:class:`PassCounter`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import PreTrainedModel

from circuitdrift.training.adalora import RankSchedule
from circuitdrift.training.examples import Batch, Examples, answer_loss

FORMULAS = {**flop_registry, torch.ops.aten.addmm_: flop_registry[torch.ops.aten.addmm]}
"""Torch's formulas by operation, and the one that it lacks: a product that is added in place."""


@dataclass(frozen=True)
class PassCost:
    """FLOPs of a forward and a backward pass over examples of one length, by the number of examples."""

    first: int
    further: int

    def of(self, n_examples: int) -> int:
        """FLOPs of a pass over some examples."""
        return self.first + (n_examples - 1) * self.further


@dataclass(frozen=True)
class StepCost:
    """FLOPs of any step of a run.

    Attributes:
        passes: cost of a pass by prompt length and answer length.
        penalty: FLOPs of AdaLoRA's penalty, once per step; 0 for other methods.
    """

    passes: Mapping[tuple[int, int], PassCost]
    penalty: int

    def of(self, batches: Sequence[Batch]) -> int:
        """FLOPs of a step that runs these batches."""
        return self.penalty + sum(self.passes[_lengths(batch)].of(len(batch)) for batch in batches)


def count_step_cost(
    network: PreTrainedModel,
    examples: Examples,
    micro_batch_size: int,
    precision: torch.dtype,
    ranks: RankSchedule | None,
) -> StepCost:
    """Count the cost of steps by passes over one and over two examples of each length, and clear the gradients.

    Args:
        network: the model, with its trained parameters trainable.
        examples: the train split.
        micro_batch_size: most examples of one pass; with 1, passes over two examples are skipped.
        precision: dtype of the passes.
        ranks: AdaLoRA's rank allocation, for its penalty; None for other methods.
    """

    def cost(batch: Batch, n_examples: int) -> int:
        some = batch.take(np.zeros(n_examples, dtype=np.int64))
        return _count(network, lambda: torch.autograd.backward(answer_loss(network, some, precision)))

    passes = {}
    for batch in examples.batches:
        first = cost(batch, 1)
        passes[_lengths(batch)] = PassCost(first, cost(batch, 2) - first if micro_batch_size > 1 else 0)
    penalty = _count(network, lambda: torch.autograd.backward(ranks.penalty())) if ranks else 0
    return StepCost(passes, penalty)


class ProductCounter(TorchDispatchMode):
    """Adds up the FLOPs of the operations inside it, in half the time of torch's ``FlopCounterMode``.

    ``FlopCounterMode`` also keeps sums for each module, which doubles the time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and add its cost."""
        result = func(*args, **(kwargs or {}))
        if formula := FORMULAS.get(func.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


class PassCounter:
    """Adds up the FLOPs of passes that are not known in advance, without watching most of them.

    Watching a pass doubles its time. So passes of a kind are watched only until two numbers of sequences were seen.
    From these the cost of all others follows, because each sequence adds the same amount.
    """

    def __init__(self) -> None:
        self.flops = 0
        self._counted: dict[Hashable, dict[int, int]] = {}

    @contextmanager
    def passes(self, kind: Hashable, n_sequences: int) -> Iterator[None]:
        """Count the passes inside.

        Args:
            kind: everything that the cost depends on beside the number of sequences.
            n_sequences: number of sequences.
        """
        counted = self._counted.setdefault(kind, {})
        if n_sequences in counted or len(counted) == 2:
            yield
        else:
            with ProductCounter() as counter:
                yield
            counted[n_sequences] = counter.flops
        (n, flops), *others = counted.items()
        for further, more in others:
            flops += (n_sequences - n) * ((more - flops) // (further - n))
        self.flops += flops


def _count(network: nn.Module, run: Callable[[], None]) -> int:
    with sdpa_kernel(SDPBackend.MATH), ProductCounter() as counter:
        run()
    network.zero_grad(set_to_none=True)
    return int(counter.flops)


def _lengths(batch: Batch) -> tuple[int, int]:
    return batch.tokens.shape[1], batch.answers.shape[1]
