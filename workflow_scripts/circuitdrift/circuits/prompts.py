"""Prompt pairs in batches: of one length, never padded, and without the tokens that a pair has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class PairBatch:
    """Prompt pairs of one length.

    Attributes:
        indices: where the pairs stand among all examples; even numbers first, then odd ones.
        n_even: how many of them are even.
        clean: tokens of the clean prompts.
        corrupted: tokens of the corrupted prompts.
        n_shared: how many leading tokens clean and corrupted prompt have in common in every pair of the batch,
            less than all: at the last position something is always left to run.
    """

    indices: tuple[int, ...]
    n_even: int
    clean: Int[Tensor, "batch position"]
    corrupted: Int[Tensor, "batch position"]
    n_shared: int


def pair_batches(
    clean: Sequence[Sequence[int]], corrupted: Sequence[Sequence[int]], batch_size: int, device: torch.device
) -> list[PairBatch]:
    """Batch prompt pairs by length, those that first differ at nearby positions together.

    Raises:
        ValueError: there are no pairs, or the prompts of a pair are empty or differ in length.
    """
    if not clean or len(clean) != len(corrupted):
        raise ValueError(f"{len(clean)} clean and {len(corrupted)} corrupted prompts; give one of each per example")
    for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)):
        if len(a) != len(b) or not len(a):
            raise ValueError(
                f"example {i}: clean prompt of {len(a)} tokens, corrupted one of {len(b)}; "
                "they must have the same number, at least one"
            )
    shared = [_shared_length(a, b) for a, b in zip(clean, corrupted, strict=True)]
    order = sorted(range(len(clean)), key=lambda i: (len(clean[i]), shared[i], i))
    batches = []
    for _, same_length in groupby(order, key=lambda i: len(clean[i])):
        members = list(same_length)
        for start in range(0, len(members), batch_size):
            indices = sorted(members[start : start + batch_size], key=lambda i: (i % 2, i))
            batches.append(
                PairBatch(
                    indices=tuple(indices),
                    n_even=sum(i % 2 == 0 for i in indices),
                    clean=torch.tensor([list(clean[i]) for i in indices], device=device),
                    corrupted=torch.tensor([list(corrupted[i]) for i in indices], device=device),
                    n_shared=min(shared[i] for i in indices),
                )
            )
    return batches


def _shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning, at most one less than the whole."""
    differing = (i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    return min(next(differing, len(a)), len(a) - 1)
