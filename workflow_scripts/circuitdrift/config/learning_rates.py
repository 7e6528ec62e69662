"""Section ``learning_rate_search``: each method's learning rate, tuned on prompts held out from the train split."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from circuitdrift.section import Section


class LearningRateSearch(Section):
    """One search for each model, task and method, with equally many trials per method; off without ``rates``.

    A trial trains on the train split without its held-out part and is judged on that part. It reads no test prompts
    and uses no seed of the study.
    """

    rates: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (), description="factors of each method's own learning rate, one trial each; empty: no search"
    )
    seed: int = Field(1000, ge=0, description="seed of the trials and of the held-out prompts; not a seed of the study")
    validation_share: float = Field(0.2, gt=0, lt=1, description="held-out share of the train prompts")

    @model_validator(mode="after")
    def _trials_differ(self) -> LearningRateSearch:
        if len(set(self.rates)) != len(self.rates):
            raise ValueError(f"rates: {list(self.rates)} names a factor twice; list each once")
        if len(self.rates) == 1:
            raise ValueError(
                f"rates: {list(self.rates)} leaves no choice; name two factors or more, or none (no search)"
            )
        return self
