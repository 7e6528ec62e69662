"""The keys that the config sections of all task families share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from circuitdrift.section import Name, Section
from circuitdrift.tasks.wording import Wording

FEWEST_CIRCUIT_PROMPTS = 4
"""Reliability compares circuits of halves of the prompts with each other, so each half needs two folds."""


class Task(Section):
    """Base of every task: how many examples each split gets, the seed of the generator, and who is trained on it.

    Attributes:
        wording: the instruction of the family's prompts, and a second one of the same meaning; None without one.
        scarce_kinds: the kinds of which too few exist to be as frequent as the others.
        number_key: the key with the largest number in the prompts; None without one.
        largest_answer_share: no answer makes up more than this share of the task, so that always giving one answer
            earns little; a family of two answers has no other choice than half.
    """

    wording: ClassVar[Wording | None] = None
    scarce_kinds: ClassVar[tuple[str, ...]] = ()
    number_key: ClassVar[str | None] = None
    largest_answer_share: ClassVar[float] = 0.04

    train: int = Field(4000, ge=1, description="examples to fine-tune on")
    circuit: int = Field(200, ge=FEWEST_CIRCUIT_PROMPTS, description="examples to extract circuits from")
    test: int = Field(500, ge=1, description="examples to measure accuracy on")
    seed: int = Field(0, description="of the drawing and splitting of the prompts")
    methods: tuple[Name, ...] | Literal["all"] = Field(
        "all", description="methods that are trained on the task, and each phase_1 that they need"
    )
    answer_tokens: Literal["single", "any"] = Field(
        "single",
        description="single: answers of one token, as in the paper; any: answers of one or several tokens",
    )

    @property
    def asked(self) -> int:
        """Number of examples in all splits together, as the config asks for them."""
        return self.train + self.circuit + self.test

    def most_examples(self) -> int | None:
        """A number that the different prompts of the task's range cannot exceed; None where none is known."""
        return None
