"""Linear functions: ``y=5x+75. Given x=1,2,3,4, y=80,85,90,``; the answer is y(4) (docs/method.md#tasks).

The prompt lists the values without spaces, so the answer has no leading space. The corruption replaces the intercept
and recomputes the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Literal

from pydantic import Field

from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Query, Streams, shuffled
from circuitdrift.tasks.task import Task


class FunctionTask(Task):
    """A linear function with three values given; the corruption replaces the intercept."""

    number_key = "max_intercept"
    family: Literal["function"]
    max_slope: int = Field(20, ge=1, description="largest slope")
    max_intercept: int = Field(500, ge=2, description="largest intercept")

    def most_examples(self) -> int:
        """Every slope with every intercept."""
        return self.max_slope * self.max_intercept

    def candidates(self, random: Random, encoding: Encoding) -> Streams:
        """All slopes and intercepts, in one stream."""
        lines = [(a, b) for a in range(1, self.max_slope + 1) for b in range(1, self.max_intercept + 1)]
        return {"function": (candidate(a, b, self.max_intercept) for a, b in shuffled(lines, random))}


def query(slope: int, intercept: int) -> Query:
    """The prompt with the values at 1, 2 and 3, and the value at 4; every value must be one token."""
    *shown, last = (str(slope * x + intercept) for x in (1, 2, 3, 4))
    prompt = f"There is a function y={slope}x+{intercept}. Given x=1,2,3,4, y={','.join(shown)},"
    return Query(prompt, last, parts=tuple(shown))


def candidate(slope: int, intercept: int, max_intercept: int) -> Candidate:
    """One function, corrupted to another intercept up to ``max_intercept``."""

    def corruptions(random: Random) -> Iterator[Query]:
        for other in shuffled(range(1, max_intercept + 1), random):
            if other != intercept:
                yield query(slope, other)

    return Candidate(query(slope, intercept), corruptions, group=(slope, intercept))
