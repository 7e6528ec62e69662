"""Objectives of attribution: how far a run's output is from what it should be, summed over the answer's positions.

Each is a loss, so that a score, the change of the objective when an edge is corrupted, is positive for an edge that
supports the model's behaviour:

====================  ==========================================================================================
kl                    KL(clean model || run) in nats, summed over the vocabulary (PAPER section 4.1); no label
logit_difference      logit of the corrupted answer's token less that of the answer's
answer_loss           - log p(answer's token) in nats
====================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdrift.circuits.prompts import PairBatch
from circuitdrift.decoder.logits import kl_divergence, log_probabilities

ObjectiveName = Literal["kl", "logit_difference", "answer_loss"]


@dataclass(frozen=True)
class Objective:
    """An objective and what it compares a batch's runs with.

    Attributes:
        name: one of the table above.
        clean_logits: of the clean run, at the positions that predict the answer.
        batch: the prompts, for their answers.
    """

    name: ObjectiveName
    clean_logits: Float[Tensor, "batch answer vocabulary"]
    batch: PairBatch

    def __call__(self, logits: Float[Tensor, "run batch answer vocabulary"]) -> Float[Tensor, "run batch"]:
        """The objective of each example in each of several runs, in float32 or the logits' wider dtype."""
        return _LOSSES[self.name](self, logits).sum(dim=-1)

    @property
    def is_least_at_clean(self) -> bool:
        """Whether the clean run is the objective's minimum, where its gradient is exactly zero."""
        return self.name == "kl"


def logit_difference(
    logits: Float[Tensor, "*rows vocabulary"], tokens: Int[Tensor, "*rows"], others: Int[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """Logit of one token less that of another, in float32 or the logits' wider dtype."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return _of_tokens(logits, tokens).to(dtype) - _of_tokens(logits, others).to(dtype)


def _of_tokens(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(-1, tokens.expand(values.shape[:-1])[..., None])[..., 0]


def _kl(objective: Objective, logits: Tensor) -> Tensor:
    return kl_divergence(log_probabilities(objective.clean_logits), log_probabilities(logits))


def _logit_difference(objective: Objective, logits: Tensor) -> Tensor:
    return -logit_difference(logits, objective.batch.answers, objective.batch.corrupted_answers)


def _answer_loss(objective: Objective, logits: Tensor) -> Tensor:
    return -_of_tokens(log_probabilities(logits), objective.batch.answers)


_LOSSES: dict[ObjectiveName, Callable[[Objective, Tensor], Tensor]] = {
    "kl": _kl,
    "logit_difference": _logit_difference,
    "answer_loss": _answer_loss,
}
