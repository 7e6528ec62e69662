"""Linear functions: ``y=5x+75. Given x=1,2,3,4, y=80,85,90,``; the answer is y(4) (PAPER, tasks).

The list in the prompt is written without spaces, so the answer is too. The corruption replaces the intercept and
recomputes the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from circuitdrift.config.tasks import FunctionTask
from circuitdrift.tasks.examples import Candidate, Query, Streams, shuffled


def query(slope: int, intercept: int) -> Query:
    """The prompt with the values at 1, 2 and 3, and the value at 4; every value is to be one token."""
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


def candidates(task: FunctionTask, random: Random) -> Streams:
    """All slopes and intercepts, in one stream."""
    lines = [(a, b) for a in range(1, task.max_slope + 1) for b in range(1, task.max_intercept + 1)]
    return {"function": (candidate(a, b, task.max_intercept) for a, b in shuffled(lines, random))}
