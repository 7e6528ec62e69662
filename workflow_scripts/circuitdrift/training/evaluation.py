"""Accuracy of a model on a split, and the tables of accuracies and of single answers over checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch.nn import functional
from transformers import PreTrainedModel

from circuitdrift.allocation.ranks import trainable_share
from circuitdrift.intervals import wilson_interval
from circuitdrift.training.examples import Examples, answer_logits

TOKENS_PER_BATCH = 2048


@dataclass(frozen=True)
class Score:
    """A model's result on a split.

    Attributes:
        right: whether every answer token of an example is the model's greedy choice, in the order of the split.
        answer_loss: mean cross entropy per answer token, in nats.
    """

    right: tuple[bool, ...]
    answer_loss: float

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.right)

    @property
    def correct(self) -> int:
        """Number of examples that are right."""
        return sum(self.right)


UNANSWERED = Score((), math.nan)
"""The result on examples without answers."""


@torch.inference_mode()
def evaluate(model: PreTrainedModel, examples: Examples) -> Score:
    """Score a model by its greedy answers, in the dtype of its weights.

    Every answer token is predicted after the true tokens before it. The example counts as correct if each prediction is
    right. Exactly then the model would also write this answer by itself, because its first wrong token would be the
    first wrong prediction. So one pass replaces generation token by token.
    """
    was_training = model.training
    model.train(False)
    right, loss, tokens = np.zeros(len(examples), dtype=bool), 0.0, 0
    for batch in examples.batched(TOKENS_PER_BATCH):
        logits = answer_logits(model, batch)
        right[batch.rows] = (logits.argmax(dim=-1) == batch.answers).all(dim=-1).cpu().numpy()
        loss += float(functional.cross_entropy(logits.flatten(0, 1), batch.answers.flatten(), reduction="sum"))
        tokens += batch.answers.numel()
    model.train(was_training)
    return Score(tuple(right.tolist()), loss / tokens)


def accuracy_table(
    scores: Sequence[tuple[str, int, Score]], split: str, trainable_parameters: int, total_parameters: int
) -> pd.DataFrame:
    """The ``accuracy`` table: one row per checkpoint, with the 95 % Wilson interval; NaN without answers.

    Args:
        scores: checkpoint, step and score, in order.
        split: the scored split.
        trainable_parameters: number of parameters that the method trains.
        total_parameters: number of parameters of the model in training, with all that the method adds.
    """
    rows = []
    for checkpoint, step, score in scores:
        lower, upper = wilson_interval(score.correct, score.n) if score.n else (math.nan, math.nan)
        rows.append(
            {
                "checkpoint": checkpoint,
                "step": step,
                "split": split,
                "n": score.n,
                "accuracy": score.correct / score.n if score.n else math.nan,
                "lower": lower,
                "upper": upper,
                "answer_loss": score.answer_loss,
                "trainable_parameters": trainable_parameters,
                "trainable_share": trainable_share(trainable_parameters, total_parameters),
            }
        )
    return pd.DataFrame(rows)


def predictions_table(
    scores: Sequence[tuple[str, int, Score]], example_ids: Int[np.ndarray, " example"]
) -> pd.DataFrame:
    """The ``predictions`` table: whether each answer is right, one row for each checkpoint and example.

    Args:
        scores: checkpoint, step and score, in order.
        example_ids: of the split that was scored, in its order.
    """
    tables = [
        pd.DataFrame({"checkpoint": checkpoint, "example_id": example_ids, "correct": list(score.right)})
        for checkpoint, _, score in scores
    ]
    return pd.concat(tables, ignore_index=True)
