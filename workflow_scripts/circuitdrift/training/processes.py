"""Several processes that train one model, each on its own device: what each of them takes of a step, and the sums.

Each process holds the whole model. Of a step's examples it runs its share and adds up the gradient of that share's part
of the loss; the sum of these over the processes is the gradient of the whole step, up to rounding, however many there
are. All take the same update from it, so their weights stay the same. Gradients are summed here rather than by torch's
``DistributedDataParallel``, which expects as many passes of every process and takes the mean of them: a step's passes
follow from the lengths of its examples, and a process may have none.
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
"""Most numbers of gradients that are copied together to be summed at once: 128 MB of float32."""


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them.

    Attributes:
        rank: this process, from 0; the first one alone writes files.
        count: how many there are. With 1, nothing here does anything, and no others are waited for.
        device: this process's own, over which it talks to the others.
        sharded: whether the model is spread over them (``circuitdrift.training.sharding``), so that a pass of one needs
            a pass of each of the others.
    """

    rank: int
    count: int
    device: torch.device = CPU
    sharded: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and messages."""
        return self.rank == 0

    def share(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Int[np.ndarray, " own"]]]:
        """This process's examples of a step: every ``count``-th, counted on from batch to batch.

        So all processes have as many examples of each length, but for one.

        Args:
            batches: the batches of the step, which are the same in every process.

        Yields:
            Each batch, with the places in it of the examples that are this process's, of which there may be none.
        """
        before = 0
        for batch in batches:
            yield batch, np.arange((self.rank - before) % self.count, len(batch), self.count)
            before += len(batch)

    def most_passes(self, batches: Sequence[Batch], size: int) -> int:
        """The most passes, of at most ``size`` examples each, that any of the processes needs for its share."""
        shares = (replace(self, rank=rank).share(batches) for rank in range(self.count))
        return max(sum(math.ceil(len(places) / size) for _, places in share) for share in shares)

    def sum(self, values: Shaped[Tensor, " number"]) -> Shaped[Tensor, " number"]:
        """The sum over the processes; the same bits in each of them."""
        if self.count == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; one that no process has stays absent.

        Those of a sharded model are sums already.
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
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], device=self.device)
        distributed.broadcast(shared, src=0)
        return int(shared.item())

    def seed_step(self, seed: int, step: int) -> None:
        """Give each process random numbers of its own (for dropout), which depend on seed, step and rank alone.

        They need no saving, then, for a run that is continued. A process that is alone keeps torch's running state.
        """
        if self.count > 1:
            torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1)[0]))


ALONE = Processes(0, 1)


def _groups(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbouring gradients, as many as make up ``NUMBERS_PER_SUM`` numbers, or one that is larger."""
    group: list[Tensor] = []
    for gradient in gradients:
        if group and sum(other.numel() for other in group) + gradient.numel() > NUMBERS_PER_SUM:
            yield group
            group = []
        group.append(gradient)
    if group:
        yield group
