"""Multiplication and division: ``444 / 37 =``; the corruption replaces the first operand (docs/method.md#tasks)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Literal

from pydantic import Field

from circuitdrift.tasks.add_sub import INSTRUCTION, WORDING
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Query, Streams, shuffled
from circuitdrift.tasks.task import Task

FIRST_FACTORS = range(2, 201)
SECOND_FACTORS = range(2, 181)
DIVISORS = range(2, 201)
QUOTIENTS = range(2, 201)


class MulDivTask(Task):
    """a * b and a / b; the corruption replaces the first operand."""

    wording = WORDING
    number_key = "max_result"
    family: Literal["mul_div"]
    max_result: int | None = Field(None, ge=4, description="largest product or dividend; null: as in the paper")

    def most_examples(self) -> int:
        """As many products as quotients, so twice the kind of which fewer exist."""
        largest = self.max_result or FIRST_FACTORS[-1] * DIVISORS[-1]
        products, quotients = (
            sum(max(0, min(first[-1], largest // second) - first[0] + 1) for second in seconds)
            for first, seconds in ((FIRST_FACTORS, SECOND_FACTORS), (QUOTIENTS, DIVISORS))
        )
        return 2 * min(products, quotients)

    def candidates(self, random: Random, encoding: Encoding) -> Streams:
        """Products of factors 2..200 and 2..180, and quotients 2..200 of divisors 2..200, equally often."""
        largest = self.max_result
        factors = [(a, b) for a in FIRST_FACTORS for b in SECOND_FACTORS if largest is None or a * b <= largest]
        divisions = [(q * d, d) for d in DIVISORS for q in QUOTIENTS if largest is None or q * d <= largest]
        return {
            "*": (product(a, b, largest) for a, b in shuffled(factors, random)),
            "/": (quotient(a, b, largest) for a, b in shuffled(divisions, random)),
        }


def query(first: int, operator: str, second: int) -> Query:
    """The prompt and answer of one product or whole-number quotient; the first operand must be one token."""
    answer = first * second if operator == "*" else first // second
    return Query(f"{INSTRUCTION} {first} {operator} {second} =", f" {answer}", parts=(f" {first}",))


def product(first: int, second: int, largest: int | None = None) -> Candidate:
    """``first * second``, corrupted to another first factor whose product does not exceed ``largest``."""

    def corruptions(random: Random) -> Iterator[Query]:
        for other in shuffled(FIRST_FACTORS, random):
            if largest is None or other * second <= largest:
                yield query(other, "*", second)

    return Candidate(query(first, "*", second), corruptions, group=(first, "*", second))


def quotient(dividend: int, divisor: int, largest: int | None = None) -> Candidate:
    """``dividend / divisor``, corrupted to another dividend of at most ``largest``, with a quotient of at least 2."""

    def corruptions(random: Random) -> Iterator[Query]:
        for other in shuffled(QUOTIENTS, random):
            if largest is None or other * divisor <= largest:
                yield query(other * divisor, "/", divisor)

    return Candidate(query(dividend, "/", divisor), corruptions, group=(dividend, "/", divisor))
