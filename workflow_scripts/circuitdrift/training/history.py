"""The results of a run so far, beside its weights: the training log and the scores of its checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from circuitdrift.training.evaluation import Score


@dataclass(frozen=True)
class LogRow:
    """One step of the ``training_log``.

    Attributes:
        step: the step, from 1.
        epoch: passes over the train split, this step included.
        loss: mean loss per answer token in nats, before the step's update; under GRPO the loss of
            ``circuitdrift.training.policy_gradient``, whose value is the weighted mean KL.
        learning_rate: learning rate of this step.
        gradient_norm: norm of the gradient before clipping.
        tokens: tokens run up to this step.
        flops: floating-point operations up to this step (``circuitdrift.training.cost``).
        reward: share of right answers among the sampled ones; None if the method samples none.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    flops: int
    reward: float | None = None


@dataclass
class History:
    """The completed steps and the saved checkpoints, in order.

    Attributes:
        rows: a row for each step.
        scores: a score for each checkpoint, the first for step 0.
    """

    rows: list[LogRow] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The last completed step; 0 before the first."""
        return self.rows[-1].step if self.rows else 0

    @property
    def tokens(self) -> int:
        """Tokens run so far."""
        return self.rows[-1].tokens if self.rows else 0

    @property
    def flops(self) -> int:
        """Floating-point operations so far."""
        return self.rows[-1].flops if self.rows else 0

    def log_table(self) -> pd.DataFrame:
        """The ``training_log`` table.

        Its column ``seconds`` is null: durations vary, and the same study must give the same bytes.
        """
        table = pd.DataFrame([asdict(row) for row in self.rows]).astype({"reward": "float32"})
        return table.assign(seconds=pd.Series([None] * len(table), dtype="float64"))

    def as_json(self) -> dict[str, Any]:
        """JSON values; Python writes a float with enough digits to read the same float again."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> History:
        """The inverse of ``as_json``."""
        scores = [Score(tuple(score["right"]), score["answer_loss"]) for score in values["scores"]]
        return cls([LogRow(**row) for row in values["rows"]], scores)
