"""Prompt pairs in batches of one length, never padded, with the number of tokens that all pairs share.

The clean answer, less its last token, is appended to the clean and to the corrupted prompt alike, so that every answer
token is predicted at one of the last positions (docs/method.md#answers-of-several-tokens). If answers have one token,
nothing is appended, and the last position alone predicts. So it is without answers, where only the outputs of passes
are compared with one another (docs/method.md#no-answers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from circuitdrift.errors import CircuitDriftError

TokenIds = Sequence[Sequence[int]]


@dataclass(frozen=True)
class PromptPairs:
    """Examples as token ids: clean and corrupted prompts, and the answer to each.

    ``corrupted_answers`` may hold empty answers, which stand for unknown ones. ``answers`` are either all empty, as
    those of a task without answers, or have at least one token each.
    """

    clean: TokenIds
    corrupted: TokenIds
    answers: TokenIds
    corrupted_answers: TokenIds

    def __post_init__(self) -> None:
        """Check that a model can run the examples.

        Raises:
            CircuitDriftError: there are no examples, prompts of a pair are empty or differ in length, or some answers
                are empty and others are not.
        """
        counts = {len(self.clean), len(self.corrupted), len(self.answers), len(self.corrupted_answers)}
        if counts == {0} or len(counts) != 1:
            raise CircuitDriftError(
                f"{len(self.clean)} clean and {len(self.corrupted)} corrupted prompts, {len(self.answers)} answers and "
                f"{len(self.corrupted_answers)} corrupted answers; give one of each per example"
            )
        have_answers = self.have_answers
        for i, (clean, corrupted, answer) in enumerate(zip(self.clean, self.corrupted, self.answers, strict=True)):
            if len(clean) != len(corrupted) or not len(clean):
                raise CircuitDriftError(
                    f"example {i}: the clean prompt has {len(clean)} tokens, the corrupted prompt {len(corrupted)}; "
                    "give both the same number, at least one"
                )
            if have_answers and not len(answer):
                raise CircuitDriftError(
                    f"example {i}: the answer has no tokens, other answers have; give it at least one"
                )

    @property
    def have_answers(self) -> bool:
        """Whether the examples have answers."""
        return any(map(len, self.answers))

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.clean)


def prompt_pairs(examples: pd.DataFrame) -> PromptPairs:
    """Take the token ids out of a table of schema "examples".

    Raises:
        CircuitDriftError: see :class:`PromptPairs`.
    """
    columns = ("clean_ids", "corrupted_ids", "answer_ids", "corrupted_answer_ids")
    return PromptPairs(*([[int(token) for token in ids] for ids in examples[column]] for column in columns))


@dataclass(frozen=True)
class PairBatch:
    """Prompt pairs of one length, with answers of one length.

    Attributes:
        indices: positions of the pairs among all examples, ascending.
        clean: tokens of the clean prompts, and of the answers without their last token.
        corrupted: tokens of the corrupted prompts, and of the clean answers without their last token.
        n_shared: number of leading tokens that clean and corrupted input share in every pair of the batch, at most
            all tokens before the positions that predict the answer.
        n_answer: number of tokens of an answer, and of the last positions that predict it; 1 without answers.
        known_answers: tokens of the answers, each predicted at one of the last positions, and of the corrupted answers,
            as many as of the answers; if a corrupted answer is shorter, the clean answer's last tokens fill it up.
            None without answers.
    """

    indices: tuple[int, ...]
    clean: Int[Tensor, "batch position"]
    corrupted: Int[Tensor, "batch position"]
    n_shared: int
    n_answer: int
    known_answers: tuple[Int[Tensor, "batch answer"], Int[Tensor, "batch answer"]] | None

    @property
    def answers(self) -> Int[Tensor, "batch answer"]:
        """Tokens of the answers.

        Raises:
            CircuitDriftError: the examples have no answers.
        """
        return self._of_known(0)

    @property
    def corrupted_answers(self) -> Int[Tensor, "batch answer"]:
        """Tokens of the corrupted answers.

        Raises:
            CircuitDriftError: the examples have no answers.
        """
        return self._of_known(1)

    def _of_known(self, place: int) -> Int[Tensor, "batch answer"]:
        if self.known_answers is None:
            raise CircuitDriftError(
                "the task has no answers, which accuracies, logit differences and losses are about; compare outputs by "
                "KL divergence, or add a column 'answer' to the task's file"
            )
        return self.known_answers[place]

    def parts(self, size: int) -> list[PairBatch]:
        """The same pairs in batches of at most ``size``, in their order."""
        if size >= len(self.indices):
            return [self]
        rows = [slice(start, start + size) for start in range(0, len(self.indices), size)]
        return [
            replace(
                self,
                indices=self.indices[some],
                clean=self.clean[some],
                corrupted=self.corrupted[some],
                known_answers=self.known_answers and (self.known_answers[0][some], self.known_answers[1][some]),
            )
            for some in rows
        ]


def pair_batches(pairs: PromptPairs, batch_size: int, device: torch.device) -> list[PairBatch]:
    """Batch prompt pairs by length of input and answer; pairs that first differ at nearby positions come together."""
    inputs = [
        ([*clean, *answer[:-1]], [*corrupted, *answer[:-1]])
        for clean, corrupted, answer in zip(pairs.clean, pairs.corrupted, pairs.answers, strict=True)
    ]
    shapes = [(len(clean), max(1, len(answer))) for (clean, _), answer in zip(inputs, pairs.answers, strict=True)]
    shared = [
        _shared_length(clean, corrupted, length - n_answer)
        for (clean, corrupted), (length, n_answer) in zip(inputs, shapes, strict=True)
    ]
    order = sorted(range(len(pairs)), key=lambda i: (shapes[i], shared[i], i))
    batches = []
    have_answers = pairs.have_answers
    for (_, n_answer), same_shape in groupby(order, key=lambda i: shapes[i]):
        members = list(same_shape)
        for start in range(0, len(members), batch_size):
            indices = sorted(members[start : start + batch_size])
            answers = [list(pairs.answers[i]) for i in indices]
            others = [
                [*pairs.corrupted_answers[i], *answer[len(pairs.corrupted_answers[i]) :]][: len(answer)]
                for i, answer in zip(indices, answers, strict=True)
            ]
            batches.append(
                PairBatch(
                    indices=tuple(indices),
                    clean=torch.tensor([inputs[i][0] for i in indices], device=device),
                    corrupted=torch.tensor([inputs[i][1] for i in indices], device=device),
                    n_shared=min(shared[i] for i in indices),
                    n_answer=n_answer,
                    known_answers=(torch.tensor(answers, device=device), torch.tensor(others, device=device))
                    if have_answers
                    else None,
                )
            )
    return batches


def _shared_length(clean: Sequence[int], corrupted: Sequence[int], at_most: int) -> int:
    """Length of the common beginning."""
    differing = (i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b)
    return min(next(differing, len(clean)), at_most)
