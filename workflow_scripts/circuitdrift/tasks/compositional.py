"""Two steps in one: ``(61 - 45) * 45 =``, and the two sub-tasks that its items decompose into (docs/method.md#tasks).

The corruption changes the last number only. The first inner operand is the larger one, as in Add/Sub, so that the
sub-task's corruption (the operator flipped) never has a negative result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from pydantic import Field

from circuitdrift.tasks import add_sub, mul_div
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Query, Streams, rotated, shuffled
from circuitdrift.tasks.task import Task

KINDS = (("+", "*"), ("-", "*"), ("+", "/"), ("-", "/"))
"""In this order, a kind that has used up its share of the inner pairs continues with the pairs of the other inner
operator, so that few inner steps repeat."""


class CompositionalTask(Task):
    """(x +/- y) */ z; the corruption changes z only."""

    wording = add_sub.WORDING
    number_key = "max_operand"
    family: Literal["compositional"]
    max_operand: int = Field(100, ge=4, description="largest operand")

    def most_examples(self) -> int:
        """Every pair of inner operands with each last number, for each pair of operators."""
        pairs = self.max_operand * (self.max_operand + 1) // 2 - 1
        return len(KINDS) * pairs * (self.max_operand - 1)

    def candidates(self, random: Random, encoding: Encoding) -> Streams:
        """The four pairs of operators equally often: first 2..max_operand, second 1..first, inner result at least 2.

        Every inner pair is used once before any pair returns with another last number.
        """
        pairs = shuffled(((a, b) for a in range(2, self.max_operand + 1) for b in range(1, a + 1)), random)
        return {f"{i}{o}": _stream(pairs, kind, i, o, self) for kind, (i, o) in enumerate(KINDS)}


@dataclass(frozen=True)
class Steps:
    """``(first inner second) outer last``."""

    first: int
    inner: str
    second: int
    outer: str
    last: int

    @property
    def middle(self) -> int:
        """The result of the inner step."""
        return add_sub.result(self.first, self.inner, self.second)

    def query(self) -> Query:
        """The prompt of both steps, and the final answer."""
        answer = self.middle * self.last if self.outer == "*" else self.middle // self.last
        text = f"({self.first} {self.inner} {self.second}) {self.outer} {self.last} ="
        return Query(f"{add_sub.INSTRUCTION} {text}", f" {answer}")

    def add_sub(self) -> Candidate:
        """The inner step as an example of its own."""
        return add_sub.candidate(self.first, self.inner, self.second)

    def mul_div(self) -> Candidate:
        """The outer step as an example of its own."""
        return (mul_div.product if self.outer == "*" else mul_div.quotient)(self.middle, self.last)


def read(prompt: str) -> Steps:
    """The steps of a prompt that this module wrote.

    Raises:
        ValueError: the prompt has another form.
    """
    found = re.search(r"\((\d+) ([+-]) (\d+)\) ([*/]) (\d+) =$", prompt)
    if found is None:
        raise ValueError(f"not a compositional prompt: {prompt!r}")
    first, inner, second, outer, last = found.groups()
    return Steps(int(first), inner, int(second), outer, int(last))


def last_numbers(middle: int, outer: str, largest: int) -> list[int]:
    """Factors (2..largest) or divisors (from 2, with a whole quotient of at least 2) that may follow ``middle``."""
    if outer == "*":
        return list(range(2, largest + 1))
    return [divisor for divisor in range(2, middle // 2 + 1) if middle % divisor == 0]


def candidate(steps: Steps, largest: int) -> Candidate:
    """One item; items with the same inner numbers stay in one split, so inner steps are held out too."""

    def corruptions(random: Random) -> Iterator[Query]:
        for last in shuffled(last_numbers(steps.middle, steps.outer, largest), random):
            if last != steps.last:
                yield Steps(steps.first, steps.inner, steps.second, steps.outer, last).query()

    return Candidate(steps.query(), corruptions, group=(steps.first, steps.second))


def _stream(
    pairs: Sequence[tuple[int, int]], kind: int, inner: str, outer: str, task: CompositionalTask
) -> Iterator[Candidate]:
    largest = task.max_operand
    for turn in range(max(largest, 2)):
        for first, second in rotated(pairs, kind, len(KINDS)):
            middle = add_sub.result(first, inner, second)
            choices = last_numbers(middle, outer, largest) if middle >= 2 else []
            if turn < len(choices):
                order = shuffled(choices, Random(f"{task.seed} {first} {inner} {second} {outer}"))
                yield candidate(Steps(first, inner, second, outer, order[turn]), largest)
