"""The kinds of documents in the embedded model's pre-training corpus.

A document is a template with numbers. ``#`` stands for a number that the text leaves open, ``@`` for a number that the
text before it determines. Arithmetic is stated in words ("12 plus 15 is 27"). The formats of the study's tasks occur
with small numbers only. So a new model knows the formats but answers poorly, and fine-tuning can connect them to a
skill. Every integer of a document lies in 0..largest_number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Int
from numpy.random import Generator

Column = Int[np.ndarray, " documents"]
Columns = tuple[Column, ...]
Draw = Callable[[Generator, int, int], Columns]

GIVEN = "#"
DETERMINED = "@"

INSTRUCTION = "Calculate the result of the following arithmetic expression and provide only the final answer :"


@dataclass(frozen=True)
class Kind:
    """One kind of document.

    Attributes:
        template: the tokens, separated by blanks; ``#`` and ``@`` take the columns in turn.
        draw: draws the columns; called with a generator, the number of documents, and the largest integer allowed.
        weight: number of documents of this kind, relative to the others.
    """

    template: str
    draw: Draw
    weight: float


def document_kinds() -> tuple[Kind, ...]:
    """All kinds of documents, in a fixed order."""
    return (*_counting(), *_text(), *_arithmetic(), *_small_facts())


def _counting() -> tuple[Kind, ...]:
    return (
        Kind("# @ @ @ @ @ @ @", partial(_terms, count=8, largest_step=1), 0.3),
        Kind("count by # from # : @ @ @ @ @ @", partial(_stepping, count=7, upward=True), 1.0),
        Kind("count by # down from # : @ @ @ @ @ @", partial(_stepping, count=7, upward=False), 0.4),
        Kind("list : # , # , @ , @ , @ , @ .", partial(_terms, count=6, largest_step=12), 0.3),
        Kind("list : # , # , @ , @ , @ , @ .", partial(_terms, count=6, largest_step=100), 0.4),
        Kind("after # comes @ .", partial(_neighbours, upward=True), 0.25),
        Kind("before # comes @ .", partial(_neighbours, upward=False), 0.25),
        Kind("# is more than # .", partial(_ordered, descending=True), 0.25),
        Kind("# is less than # .", partial(_ordered, descending=False), 0.25),
    )


def _text() -> tuple[Kind, ...]:
    """Text in which the signs of arithmetic mean something else, so that fine-tuning must teach their meaning."""
    return (
        Kind("section # - # , page # .", partial(_unrelated, count=3), 0.5),
        Kind("room # / # , row # .", partial(_unrelated, count=3), 0.3),
        Kind("size # * # , code # .", partial(_unrelated, count=3), 0.3),
        Kind("shelf # + # = # .", partial(_unrelated, count=3), 0.2),
        Kind("part ( # , # ) = box # .", partial(_unrelated, count=3), 0.2),
    )


def _arithmetic() -> tuple[Kind, ...]:
    return (
        Kind("# plus # is @ .", partial(_sums, share_of_range=0.2), 1.4),
        Kind("# plus # is @ .", partial(_sums, share_of_range=1.0), 0.6),
        Kind("# minus # is @ .", partial(_differences, share_of_range=0.2), 1.4),
        Kind("# minus # is @ .", partial(_differences, share_of_range=1.0), 0.6),
        Kind("# times # is @ .", partial(_products, largest_factor=None), 1.0),
        Kind("# over # is @ .", _quotients, 1.0),
        Kind("# divides # , @ times .", _divisors, 0.4),
        Kind("# plus # , then times # is @ .", partial(_sum_then, outer="times"), 0.3),
        Kind("# minus # , then times # is @ .", partial(_difference_then, outer="times"), 0.3),
        Kind("# plus # , then over # is @ .", partial(_sum_then, outer="over"), 0.3),
        Kind("# minus # , then over # is @ .", partial(_difference_then, outer="over"), 0.3),
    )


def _small_facts() -> tuple[Kind, ...]:
    lcm = "Calculate the least common multiple ( LCM ) of two numbers . LCM ( # , # ) = @ , LCM ( # , # ) = @"
    function = "There is a function y = # x + # . Given x = 1 , 2 , 3 , 4 , y = # , # , # , @"
    return (
        Kind(f"{INSTRUCTION} # + # = @", partial(_small_sums, largest=10), 0.15),
        Kind(f"{INSTRUCTION} # - # = @", partial(_small_differences, largest=10), 0.15),
        Kind(f"{INSTRUCTION} # * # = @", partial(_products, largest_factor=10), 0.1),
        Kind(f"{INSTRUCTION} # / # = @", _small_quotients, 0.1),
        Kind(f"{INSTRUCTION} ( # + # ) * # = @", _small_compositions, 0.15),
        Kind(lcm, _small_multiples, 0.1),
        Kind("Derive the following sequence : # , # , # , # , @", partial(_terms, count=5, largest_step=5), 0.15),
        Kind(function, _small_functions, 0.08),
    )


def _uniform(generator: Generator, low: int, high: Column | int, documents: int) -> Column:
    """Integers from low to high, both included."""
    drawn: Column = generator.integers(low, np.asarray(high) + 1, size=documents)
    return drawn


def _terms(generator: Generator, documents: int, largest_number: int, count: int, largest_step: int) -> Columns:
    """An ascending arithmetic sequence."""
    longest = max(1, largest_number // (count - 1))
    step = _uniform(generator, 1, min(largest_step, longest), documents)
    start = _uniform(generator, 0, largest_number - step * (count - 1), documents)
    return tuple(start + step * k for k in range(count))


def _stepping(generator: Generator, documents: int, largest_number: int, count: int, upward: bool) -> Columns:
    """A step, then an arithmetic sequence up or down; small steps are more frequent than in a uniform draw."""
    longest = max(1, largest_number // (count - 1))
    limit = np.where(generator.random(documents) < 0.3, min(12, longest), longest)
    step = _uniform(generator, 1, limit, documents)
    lowest = _uniform(generator, 0, largest_number - step * (count - 1), documents)
    terms = [lowest + step * k for k in range(count)]
    return (step, *(terms if upward else reversed(terms)))


def _neighbours(generator: Generator, documents: int, largest_number: int, upward: bool) -> Columns:
    lower = _uniform(generator, 0, largest_number - 1, documents)
    return (lower, lower + 1) if upward else (lower + 1, lower)


def _ordered(generator: Generator, documents: int, largest_number: int, descending: bool) -> Columns:
    lower = _uniform(generator, 0, largest_number - 1, documents)
    higher = _uniform(generator, 0, largest_number - lower - 1, documents) + lower + 1
    return (higher, lower) if descending else (lower, higher)


def _unrelated(generator: Generator, documents: int, largest_number: int, count: int) -> Columns:
    return tuple(_uniform(generator, 0, largest_number, documents) for _ in range(count))


def _sums(generator: Generator, documents: int, largest_number: int, share_of_range: float) -> Columns:
    largest = max(1, int(largest_number * share_of_range))
    a = _uniform(generator, 0, largest, documents)
    b = _uniform(generator, 0, np.minimum(largest, largest_number - a), documents)
    swapped = generator.random(documents) < 0.5
    return np.where(swapped, b, a), np.where(swapped, a, b), a + b


def _differences(generator: Generator, documents: int, largest_number: int, share_of_range: float) -> Columns:
    """Differences a - b >= 0 with b up to a share of the range; a is the sum of b and the difference."""
    b, difference, a = _sums(generator, documents, largest_number, share_of_range)
    return a, b, difference


def _factor_pairs(largest_product: int, largest_factor: int) -> tuple[Column, Column]:
    """All ordered pairs of factors, at least 2, whose product stays within bounds."""
    factors = np.arange(2, min(largest_factor, largest_product // 2) + 1)
    a, b = (grid.ravel() for grid in np.meshgrid(factors, factors, indexing="ij"))
    within = a * b <= largest_product
    return a[within], b[within]


def _products(generator: Generator, documents: int, largest_number: int, largest_factor: int | None) -> Columns:
    a, b = _factor_pairs(largest_number, largest_factor or largest_number)
    chosen = generator.integers(len(a), size=documents)
    return a[chosen], b[chosen], a[chosen] * b[chosen]


def _quotients(generator: Generator, documents: int, largest_number: int) -> Columns:
    a, b, product = _products(generator, documents, largest_number, None)
    return product, a, b


def _divisors(generator: Generator, documents: int, largest_number: int) -> Columns:
    a, b, product = _products(generator, documents, largest_number, None)
    return a, product, b


def _second_step(generator: Generator, documents: int, largest_number: int, outer: str) -> Columns:
    """The first operand of a second step, its second operand, and the result.

    Dividends stay within two fifths of the range, as sums of two small numbers do.
    """
    if outer == "times":
        return _products(generator, documents, largest_number, None)
    return _quotients(generator, documents, max(4, largest_number * 2 // 5))


def _sum_then(generator: Generator, documents: int, largest_number: int, outer: str) -> Columns:
    middle, last, result = _second_step(generator, documents, largest_number, outer)
    first = _uniform(generator, 1, middle - 1, documents)
    return first, middle - first, last, result


def _difference_then(generator: Generator, documents: int, largest_number: int, outer: str) -> Columns:
    middle, last, result = _second_step(generator, documents, largest_number, outer)
    second = _uniform(generator, 1, np.minimum(largest_number // 5, largest_number - middle), documents)
    return middle + second, second, last, result


def _small_quotients(generator: Generator, documents: int, largest_number: int) -> Columns:
    a, b, product = _products(generator, documents, largest_number, 10)
    return product, a, b


def _small_sums(generator: Generator, documents: int, largest_number: int, largest: int) -> Columns:
    a = _uniform(generator, 1, largest, documents)
    b = _uniform(generator, 1, largest, documents)
    return a, b, a + b


def _small_differences(generator: Generator, documents: int, largest_number: int, largest: int) -> Columns:
    a = _uniform(generator, 1, largest, documents)
    b = _uniform(generator, 1, a, documents)
    return a, b, a - b


def _small_compositions(generator: Generator, documents: int, largest_number: int) -> Columns:
    x, y = (_uniform(generator, 1, 5, documents) for _ in range(2))
    z = _uniform(generator, 1, np.minimum(10, largest_number // (x + y)), documents)
    return x, y, z, (x + y) * z


def _small_multiples(generator: Generator, documents: int, largest_number: int) -> Columns:
    largest = min(10, int(largest_number**0.5))
    columns: list[Column] = []
    for _ in range(2):
        a, b = (_uniform(generator, 2, largest, documents) for _ in range(2))
        columns += [a, b, np.lcm(a, b)]
    return tuple(columns)


def _small_functions(generator: Generator, documents: int, largest_number: int) -> Columns:
    slope = _uniform(generator, 1, min(5, largest_number // 5), documents)
    intercept = _uniform(generator, 1, np.minimum(20, largest_number - 4 * slope), documents)
    return (slope, intercept, *(slope * x + intercept for x in range(1, 5)))
