"""Accuracy of a model on a split, and the table of accuracies over checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
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
        n: number of examples.
        correct: number of examples in which every answer token is the model's greedy choice.
        answer_loss: mean cross entropy per answer token, in nats.
    """

    n: int
    correct: int
    answer_loss: float


@torch.inference_mode()
def evaluate(model: PreTrainedModel, examples: Examples) -> Score:
    """Score a model by its greedy answers, in the dtype of its weights.

    Every answer token is predicted after the true tokens before it. The example counts as correct if each prediction is
    right. Exactly then the model would also write this answer by itself, because its first wrong token would be the
    first wrong prediction. So one pass replaces generation token by token.
    """
    was_training = model.training
    model.train(False)
    correct, loss, tokens = 0, 0.0, 0
    for batch in examples.batched(TOKENS_PER_BATCH):
        logits = answer_logits(model, batch)
        correct += int((logits.argmax(dim=-1) == batch.answers).all(dim=-1).sum())
        loss += float(functional.cross_entropy(logits.flatten(0, 1), batch.answers.flatten(), reduction="sum"))
        tokens += batch.answers.numel()
    model.train(was_training)
    return Score(len(examples), correct, loss / tokens)


def accuracy_table(
    scores: Sequence[tuple[str, int, Score]], split: str, trainable_parameters: int, total_parameters: int
) -> pd.DataFrame:
    """The ``accuracy`` table: one row per checkpoint, with the 95 % Wilson interval.

    Args:
        scores: checkpoint, step and score, in order.
        split: the scored split.
        trainable_parameters: number of parameters that the method trains.
        total_parameters: number of parameters of the model in training, with all that the method adds.
    """
    rows = []
    for checkpoint, step, score in scores:
        lower, upper = wilson_interval(score.correct, score.n)
        rows.append(
            {
                "checkpoint": checkpoint,
                "step": step,
                "split": split,
                "n": score.n,
                "accuracy": score.correct / score.n,
                "lower": lower,
                "upper": upper,
                "answer_loss": score.answer_loss,
                "trainable_parameters": trainable_parameters,
                "trainable_share": trainable_share(trainable_parameters, total_parameters),
            }
        )
    return pd.DataFrame(rows)
