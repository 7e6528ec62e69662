"""From a family's candidates to the examples that the study's tokenizer takes.

A family yields *candidates* in random order, one stream for each kind that must be equally frequent (an operator, a
kind of number pair). :func:`draw` takes the candidates that fit the tokenizer and caps the share of every answer.
Of a *scarce* kind, too few exist for an equal share: all of them are taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TypeVar

from circuitdrift.errors import CircuitDriftError
from circuitdrift.tasks.encoding import Encoding

SMALLEST_TASK = 20
"""A task that asks for more examples than this, and finds fewer, is refused: too few remain to be representative."""

_MOST_CORRUPTIONS_TRIED = 500
_MOST_MISFITS_IN_A_ROW = 20_000
"""A stream ends after so many candidates in a row that do not fit the tokenizer."""


class TaskError(CircuitDriftError):
    """A task that cannot be generated; the message names the task, the problem and the fix."""


@dataclass(frozen=True)
class Query:
    """A prompt and the text that must follow it, verbatim (`` 26`` with its space after ``72 - 46 =``).

    Attributes:
        prompt: the whole prompt.
        answer: the text that follows the prompt.
        parts: texts inside the prompt, verbatim, that the tokenizer must accept as answers too.
    """

    prompt: str
    answer: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A possible example: a clean query and its possible corruptions, of which the first that fits is taken.

    Attributes:
        clean: the clean query.
        corruptions: yields corrupted queries in the order to try them.
        group: candidates of the same group stay in the same split.
    """

    clean: Query
    corruptions: Callable[[Random], Iterable[Query]]
    group: Hashable


@dataclass(frozen=True)
class Example:
    """A clean and a corrupted prompt of equally many tokens, with the answer to each.

    ``kind`` names the stream that it was drawn from, such as an operator: folds hold equal shares of each kind.
    """

    clean: str
    corrupted: str
    answer: str
    corrupted_answer: str
    clean_ids: tuple[int, ...]
    corrupted_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    corrupted_answer_ids: tuple[int, ...]
    kind: str


Streams = Mapping[str, Iterable[Candidate]]


@dataclass(frozen=True)
class Drawn:
    """A candidate that fits the tokenizer, and the example made of it."""

    candidate: Candidate
    example: Example


Item = TypeVar("Item")


def rotated(items: Sequence[Item], kind: int, kinds: int) -> Iterator[Item]:
    """All ``items``, beginning with every ``kinds``-th item from position ``kind``.

    Streams that walk over the same items in these orders use every item once before they use any item twice.
    """
    for offset in range(kinds):
        yield from items[(kind + offset) % kinds :: kinds]


def shuffled(items: Iterable[Item], random: Random) -> list[Item]:
    """The items in random order."""
    result = list(items)
    random.shuffle(result)
    return result


class Lookup:
    """Turns candidates into examples with the study's tokenizer; the result depends on the candidate and seed alone.

    Attributes:
        refused: the first clean query that the tokenizer did not accept.
    """

    def __init__(self, encoding: Encoding, seed: int) -> None:
        """Look candidates up in ``encoding``; ``seed`` orders their corruptions."""
        self._encoding = encoding
        self._seed = seed
        self.refused: Query | None = None

    def example(
        self, candidate: Candidate, kind: str, accept: Callable[[str], bool] = lambda prompt: True
    ) -> Example | None:
        """The candidate with its first fitting corruption whose prompt ``accept`` takes; None where none fits."""
        clean = candidate.clean
        clean_ids = self._ids(clean)
        if clean_ids is None:
            self.refused = self.refused or clean
            return None
        random = Random(f"{self._seed} {clean.prompt}")
        for corrupted in islice(candidate.corruptions(random), _MOST_CORRUPTIONS_TRIED):
            if corrupted.answer == clean.answer or corrupted.prompt == clean.prompt or not accept(corrupted.prompt):
                continue
            corrupted_ids = self._ids(corrupted)
            if corrupted_ids is not None and len(corrupted_ids) == len(clean_ids):
                return Example(
                    clean=clean.prompt,
                    corrupted=corrupted.prompt,
                    answer=clean.answer,
                    corrupted_answer=corrupted.answer,
                    clean_ids=clean_ids,
                    corrupted_ids=corrupted_ids,
                    answer_ids=self._encoding.answer(clean.answer),
                    corrupted_answer_ids=self._encoding.answer(corrupted.answer),
                    kind=kind,
                )
        return None

    def _ids(self, query: Query) -> tuple[int, ...] | None:
        """Ids of the prompt, or None where it has unknown text, or where its answer or a part is not accepted."""
        if not all(self._encoding.accepts(text) for text in (query.answer, *query.parts)):
            return None
        return self._encoding.known_prompt(query.prompt)


def draw(
    streams: Streams, wanted: int, lookup: Lookup, largest_answer_share: float, scarce: Collection[str] = ()
) -> list[Drawn]:
    """Up to ``wanted`` examples, equally many of each stream, no answer above a share of them.

    Of the kinds named ``scarce`` there may be fewer than of the others: as many as exist, at most an equal share.
    """
    drawn = _draw_in_turn(streams, wanted, lookup, largest_answer_share, scarce)
    while drawn and _over_represented(drawn, largest_answer_share):
        drawn = _draw_in_turn(_by_kind(drawn), len(drawn), lookup, largest_answer_share, scarce)
    return drawn


def most_of_an_answer(examples: int, largest_answer_share: float) -> int:
    """How many of so many examples may have one answer: the share, rounded down, and at least one."""
    return max(1, int(largest_answer_share * examples))


def _draw_in_turn(
    streams: Streams, wanted: int, lookup: Lookup, largest_answer_share: float, scarce: Collection[str]
) -> list[Drawn]:
    """Take fitting candidates from the streams in turn, until there are enough or a stream ends that is not scarce."""
    limit = most_of_an_answer(wanted, largest_answer_share)
    answers: Counter[str] = Counter()
    prompts: set[str] = set()
    drawn: list[Drawn] = []

    def fitting(kind: str, stream: Iterable[Candidate]) -> Iterator[Drawn]:
        misfits = 0
        for candidate in stream:
            clean = candidate.clean
            if clean.prompt in prompts or answers[clean.answer] >= limit:
                continue
            example = lookup.example(candidate, kind)
            misfits = 0 if example is not None else misfits + 1
            if example is not None:
                yield Drawn(candidate, example)
            elif misfits > _MOST_MISFITS_IN_A_ROW:
                return

    sources = {kind: fitting(kind, stream) for kind, stream in streams.items()}
    while sources and len(drawn) < wanted:
        complete = len(drawn)
        for kind, source in list(sources.items()):
            found = next(source, None)
            if found is None and kind in scarce:
                del sources[kind]
                continue
            if found is None:
                return drawn[:complete]
            drawn.append(found)
            answers[found.example.answer] += 1
            prompts.add(found.example.clean)
    return drawn[:wanted]


def _over_represented(drawn: Sequence[Drawn], largest_answer_share: float) -> bool:
    most = max(Counter(d.example.answer for d in drawn).values())
    return most > most_of_an_answer(len(drawn), largest_answer_share)


def _by_kind(drawn: Sequence[Drawn]) -> Streams:
    """The drawn candidates as streams again, one for each kind."""
    streams: dict[str, list[Candidate]] = {}
    for member in drawn:
        streams.setdefault(member.example.kind, []).append(member.candidate)
    return streams
