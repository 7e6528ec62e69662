"""What a task is made of: examples, the candidates they are chosen from, and the three splits they end up in.

A family of tasks yields *candidates* in random order, one stream for each kind that must be equally frequent (an
operator, a kind of number pair). From these :func:`assemble` draws examples that the study's tokenizer can take,
caps the share of every single answer, and splits them so that no clean prompt stands in two splits. A corrupted
prompt is never trained on; it avoids the prompts of other splits wherever the family offers another corruption.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from circuitdrift.config.tasks import Task
    from circuitdrift.tasks.encoding import Encoding

log = logging.getLogger(__name__)

Split = Literal["train", "circuit", "test"]
SPLITS: tuple[Split, ...] = ("train", "circuit", "test")
HELD_OUT: tuple[Split, ...] = ("test", "circuit")

LARGEST_ANSWER_SHARE = 0.04
"""No answer makes up more than this share of a generated task, so that always giving one answer earns little."""

SMALLEST_TASK = 20
"""A task that asks for more and finds fewer than this is refused: what is left is a handful of freak cases."""

_MOST_CORRUPTIONS_TRIED = 500
_MOST_MISFITS_IN_A_ROW = 20_000
"""A stream that has yielded so many candidates which do not fit the tokenizer counts as ended."""


class TaskError(ValueError):
    """A task that cannot be made; the message names the task or the file and row, what is wrong, and the fix."""


@dataclass(frozen=True)
class Query:
    """A prompt and the text that must follow it, verbatim (`` 26`` with its space after ``72 - 46 =``).

    Attributes:
        prompt: the whole prompt.
        answer: what follows; one token.
        parts: texts inside the prompt that must be one token as well, as they stand there.
    """

    prompt: str
    answer: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """An example that might be: a clean query and the corruptions it could have, the first that fits being taken.

    Attributes:
        clean: the clean query.
        corruptions: lists possible corrupted queries, in the order in which to try them.
        group: candidates of one group never stand in different splits.
    """

    clean: Query
    corruptions: Callable[[Random], Iterable[Query]]
    group: Hashable


@dataclass(frozen=True)
class Example:
    """A clean and a corrupted prompt of equally many tokens, with the answer to each."""

    clean: str
    corrupted: str
    answer: str
    corrupted_answer: str
    clean_ids: tuple[int, ...]
    corrupted_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    corrupted_answer_ids: tuple[int, ...]


Splits = Mapping[Split, Sequence[Example]]
Streams = Mapping[str, Iterable[Candidate]]


@dataclass(frozen=True)
class Drawn:
    """A candidate that fits the tokenizer, the example it became, and the kind (the stream) it was drawn from."""

    candidate: Candidate
    example: Example
    kind: str


Item = TypeVar("Item")


def rotated(items: Sequence[Item], kind: int, kinds: int) -> Iterator[Item]:
    """All ``items``, in an order that begins with every ``kinds``-th one from position ``kind``.

    Streams that walk over the same items in these orders meet an item twice only when all have been met once.
    """
    for offset in range(kinds):
        yield from items[(kind + offset) % kinds :: kinds]


def shuffled(items: Iterable[Item], random: Random) -> list[Item]:
    """The items in random order."""
    result = list(items)
    random.shuffle(result)
    return result


def assemble(name: str, streams: Streams, task: Task, encoding: Encoding) -> Splits:
    """Draw a generated task's examples and split them.

    Where fewer examples exist than the task asks for, test and circuit keep their sizes as long as train has at least
    half of all; this is logged.

    Args:
        name: of the task's family, for messages.
        streams: for each kind that must be equally frequent, its candidates in random order.
        task: the sizes of the splits and the seed.
        encoding: the study's tokenizer.

    Raises:
        TaskError: fewer than :data:`SMALLEST_TASK` candidates fit the tokenizer (or fewer than a smaller task wants).
    """
    wanted = task.train + task.circuit + task.test
    lookup = Lookup(encoding, task.seed)
    drawn = _draw(streams, wanted, lookup)
    while drawn and _over_represented(drawn):
        drawn = _draw(_by_kind(drawn), len(drawn), lookup)
    if len(drawn) < min(SMALLEST_TASK, wanted):
        raise TaskError(f"{name}: {_why_too_few(len(drawn), min(SMALLEST_TASK, wanted), lookup.refused)}")
    sizes = allot(len(drawn), task)
    if len(drawn) < wanted:
        log.warning(
            "%s: asked for %d examples, %d exist that are single tokens, balanced, with no answer above %.0f %%: %s",
            name, wanted, len(drawn), 100 * LARGEST_ANSWER_SHARE, _sizes_in_words(sizes),
        )  # fmt: skip
    return separate(fill(drawn, sizes, balanced=True), lookup)


def allot(total: int, task: Task) -> dict[Split, int]:
    """Sizes of the splits when ``total`` examples exist: as asked, or train shrinks, down to half of the total.

    Below that, circuit and test share the other half in the proportion in which they were asked for.
    """
    least_train = min(task.train, (total + 1) // 2)
    held_out = min(task.circuit + task.test, total - least_train)
    circuit = max(1, round(held_out * task.circuit / (task.circuit + task.test)))
    return {"train": min(task.train, total - held_out), "circuit": circuit, "test": held_out - circuit}


def _sizes_in_words(sizes: Mapping[Split, int]) -> str:
    return ", ".join(f"{split} {size}" for split, size in sizes.items())


class Lookup:
    """Turns candidates into examples by the study's tokenizer; deterministic for each candidate by itself.

    Attributes:
        refused: the first clean query that the tokenizer does not write as known tokens with an answer of one.
    """

    def __init__(self, encoding: Encoding, seed: int) -> None:
        """Look candidates up in ``encoding``; ``seed`` orders their corruptions."""
        self._encoding = encoding
        self._seed = seed
        self.refused: Query | None = None

    def example(self, candidate: Candidate, accept: Callable[[str], bool] = lambda prompt: True) -> Example | None:
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
                )
        return None

    def _ids(self, query: Query) -> tuple[int, ...] | None:
        """Ids of the prompt, or None where it is not all known, or its answer or a part is not accepted."""
        if not all(self._encoding.accepts(text) for text in (query.answer, *query.parts)):
            return None
        return self._encoding.known_prompt(query.prompt)


def _draw(streams: Streams, wanted: int, lookup: Lookup) -> list[Drawn]:
    """Take fitting candidates from the streams in turn, until there are enough or one stream has ended."""
    limit = max(1, int(LARGEST_ANSWER_SHARE * wanted))
    answers: Counter[str] = Counter()
    prompts: set[str] = set()
    drawn: list[Drawn] = []

    def fitting(kind: str, stream: Iterable[Candidate]) -> Iterator[Drawn]:
        misfits = 0
        for candidate in stream:
            clean = candidate.clean
            if clean.prompt in prompts or answers[clean.answer] >= limit:
                continue
            example = lookup.example(candidate)
            misfits = 0 if example is not None else misfits + 1
            if example is not None:
                yield Drawn(candidate, example, kind)
            elif misfits > _MOST_MISFITS_IN_A_ROW:
                return

    sources = [fitting(kind, stream) for kind, stream in streams.items()]
    while len(drawn) < wanted:
        for source in sources:
            found = next(source, None)
            if found is None:
                return drawn[: len(drawn) - len(drawn) % len(sources)]
            drawn.append(found)
            answers[found.example.answer] += 1
            prompts.add(found.example.clean)
    return drawn[:wanted]


def _over_represented(drawn: Sequence[Drawn]) -> bool:
    most = max(Counter(d.example.answer for d in drawn).values())
    return most > max(1, int(LARGEST_ANSWER_SHARE * len(drawn)))


def _by_kind(drawn: Sequence[Drawn]) -> Streams:
    """The candidates drawn, as one stream for each kind again."""
    streams: dict[str, list[Candidate]] = {}
    for one in drawn:
        streams.setdefault(one.kind, []).append(one.candidate)
    return streams


def fill(drawn: Sequence[Drawn], sizes: Mapping[Split, int], balanced: bool) -> dict[Split, list[Drawn]]:
    """Share groups out to splits of the given sizes.

    Test and circuit are filled first, with whole groups as far as these exist that fit; train gets the others. What
    remains of a group that fits nowhere as a whole is left out.

    Args:
        drawn: the examples, in the order in which to hand them out.
        sizes: how many examples each split takes.
        balanced: first fill test and circuit with groups that keep kinds equally frequent and every answer below
            :data:`LARGEST_ANSWER_SHARE`, and with others only where those do not suffice.
    """
    groups: dict[Hashable, list[Drawn]] = {}
    for one in drawn:
        groups.setdefault(one.candidate.group, []).append(one)
    kinds = len({one.kind for one in drawn})
    filled: dict[Split, list[Drawn]] = {split: [] for split in SPLITS}
    waiting = list(groups.values())
    for strict in (True, False) if balanced else (False,):
        places = [_Place(filled[split], sizes[split], kinds, strict) for split in HELD_OUT]
        waiting = [group for group in waiting if not any(place.take(group) for place in places)]
    for group in waiting:
        for split in (*HELD_OUT, "train"):
            room = sizes[split] - len(filled[split])
            if room > 0:
                filled[split].extend(group[:room])
                break
    return filled


class _Place:
    """A split that is being filled with whole groups, with limits to each kind and answer if ``strict``."""

    def __init__(self, members: list[Drawn], size: int, kinds: int, strict: bool) -> None:
        self._members = members
        self._size = size
        self._most_of_kind = -(-size // kinds) if strict else size
        self._most_of_answer = max(1, int(LARGEST_ANSWER_SHARE * size)) if strict else size
        self._kinds = Counter(one.kind for one in members)
        self._answers = Counter(one.example.answer for one in members)

    def take(self, group: Sequence[Drawn]) -> bool:
        """Add the group if it fits as a whole; say whether it did."""
        if len(self._members) + len(group) > self._size:
            return False
        kinds = self._kinds + Counter(one.kind for one in group)
        answers = self._answers + Counter(one.example.answer for one in group)
        if max(kinds.values()) > self._most_of_kind or max(answers.values()) > self._most_of_answer:
            return False
        self._members.extend(group)
        self._kinds, self._answers = kinds, answers
        return True


def separate(filled: Mapping[Split, Sequence[Drawn]], lookup: Lookup) -> Splits:
    """The examples; corrupted prompts that stand in another split are changed for others where the family has any."""
    home: dict[str, Split] = {d.example.clean: split for split, members in filled.items() for d in members}
    result: dict[Split, list[Example]] = {}
    for split, members in filled.items():
        result[split] = []
        for one in members:
            example = one.example
            if home.get(example.corrupted, split) != split:
                example = lookup.example(one.candidate, _outside_other_splits(home, split)) or example
            home.setdefault(example.corrupted, split)
            result[split].append(example)
    return result


def _outside_other_splits(home: Mapping[str, Split], split: Split) -> Callable[[str], bool]:
    return lambda prompt: home.get(prompt, split) == split


def _why_too_few(found: int, needed: int, refused: Query | None) -> str:
    problem = f"only {found} examples fit this model's tokenizer, at least {needed} are needed"
    if refused is None:
        return f"{problem}; widen the task's operand range, or choose a model whose tokenizer keeps numbers whole"
    return (
        f"{problem}. The first to be refused: {refused.prompt!r} with the answer {refused.answer!r}, which must be "
        "made of known tokens, the answer of one. Choose a task with smaller numbers, or a model whose tokenizer "
        "keeps numbers whole"
    )
