"""The embedded model's pre-training corpus: documents of all kinds, drawn with a seed and packed into rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy.random import Generator

from circuitdrift.models.embedded_documents import DETERMINED, GIVEN, Kind, document_kinds
from circuitdrift.models.embedded_tokenizer import END_OF_TEXT, vocabulary


@dataclass(frozen=True)
class Corpus:
    """Packed rows for next-token prediction.

    Attributes:
        tokens: token ids; the documents of a row follow one another, each after an ``<eos>``.
        in_loss: whether the token is a target of the loss; always False before a row's first ``<eos>``.
    """

    tokens: Int[np.ndarray, "rows length"]
    in_loss: Bool[np.ndarray, "rows length"]


def build_corpus(largest_number: int, rows: int, row_length: int, seed: int, share_of_others: float = 0.15) -> Corpus:
    """Draw documents, shuffle them and pack them into rows without gaps.

    Args:
        largest_number: the largest integer of the tokenizer, which bounds all facts.
        rows: number of rows.
        row_length: tokens of a row.
        seed: seed of all draws.
        share_of_others: share of the undetermined tokens that count in the loss too.

    Returns:
        The rows. A document may continue in the next row. Its tokens there, up to the first ``<eos>``, lack the text
        that determines them, and do not count in the loss.
    """
    generator = np.random.default_rng(seed)
    kinds = document_kinds()
    numbers = _documents_of_each_kind(kinds, rows * row_length)
    filled = [_fill(kind, n, generator, largest_number) for kind, n in zip(kinds, numbers, strict=True)]
    ids, determined = _under_one_another(filled)
    order = generator.permutation(len(ids))
    present = ids[order] >= 0
    tokens, in_loss = (
        array[order][present][: rows * row_length].reshape(rows, row_length) for array in (ids, determined)
    )
    in_loss = in_loss | (generator.random(tokens.shape) < share_of_others)
    return Corpus(tokens, in_loss & _follows_a_beginning(tokens, vocabulary(largest_number)[END_OF_TEXT]))


def _documents_of_each_kind(kinds: tuple[Kind, ...], tokens: int) -> list[int]:
    """Numbers of documents of each kind that together have at least a number of tokens."""
    weights = np.array([kind.weight for kind in kinds])
    lengths = np.array([1 + len(kind.template.split()) for kind in kinds])
    return [int(n) for n in np.ceil(weights * tokens / (weights @ lengths))]


def _fill(
    kind: Kind, documents: int, generator: Generator, largest_number: int
) -> tuple[Int[np.ndarray, "documents length"], Bool[np.ndarray, " length"]]:
    """Token ids of documents of one kind, and whether each position is determined."""
    ids = vocabulary(largest_number)
    pieces = [END_OF_TEXT, *kind.template.split()]
    columns = iter(kind.draw(generator, documents, largest_number))
    filled = np.empty((documents, len(pieces)), dtype=np.int32)
    for position, piece in enumerate(pieces):
        filled[:, position] = ids["0"] + next(columns) if piece in (GIVEN, DETERMINED) else ids[piece]
    return filled, np.array([piece == DETERMINED for piece in pieces])


def _under_one_another(
    filled: list[tuple[Int[np.ndarray, "documents length"], Bool[np.ndarray, " length"]]],
) -> tuple[Int[np.ndarray, "all longest"], Bool[np.ndarray, "all longest"]]:
    """All documents in one array, with -1 after the end of shorter documents."""
    shape = (sum(len(ids) for ids, _ in filled), max(ids.shape[1] for ids, _ in filled))
    all_ids = np.full(shape, -1, dtype=np.int32)
    all_determined = np.zeros(shape, dtype=bool)
    start = 0
    for ids, determined in filled:
        block = slice(start, start + len(ids))
        all_ids[block, : ids.shape[1]] = ids
        all_determined[block, : ids.shape[1]] = determined
        start += len(ids)
    return all_ids, all_determined


def _follows_a_beginning(tokens: Int[np.ndarray, "rows length"], end_of_text: int) -> Bool[np.ndarray, "rows length"]:
    """Whether an ``<eos>`` precedes the token in its row."""
    begun = np.logical_or.accumulate(tokens == end_of_text, axis=1)
    return np.concatenate([np.zeros((len(tokens), 1), dtype=bool), begun[:, :-1]], axis=1)
