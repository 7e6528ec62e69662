"""What a difference in faithfulness says, by its interval and a margin (docs/method.md#functional-drift). No torch.

A difference whose interval covers zero is not thereby zero. So two circuits count as equally faithful only if the whole
interval lies within a margin, and as differently faithful only if it lies outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

MARGIN = 0.05
"""A smaller difference in faithfulness, which is 1 for the whole model, counts as none."""

Verdict = Literal["equal", "different", "unresolved"]


@dataclass(frozen=True)
class Difference:
    """A mean difference in faithfulness, and the two parts of its error.

    Attributes:
        value: mean over seeds.
        half_width: of its 95 % interval.
        half_width_of_prompts: the part of it that comes from the sample of prompts; the parts add up in squares.
        prompts: number of prompts.
    """

    value: float
    half_width: float
    half_width_of_prompts: float
    prompts: int

    @property
    def verdict(self) -> Verdict:
        """Whether the interval lies within the margin, outside it, or across."""
        distance = abs(self.value)
        if distance + self.half_width <= MARGIN:
            return "equal"
        return "different" if distance - self.half_width > MARGIN else "unresolved"

    @property
    def prompts_needed(self) -> float:
        """With how many prompts this difference would be resolved if it is the true one.

        The part of the error that comes from prompts falls with the root of their number, the other does not. Infinite
        if the other part alone reaches across the margin.
        """
        room = (MARGIN - abs(self.value)) ** 2 - (self.half_width**2 - self.half_width_of_prompts**2)
        return self.prompts * self.half_width_of_prompts**2 / room if room > 0 else math.inf


def about(prompts: float) -> str:
    """A number of prompts, rounded up to two digits that count."""
    unit = 10 ** max(0, math.floor(math.log10(prompts)) - 1)
    return f"{math.ceil(prompts / unit) * unit:,}"
