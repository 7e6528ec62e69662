"""Capitals after one worked example: ``If Abkhazia corresponds to Sukhumi, then Moldova corresponds to``.

The corruption asks for another country (docs/method.md#tasks). Countries and capitals are those of
:mod:`circuitdrift.tasks.capitals`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal

from pydantic import Field

from circuitdrift.tasks.capitals import CAPITALS
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Query, Streams, shuffled
from circuitdrift.tasks.task import Task

KIND = "country"
SHARE_OF_WORKED_EXAMPLES = 0.2
"""With ``held_out: countries``, the share of all countries that are worked examples in every split."""


class CapitalCountryTask(Task):
    """The capital of a country, after another country with its capital; the corruption asks for a third country."""

    family: Literal["capital_country"]
    held_out: Literal["pairs", "countries"] = Field(
        "pairs",
        description=(
            "pairs: no two splits have the same two countries; countries: no two splits ask for the same country, and "
            "the worked examples are countries that no split asks for"
        ),
    )

    def most_examples(self) -> int:
        """Each country after each other one, or after each that is a worked example."""
        worked = round(SHARE_OF_WORKED_EXAMPLES * len(CAPITALS))
        return (len(CAPITALS) - 1) * len(CAPITALS) if self.held_out == "pairs" else worked * (len(CAPITALS) - worked)

    def candidates(self, random: Random, encoding: Encoding) -> Streams:
        """Pairs of countries whose capitals ``encoding`` accepts as answers."""
        countries = shuffled((c for c, capital in CAPITALS.items() if encoding.accepts(f" {capital}")), random)
        n_worked = round(SHARE_OF_WORKED_EXAMPLES * len(countries)) if self.held_out == "countries" else 0
        worked, asked = (countries[:n_worked], countries[n_worked:]) if n_worked else (countries, countries)
        pairs = shuffled(((one, other) for one in worked for other in asked if one != other), random)
        return {KIND: _stream(pairs, asked, self.held_out)}


def query(worked: str, asked: str) -> Query:
    """The prompt that gives one country's capital and asks for another's."""
    return Query(f"If {worked} corresponds to {CAPITALS[worked]}, then {asked} corresponds to", f" {CAPITALS[asked]}")


def candidate(worked: str, asked: str, countries: Sequence[str], held_out: str) -> Candidate:
    """A pair of countries, corrupted by asking for any third one.

    Args:
        worked: the country whose capital is given.
        asked: the country that is asked for.
        countries: the countries that a corruption may ask for.
        held_out: what stays in one split, the two countries in either order or the one that is asked for.
    """

    def corruptions(random: Random) -> Iterator[Query]:
        yield from (query(worked, other) for other in shuffled(countries, random) if other not in (worked, asked))

    group = frozenset((worked, asked)) if held_out == "pairs" else asked
    return Candidate(query(worked, asked), corruptions, group)


def _stream(pairs: Sequence[tuple[str, str]], countries: Sequence[str], held_out: str) -> Iterator[Candidate]:
    for worked, asked in pairs:
        yield candidate(worked, asked, countries, held_out)
