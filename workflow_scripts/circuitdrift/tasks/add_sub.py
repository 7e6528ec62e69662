"""Addition and subtraction: ``72 - 46 =``; the corruption flips the operator (docs/method.md#tasks)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal

from pydantic import Field

from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Query, Streams, rotated, shuffled
from circuitdrift.tasks.task import Task
from circuitdrift.tasks.wording import Wording

INSTRUCTION = "Calculate the result of the following arithmetic expression and provide only the final answer:"
WORDING = Wording(INSTRUCTION, "Given the following arithmetic expression, provide only the final result:")
FLIPPED = {"+": "-", "-": "+"}


class AddSubTask(Task):
    """a + b and a - b with a >= b, operands 1..max_operand; the corruption flips the operator."""

    wording = WORDING
    number_key = "max_operand"
    family: Literal["add_sub"]
    max_operand: int = Field(100, ge=2, description="largest operand")

    def most_examples(self) -> int:
        """Both operators for each pair of operands."""
        return self.max_operand * (self.max_operand + 1)

    def candidates(self, random: Random, encoding: Encoding) -> Streams:
        """Operand pairs with ``max_operand >= first >= second >= 1``, for both operators equally often."""
        pairs = shuffled(
            ((first, second) for first in range(1, self.max_operand + 1) for second in range(1, first + 1)), random
        )
        return {operator: _stream(pairs, operator, kind) for kind, operator in enumerate(FLIPPED)}


def result(first: int, operator: str, second: int) -> int:
    """The sum or the difference."""
    return first + second if operator == "+" else first - second


def query(first: int, operator: str, second: int) -> Query:
    """The prompt and answer of one sum or difference."""
    return Query(f"{INSTRUCTION} {first} {operator} {second} =", f" {result(first, operator, second)}")


def candidate(first: int, operator: str, second: int) -> Candidate:
    """One sum or difference; the same numbers with the other operator stay in the same split."""

    def corruptions(random: Random) -> Iterator[Query]:
        yield query(first, FLIPPED[operator], second)

    return Candidate(query(first, operator, second), corruptions, group=(first, second))


def _stream(pairs: Sequence[tuple[int, int]], operator: str, kind: int) -> Iterator[Candidate]:
    for first, second in rotated(pairs, kind, len(FLIPPED)):
        yield candidate(first, operator, second)
