"""Examples as tensors, grouped by token length so that no batch needs padding.

An example's tokens are its prompt followed by its answer without the answer's last token. So the last positions predict
the answer, as many as the answer has tokens. Tokens with which all examples of a split begin, such as the instruction
of the arithmetic tasks, run once for a whole batch, in one pass with the rest where the model allows it
(:mod:`circuitdrift.decoder.one_pass`): later tokens read their keys and values, and gradients through these add up over
the examples.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from circuitdrift.decoder.logits import cache_of_common_tokens, last_logits
from circuitdrift.decoder.one_pass import logits_in_one_pass, runs_in_one_pass
from circuitdrift.errors import CircuitDriftError


@dataclass(frozen=True)
class Batch:
    """Examples of one prompt length and one answer length.

    Attributes:
        rows: row numbers in the table of examples.
        tokens: the prompt, then the answer without its last token.
        answers: the answer.
        n_shared: number of first tokens that all examples of the split share.
    """

    rows: Int[np.ndarray, " example"]
    tokens: Int[Tensor, "example position"]
    answers: Int[Tensor, "example answer_position"]
    n_shared: int

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Int[np.ndarray, " chosen"]) -> Batch:
        """The examples at some positions of this batch."""
        index = torch.from_numpy(positions).to(self.tokens.device)
        return Batch(self.rows[positions], self.tokens[index], self.answers[index], self.n_shared)


class Examples:
    """A split on a device: one large batch for each combination of prompt length and answer length."""

    def __init__(self, table: pd.DataFrame, device: torch.device) -> None:
        """Put the clean prompts and answers of an ``examples`` table on a device.

        Raises:
            CircuitDriftError: the table is empty, or an example has no answer token.
        """
        if table.empty:
            raise CircuitDriftError("the split has no examples; raise tasks.<name>.train and .test to at least 1")
        self.example_ids: Int[np.ndarray, " example"] = table["example_id"].to_numpy()
        prompts = [list(ids) for ids in table["clean_ids"]]
        answers = [list(ids) for ids in table["answer_ids"]]
        if empty := [int(self.example_ids[row]) for row, answer in enumerate(answers) if not answer]:
            raise CircuitDriftError(
                f"examples {empty[:10]} have no answer token, which training and accuracy need; add a column answer to "
                "the task's file, or set the task's methods to []"
            )
        lengths = [(len(prompt), len(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
        n_shared = _count_shared(prompts)
        self.batches = tuple(
            _batch_of(length, lengths, prompts, answers, n_shared, device) for length in sorted(set(lengths))
        )
        self._batch_of_row = np.empty(len(table), dtype=np.int64)
        self._position_of_row = np.empty(len(table), dtype=np.int64)
        for number, batch in enumerate(self.batches):
            self._batch_of_row[batch.rows] = number
            self._position_of_row[batch.rows] = np.arange(len(batch))

    def __len__(self) -> int:
        return len(self.example_ids)

    def without_shared_tokens(self) -> Examples:
        """The same examples, each with all of its tokens to run: for models that cannot run in two parts."""
        same = copy.copy(self)
        same.batches = tuple(replace(batch, n_shared=0) for batch in self.batches)
        return same

    def select(self, rows: Int[np.ndarray, " chosen"]) -> Iterator[Batch]:
        """The examples of the given rows, one batch for each length among them."""
        numbers = self._batch_of_row[rows]
        for number in np.unique(numbers):
            yield self.batches[number].take(self._position_of_row[rows[numbers == number]])

    def batched(self, tokens_per_batch: int) -> Iterator[Batch]:
        """All examples, in batches of at most ``tokens_per_batch`` tokens but at least one example."""
        for batch in self.batches:
            size = max(1, tokens_per_batch // batch.tokens.shape[1])
            for start in range(0, len(batch), size):
                yield batch.take(np.arange(start, min(start + size, len(batch))))


def _batch_of(
    length: tuple[int, int],
    lengths: Sequence[tuple[int, int]],
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    n_shared: int,
    device: torch.device,
) -> Batch:
    rows = np.array([row for row, found in enumerate(lengths) if found == length], dtype=np.int64)
    return Batch(
        rows=rows,
        tokens=torch.tensor([prompts[row] + answers[row][:-1] for row in rows], dtype=torch.int64, device=device),
        answers=torch.tensor([answers[row] for row in rows], dtype=torch.int64, device=device),
        n_shared=n_shared,
    )


def _count_shared(prompts: Sequence[list[int]]) -> int:
    """Number of first tokens that all prompts share, without the last token of any prompt."""
    first, last = min(prompts), max(prompts)
    most = min(len(prompt) for prompt in prompts) - 1
    return next((position for position in range(most) if first[position] != last[position]), most)


def answer_logits(model: PreTrainedModel, batch: Batch) -> Float[Tensor, "example answer_position vocabulary"]:
    """Logits in float32 at the positions that predict an answer token."""
    return sequence_logits(model, batch.tokens, batch.n_shared, batch.answers.shape[1])


def sequence_logits(
    model: PreTrainedModel, tokens: Int[Tensor, "sequence position"], n_shared: int, n_last: int
) -> Float[Tensor, "sequence last_position vocabulary"]:
    """Logits in float32 at the last positions of sequences; gradients flow through the shared tokens too.

    Args:
        model: the model to run.
        tokens: sequences of one length.
        n_shared: number of first tokens that all sequences share; fewer than the tokens before the last positions.
        n_last: number of last positions.
    """
    if n_shared and runs_in_one_pass(model, tokens.shape[1]):
        return logits_in_one_pass(model, tokens, n_shared, n_last).float()
    cache = cache_of_common_tokens(model, tokens[:1, :n_shared], len(tokens)) if n_shared else None
    return last_logits(model, tokens[:, n_shared:], cache, n_last).float()


def answer_loss(model: PreTrainedModel, batch: Batch, precision: torch.dtype) -> Float[Tensor, ""]:
    """Cross entropy in nats, summed over the batch's answer tokens; the pass runs in ``precision``."""
    with torch.autocast(batch.tokens.device.type, dtype=precision, enabled=precision != torch.float32):
        logits = answer_logits(model, batch)
    return functional.cross_entropy(logits.flatten(0, 1), batch.answers.flatten(), reduction="sum")
