"""Sham fine-tuning: the train prompts with one another's answers (docs/method.md#controls).

Prompts, the distribution of answers, steps and learning rate are those of the true fine-tuning. What is missing is the
relation of prompts to answers, so a sham run shows what so many steps do to a circuit without a task to learn.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int

SHAM = 1_000_003
"""Stands beside a run's seed in the seed of the permutation. The order of data has the number of an epoch there, and no
run has so many."""


def permute_answers(examples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same prompts with their answers permuted at random; as few as possible keep an equal answer.

    No prompt does unless more than half of all examples share one answer. Answers may have different numbers of tokens.

    Args:
        examples: table of schema "examples"; the columns ``answer`` and ``answer_ids`` are permuted together.
        seed: seed of the permutation.
    """
    kinds = {answer: number for number, answer in enumerate(dict.fromkeys(map(tuple, examples["answer_ids"])))}
    own = np.array([kinds[tuple(answer)] for answer in examples["answer_ids"]])
    taken = _deranged(own, np.random.default_rng([seed, SHAM]))
    answers = examples[["answer", "answer_ids"]].iloc[taken].set_index(examples.index)
    return examples.assign(answer=answers["answer"], answer_ids=answers["answer_ids"])


def _deranged(own: Int[np.ndarray, " example"], draw: np.random.Generator) -> Int[np.ndarray, " example"]:
    """For each example, whose answer it gets: a random permutation, in which equal answers are then swapped away.

    An example i that got an answer equal to its own swaps with a random j such that neither is left with its own.
    There is no such j only if each example's own or new answer is that of i. Then this answer makes up more than half
    of the examples, and no permutation leaves fewer of them with it.
    """
    taken = draw.permutation(len(own))
    for i in draw.permutation(np.flatnonzero(own[taken] == own)):
        if own[taken[i]] != own[i]:
            continue  # an earlier swap has changed it
        partners = np.flatnonzero((own != own[i]) & (own[taken] != own[i]))
        if len(partners):
            j = draw.choice(partners)
            taken[i], taken[j] = taken[j], taken[i]
    return taken
