"""Comparison of two integers: ``Is 121 > 112? Answer:``; the corruption swaps them (docs/method.md#tasks)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal

from pydantic import Field

from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Query, Streams, rotated, shuffled
from circuitdrift.tasks.task import Task

ANSWERS = {True: " Yes", False: " No"}


class ComparisonTask(Task):
    """Whether a > b, for different integers 1..max_operand; the corruption swaps them."""

    largest_answer_share = 0.5
    number_key = "max_operand"
    family: Literal["comparison"]
    max_operand: int = Field(500, ge=4, description="largest operand")

    def most_examples(self) -> int:
        """Each pair of different numbers in both orders."""
        return self.max_operand * (self.max_operand - 1)

    def candidates(self, random: Random, encoding: Encoding) -> Streams:
        """Pairs of different numbers, the larger first as often as the smaller first."""
        pairs = shuffled(((a, b) for a in range(2, self.max_operand + 1) for b in range(1, a)), random)
        return {"greater": _stream(pairs, 0), "smaller": _stream([(b, a) for a, b in pairs], 1)}


def query(first: int, second: int) -> Query:
    """The prompt and answer of one comparison."""
    return Query(f"Is {first} > {second}? Answer:", ANSWERS[first > second])


def candidate(first: int, second: int) -> Candidate:
    """One comparison; the same numbers in the other order stay in the same split."""

    def corruptions(random: Random) -> Iterator[Query]:
        yield query(second, first)

    return Candidate(query(first, second), corruptions, group=frozenset((first, second)))


def _stream(pairs: Sequence[tuple[int, int]], kind: int) -> Iterator[Candidate]:
    for first, second in rotated(pairs, kind, len(ANSWERS)):
        yield candidate(first, second)
