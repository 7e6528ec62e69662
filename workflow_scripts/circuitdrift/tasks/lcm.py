"""Least common multiples with one worked example: ``LCM(20, 160) = 160, LCM(8, 64) =`` (docs/method.md#tasks).

The corruption replaces the queried pair. No pair is queried in two splits, in either order or after another worked
example, although the whole prompts would differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Literal

from pydantic import Field

from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Query, Streams, shuffled
from circuitdrift.tasks.task import Task
from circuitdrift.tasks.wording import Wording

Pair = tuple[int, int]
INSTRUCTION = "Calculate the least common multiple (LCM) of two numbers."
WORDING = Wording(INSTRUCTION, "Given two numbers, provide the least common multiple (LCM).")
KINDS = ("multiple", "coprime", "common factor")
FEWEST_RESULTS = 3
"""A prompt holds two different results, and its corruption a third."""


class LcmTask(Task):
    """Least common multiples after one worked example; the corruption replaces the queried pair."""

    wording = WORDING
    number_key = "max_operand"
    family: Literal["lcm"]
    max_operand: int = Field(200, ge=4, description="largest operand")

    def most_examples(self) -> int:
        """The pairs of a number and its multiple in both orders; of the other two kinds there may be as many."""
        multiples = sum(self.max_operand // number - 1 for number in range(2, self.max_operand // 2 + 1))
        return len(KINDS) * 2 * multiples

    def candidates(self, random: Random, encoding: Encoding) -> Streams:
        """Pairs of different numbers 2..max_operand, the three kinds equally often.

        Every pair is queried in one order before any is queried in the other. Worked examples come from the same
        pairs, so only pairs whose result ``encoding`` accepts as an answer are used.
        """
        pairs: dict[str, list[Pair]] = {kind: [] for kind in KINDS}
        for second in range(3, self.max_operand + 1):
            for first in range(2, second):
                if encoding.accepts(f" {math.lcm(first, second)}"):
                    pairs[kind_of(first, second)].append((first, second))
        if len({math.lcm(*pair) for kind in KINDS for pair in pairs[kind]}) < FEWEST_RESULTS:
            return dict.fromkeys(KINDS, ())
        return {kind: _stream(shuffled(pairs[kind], random), self.seed, pairs) for kind in KINDS}


def kind_of(first: int, second: int) -> str:
    """Whether one number is a multiple of the other, they are coprime, or neither."""
    divisor = math.gcd(first, second)
    if divisor == min(first, second):
        return "multiple"
    return "coprime" if divisor == 1 else "common factor"


def query(example: Pair, queried: Pair) -> Query:
    """The prompt that works out one pair and asks for another."""
    return Query(
        f"{INSTRUCTION} LCM({example[0]}, {example[1]}) = {math.lcm(*example)}, LCM({queried[0]}, {queried[1]}) =",
        f" {math.lcm(*queried)}",
    )


def candidate(queried: Pair, seed: int, pairs: Mapping[str, Sequence[Pair]]) -> Candidate:
    """A queried pair after a worked example of random kind and another result, which the pair and seed determine."""
    own = Random(f"{seed} {queried}")
    example = _with_another_result(queried, pairs, own)

    def corruptions(random: Random) -> Iterator[Query]:
        while True:
            other = _with_another_result(queried, pairs, random)
            if math.lcm(*other) != math.lcm(*example):
                yield query(example, other)

    return Candidate(query(example, queried), corruptions, group=tuple(sorted(queried)))


def _stream(order: Sequence[Pair], seed: int, pairs: Mapping[str, Sequence[Pair]]) -> Iterator[Candidate]:
    for reverse in (False, True):
        for first, second in order:
            swap = (Random(f"{seed} order {first} {second}").random() < 0.5) != reverse
            yield candidate((second, first) if swap else (first, second), seed, pairs)


def _with_another_result(queried: Pair, pairs: Mapping[str, Sequence[Pair]], random: Random) -> Pair:
    """A pair of random kind in random order, with another least common multiple."""
    kinds = [kind for kind in KINDS if pairs[kind]]
    while True:
        first, second = random.sample(random.choice(pairs[random.choice(kinds)]), 2)
        if math.lcm(first, second) != math.lcm(*queried):
            return first, second
