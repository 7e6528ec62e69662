"""Several processes that train one model, each on its own device: their shares of a step, and sums over them.

Each process holds the whole model. It runs its share of a step's examples and adds up the gradient of that share's part
of the loss. The sum over the processes is the gradient of the whole step, up to rounding. All processes take the same
update from it, so their weights stay equal. Gradients are summed here rather than by torch's
``DistributedDataParallel``, which expects equally many passes from every process and averages them. Here the number of
passes depends on the lengths of the examples, and a process may have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor, distributed, nn

from circuitdrift.training.examples import Batch

CPU = torch.device("cpu")

NUMBERS_PER_SUM = 2**25
"""Most gradient entries that are copied together and summed at once: 128 MB of float32."""


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them.

    Attributes:
        index: number of this process, from 0; process 0 alone writes files.
        count: number of processes. With 1, every sum and share is trivial and no other process is awaited.
        device: device of this process, over which it talks to the others.
        sharded: whether the model is spread over the processes (``circuitdrift.training.sharding``), so that a pass of
            one process needs a pass of every other.
    """

    index: int
    count: int
    device: torch.device = CPU
    sharded: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.index == 0

    def share(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Int[np.ndarray, " own"]]]:
        """This process's examples of a step: every ``count``-th, counted on from batch to batch.

        So the processes' numbers of examples differ by at most one, for each length too.

        Args:
            batches: the batches of the step, the same in every process.

        Yields:
            Each batch, with the positions in it of this process's examples; there may be none.
        """
        before = 0
        for batch in batches:
            yield batch, np.arange((self.index - before) % self.count, len(batch), self.count)
            before += len(batch)

    def most_passes(self, batches: Sequence[Batch], size: int) -> int:
        """The largest number of passes, of at most ``size`` examples each, that any process needs for its share."""
        shares = (replace(self, index=index).share(batches) for index in range(self.count))
        return max(sum(math.ceil(len(own) / size) for _, own in share) for share in shares)

    def sum(self, values: Shaped[Tensor, " number"]) -> Shaped[Tensor, " number"]:
        """The sum over the processes, with the same bits in each."""
        if self.count == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; a gradient that no process has stays absent.

        Gradients of a sharded model are sums already.
        """
        if self.count == 1 or self.sharded:
            return
        there = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int64)
        owners = self.sum(there.to(self.device)).tolist()
        gradients = []
        for parameter, n_owners in zip(parameters, owners, strict=True):
            if n_owners:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        for group in _groups(gradients):
            total = self.sum(torch.cat([gradient.flatten() for gradient in group]))
            for gradient, part in zip(group, total.split([gradient.numel() for gradient in group]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def value_of_first(self, value: int) -> int:
        """The value of process 0, in every process."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], device=self.device)
        distributed.broadcast(shared, src=0)
        return int(shared.item())

    def seed_step(self, seed: int, step: int) -> None:
        """Seed each process's own random numbers (for dropout) from seed, step and index.

        So a continued run needs no saved state of them. A single process keeps torch's running state.
        """
        if self.count > 1:
            torch.manual_seed(int(np.random.SeedSequence([seed, step, self.index]).generate_state(1)[0]))


ALONE = Processes(0, 1)


def _groups(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbouring gradients, up to ``NUMBERS_PER_SUM`` entries together, or a single larger one."""
    group: list[Tensor] = []
    for gradient in gradients:
        if group and sum(other.numel() for other in group) + gradient.numel() > NUMBERS_PER_SUM:
            yield group
            group = []
        group.append(gradient)
    if group:
        yield group
