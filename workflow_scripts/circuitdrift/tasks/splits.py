"""From drawn examples to the three splits, which share no clean prompt.

Groups of candidates stay together. Corrupted prompts are never trained on; they avoid the clean prompts of other
splits wherever the family offers another corruption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal

from circuitdrift.tasks.examples import Drawn, Example, Lookup, most_of_an_answer
from circuitdrift.tasks.task import FEWEST_CIRCUIT_PROMPTS, Task

Split = Literal["train", "circuit", "test"]
SPLITS: tuple[Split, ...] = ("train", "circuit", "test")
HELD_OUT: tuple[Split, ...] = ("test", "circuit")
Splits = Mapping[Split, Sequence[Example]]


def allot(total: int, task: Task) -> dict[Split, int]:
    """Sizes of the splits of ``total`` examples: as the task asks; if there are too few, train shrinks to half of them.

    With still fewer examples, circuit and test share the other half in proportion to the sizes asked for, but circuit
    gets as many as it needs.
    """
    least_train = min(task.train, (total + 1) // 2)
    held_out = min(task.circuit + task.test, total - least_train)
    share = round(held_out * task.circuit / (task.circuit + task.test))
    circuit = min(max(share, FEWEST_CIRCUIT_PROMPTS), held_out - 1)
    return {"train": min(task.train, total - held_out), "circuit": circuit, "test": held_out - circuit}


def fill(
    drawn: Sequence[Drawn], sizes: Mapping[Split, int], largest_answer_share: float | None = None
) -> dict[Split, list[Drawn]]:
    """Share out groups to splits of the given sizes.

    Test and circuit are filled first, with whole groups where such groups fit; train gets the rest. A group that fits
    nowhere as a whole is cut, and its remainder left out.

    Args:
        drawn: the examples, in the order to share them out.
        sizes: how many examples each split takes.
        largest_answer_share: fill test and circuit with groups that keep each kind as frequent as among all examples
            and every answer below this share, and use other groups only where these do not suffice; None: with any
            groups.
    """
    groups: dict[Hashable, list[Drawn]] = {}
    for member in drawn:
        groups.setdefault(member.candidate.group, []).append(member)
    kinds = Counter(member.example.kind for member in drawn)
    filled: dict[Split, list[Drawn]] = {split: [] for split in SPLITS}
    waiting = list(groups.values())
    for share in (None,) if largest_answer_share is None else (largest_answer_share, None):
        places = [_Place(filled[split], sizes[split], kinds, share) for split in HELD_OUT]
        waiting = [group for group in waiting if not any(place.take(group) for place in places)]
    for group in waiting:
        for split in (*HELD_OUT, "train"):
            room = sizes[split] - len(filled[split])
            if room > 0:
                filled[split].extend(group[:room])
                break
    return filled


class _Place:
    """A split to fill with whole groups, with limits on each kind and answer if there is a share for answers."""

    def __init__(self, members: list[Drawn], size: int, kinds: Mapping[str, int], share: float | None) -> None:
        """A place for ``size`` of all examples, of which there are so many of each of the ``kinds``."""
        self._members = members
        self._size = size
        total = sum(kinds.values())
        self._most_of_kind = {kind: size if share is None else -(-size * n // total) for kind, n in kinds.items()}
        self._most_of_answer = size if share is None else most_of_an_answer(size, share)
        self._kinds = Counter(member.example.kind for member in members)
        self._answers = Counter(member.example.answer for member in members)

    def take(self, group: Sequence[Drawn]) -> bool:
        """Add the group if it fits as a whole; return whether it did."""
        if len(self._members) + len(group) > self._size:
            return False
        kinds = self._kinds + Counter(member.example.kind for member in group)
        answers = self._answers + Counter(member.example.answer for member in group)
        if any(n > self._most_of_kind[kind] for kind, n in kinds.items()):
            return False
        if max(answers.values()) > self._most_of_answer:
            return False
        self._members.extend(group)
        self._kinds, self._answers = kinds, answers
        return True


def separate(filled: Mapping[Split, Sequence[Drawn]], lookup: Lookup) -> Splits:
    """The examples; a corrupted prompt that is in another split is replaced where the family offers another."""
    home: dict[str, Split] = {d.example.clean: split for split, members in filled.items() for d in members}
    result: dict[Split, list[Example]] = {}
    for split, members in filled.items():
        result[split] = []
        for member in members:
            example = member.example
            if home.get(example.corrupted, split) != split:
                outside = _outside_other_splits(home, split)
                example = lookup.example(member.candidate, example.kind, outside) or example
            home.setdefault(example.corrupted, split)
            result[split].append(example)
    return result


def _outside_other_splits(home: Mapping[str, Split], split: Split) -> Callable[[str], bool]:
    return lambda prompt: home.get(prompt, split) == split
