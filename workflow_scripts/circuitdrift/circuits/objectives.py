"""Objectives of attribution: losses of a forward pass, summed over the positions that predict the answer.

A score is the change of the objective when an edge is corrupted. As the objectives are losses, the score of an edge
that supports the model's behaviour is positive (docs/method.md#signs-and-units):

====================  ==========================================================================================
kl                    KL(clean pass || pass) in nats, summed over the vocabulary; needs no label (the paper's)
logit_difference      logit of the corrupted answer's token less logit of the answer's token
answer_loss           - log p(answer's token) in nats
====================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdrift.circuits.prompts import PairBatch
from circuitdrift.config.circuits import ObjectiveName
from circuitdrift.decoder.logits import kl_divergence, log_probabilities


@dataclass(frozen=True)
class Objective:
    """An objective of passes over one batch.

    Attributes:
        name: an objective of the table above.
        clean_logits: logits of the clean pass at the positions that predict the answer.
        batch: the prompts, for their answers.
    """

    name: ObjectiveName
    clean_logits: Float[Tensor, "batch answer vocabulary"]
    batch: PairBatch

    def __call__(self, logits: Float[Tensor, "pass batch answer vocabulary"]) -> Float[Tensor, "pass batch"]:
        """The objective of each example in each of several passes, in float32 or the logits' wider dtype."""
        return _LOSSES[self.name](self, logits).sum(dim=-1)

    @property
    def is_least_at_clean(self) -> bool:
        """Whether the objective has its minimum at the clean pass, so that its gradient is exactly zero there."""
        return self.name == "kl"


def logit_difference(
    logits: Float[Tensor, "*rows vocabulary"], tokens: Int[Tensor, "*rows"], others: Int[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """Logit of one token less logit of another, in float32 or the logits' wider dtype."""
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
