"""Folds: disjoint groups of examples, alike in their kinds, that reliability is estimated from.

Example i of a split belongs to fold i mod n. Generators alternate kinds (operators, kinds of pairs), so without
shuffling a fold could hold one kind only, and two folds would differ by more than chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from random import Random

from circuitdrift.tasks.examples import shuffled


def order_by_fold(kinds: Sequence[str], n_folds: int, random: Random) -> list[int]:
    """A random order of examples in which every ``n_folds``-th one makes a fold with its share of each kind.

    The examples of each kind are shuffled and dealt to the folds in turn, so that the numbers of a kind in two folds
    differ by at most one; then each fold is shuffled.

    Args:
        kinds: the kind of each example.
        n_folds: number of folds.
        random: source of the shuffles.

    Returns:
        Positions in ``kinds``; the example at place i of the result belongs to fold i mod ``n_folds``.
    """
    dealt = [place for kind in sorted(set(kinds)) for place in shuffled(_places_of(kind, kinds), random)]
    folds = [shuffled(dealt[fold::n_folds], random) for fold in range(n_folds)]
    return [place for row in zip_longest(*folds) for place in row if place is not None]


def _places_of(kind: str, kinds: Sequence[str]) -> list[int]:
    return [place for place, found in enumerate(kinds) if found == kind]
