"""Section ``learning_rate_search``: each method's learning rate, tuned on prompts held out of the train split."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from circuitdrift.section import Section


class LearningRateSearch(Section):
    """One search for each model, task and method, with as many trials for every method; off without ``rates``.

    A trial trains on the train split less its held-out part and is judged by the held-out part. Test prompts are not
    read, and no seed of the study is used.
    """

    rates: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (), description="what to multiply each method's own learning rate by, one trial each; empty: no search"
    )
    seed: int = Field(1000, ge=0, description="of the trials and of the draw of held-out prompts; none of the study's")
    validation_share: float = Field(0.2, gt=0, lt=1, description="share of the train prompts that is held out")

    @model_validator(mode="after")
    def _trials_differ(self) -> LearningRateSearch:
        if len(set(self.rates)) != len(self.rates):
            raise ValueError(f"rates: {list(self.rates)} names a factor twice; list each once")
        if len(self.rates) == 1:
            raise ValueError(
                f"rates: {list(self.rates)} leaves nothing to choose; name two factors or more, or none (no search)"
            )
        return self
