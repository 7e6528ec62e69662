"""The keys that the config sections of all task families share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from circuitdrift.section import Section


class Task(Section):
    """Base of every task: how many examples each split gets, and the seed of the generator.

    ``scarce_kinds`` names the kinds of which too few exist to be as frequent as the others.
    """

    scarce_kinds: ClassVar[tuple[str, ...]] = ()

    train: int = Field(4000, ge=1, description="examples to fine-tune on")
    circuit: int = Field(200, ge=2, description="examples to extract circuits from")
    test: int = Field(500, ge=1, description="examples to measure accuracy on")
    seed: int = 0
    answer_tokens: Literal["single", "any"] = Field(
        "single",
        description="single: answers of one token, as in the paper; any: answers of one or several tokens",
    )
