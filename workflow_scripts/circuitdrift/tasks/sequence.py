"""Number sequences: ``Derive the following sequence: 152, 157, 162, 167,``; the answer is the fifth term.

The corruption adds 1..100 to the third or fourth term. The answer to a corrupted sequence repeats the step between
the last two terms shown (docs/method.md#tasks). Few geometric sequences have terms that are small enough, so all of
them are taken, and the rest are arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import ClassVar, Literal

from pydantic import Field

from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Query, Streams, shuffled
from circuitdrift.tasks.task import Task
from circuitdrift.tasks.wording import Wording

INSTRUCTION = "Derive the following sequence:"
WORDING = Wording(INSTRUCTION, "There is a sequence of numbers:")
ARITHMETIC_STARTS = range(1, 501)
STEPS = range(1, 101)
GEOMETRIC_STARTS = range(1, 11)
RATIOS = range(2, 11)
SHIFTS = range(1, 101)


class SequenceTask(Task):
    """Arithmetic and geometric sequences, four terms given; the corruption changes the third or fourth term."""

    wording = WORDING
    scarce_kinds: ClassVar[tuple[str, ...]] = ("geometric",)

    number_key = "max_term"
    family: Literal["sequence"]
    max_term: int | None = Field(None, ge=20, description="largest term; null: any term of one token")

    def most_examples(self) -> int:
        """All arithmetic sequences with their last term in range, and at most all geometric ones."""
        largest = self.max_term or ARITHMETIC_STARTS[-1] + 4 * STEPS[-1]
        arithmetic = sum(max(0, min(ARITHMETIC_STARTS[-1], largest - 4 * step)) for step in STEPS)
        return arithmetic + len(GEOMETRIC_STARTS) * len(RATIOS)

    def candidates(self, random: Random, encoding: Encoding) -> Streams:
        """All arithmetic and all geometric sequences of the paper's ranges."""
        sequences = {
            "arithmetic": ([start + step * i for i in range(5)] for start in ARITHMETIC_STARTS for step in STEPS),
            "geometric": ([start * ratio**i for i in range(5)] for start in GEOMETRIC_STARTS for ratio in RATIOS),
        }
        return {kind: _stream(terms, self.max_term, random) for kind, terms in sequences.items()}


def _stream(sequences: Iterable[list[int]], largest: int | None, random: Random) -> Iterator[Candidate]:
    """The sequences whose terms do not exceed ``largest``, in random order."""
    fitting = [terms for terms in sequences if largest is None or terms[4] <= largest]
    return (candidate(terms, largest) for terms in shuffled(fitting, random))


def query(shown: Sequence[int], following: int) -> Query:
    """The prompt that shows four terms, and the term that follows; every term must be one token."""
    parts = tuple(f" {term}" for term in shown)
    return Query(f"{INSTRUCTION}{','.join(parts)},", f" {following}", parts)


def candidate(terms: Sequence[int], largest: int | None) -> Candidate:
    """A sequence of five terms, with its corruptions whose terms do not exceed ``largest``."""

    def corruptions(random: Random) -> Iterator[Query]:
        for position, shift in shuffled(((p, s) for p in (2, 3) for s in SHIFTS), random):
            shown = list(terms[:4])
            shown[position] += shift
            following = 2 * shown[3] - shown[2]
            if following >= 0 and (largest is None or max(*shown, following) <= largest):
                yield query(shown, following)

    return Candidate(query(terms[:4], terms[4]), corruptions, group=tuple(terms))
