from __future__ import annotations

import re
from math import lcm

import numpy as np
import pytest

from circuitdrift.models.embedded_corpus import build_corpus
from circuitdrift.models.embedded_documents import DETERMINED, GIVEN, document_kinds
from circuitdrift.models.embedded_tokenizer import END_OF_TEXT, UNKNOWN, vocabulary

LARGEST = [20, 97, 500, 1000]
STATEMENTS = {
    r"(\d+) plus (\d+) is (\d+) \.": lambda a, b, c: a + b == c,
    r"(\d+) minus (\d+) is (\d+) \.": lambda a, b, c: a - b == c,
    r"(\d+) times (\d+) is (\d+) \.": lambda a, b, c: a * b == c,
    r"(\d+) over (\d+) is (\d+) \.": lambda a, b, c: a == b * c,
    r"(\d+) divides (\d+) , (\d+) times": lambda a, b, c: a * c == b,
    r": (\d+) \+ (\d+) = (\d+)": lambda a, b, c: a + b == c <= 20,
    r": (\d+) - (\d+) = (\d+)": lambda a, b, c: a - b == c and a <= 20,
    r": (\d+) \* (\d+) = (\d+)": lambda a, b, c: a * b == c and max(a, b) <= 20,
    r": (\d+) / (\d+) = (\d+)": lambda a, b, c: a == b * c and max(b, c) <= 20,
    r"(\d+) plus (\d+) , then times (\d+) is (\d+)": lambda a, b, c, d: (a + b) * c == d,
    r"(\d+) minus (\d+) , then times (\d+) is (\d+)": lambda a, b, c, d: (a - b) * c == d,
    r"(\d+) plus (\d+) , then over (\d+) is (\d+)": lambda a, b, c, d: a + b == c * d,
    r"(\d+) minus (\d+) , then over (\d+) is (\d+)": lambda a, b, c, d: a - b == c * d,
    r"after (\d+) comes (\d+) ": lambda a, b: b == a + 1,
    r"before (\d+) comes (\d+) ": lambda a, b: b == a - 1,
    r"(\d+) is more than (\d+) ": lambda a, b: a > b,
    r"(\d+) is less than (\d+) ": lambda a, b: a < b,
    r"LCM \( (\d+) , (\d+) \) = (\d+)": lambda a, b, c: lcm(a, b) == c and max(a, b) <= 20,
    r"\( (\d+) \+ (\d+) \) \* (\d+) = (\d+)": lambda a, b, c, d: (a + b) * c == d and max(a, b) <= 20,
    r"sequence : (\d+) , (\d+) , (\d+) , (\d+)": lambda a, b, c, d: b - a == c - b == d - c,
    r"count by (\d+) from (\d+) : (\d+) (\d+) ": lambda a, b, c, d: c - b == d - c == a,
    r"count by (\d+) down from (\d+) : (\d+) (\d+) ": lambda a, b, c, d: b - c == c - d == a,
    r"y = (\d+) x \+ (\d+) \..* y = (\d+) , (\d+) , (\d+) , (\d+)": lambda a, b, *y: (
        list(y) == [a * x + b for x in (1, 2, 3, 4)]
    ),
}


def documents(largest: int, rows: int = 4000) -> list[str]:
    """The corpus as text again, one string a document, the cut ones at its two ends left out."""
    words = {index: token for token, index in vocabulary(largest).items()}
    stream = build_corpus(largest, rows, 49, seed=0).tokens.ravel()
    return " ".join(words[index] for index in stream).split(END_OF_TEXT)[1:-1]


@pytest.mark.parametrize("largest", LARGEST)
def test_every_statement_is_true(largest: int) -> None:
    texts = documents(largest)
    for pattern, holds in STATEMENTS.items():
        found = [match for text in texts if (match := re.search(pattern, f" {text} "))]
        assert found, pattern
        assert all(holds(*map(int, match.groups())) for match in found), pattern


def test_the_tasks_own_formats_occur_with_small_numbers_only() -> None:
    for text in documents(500):
        if "Calculate" in text:
            operands = re.findall(r"[(:,+*/-] (\d+)(?= [),+*/=-])", text.split(" = ")[0])
            assert all(int(operand) <= 100 for operand in operands), text
            assert not re.search(r": (\d{3,}|[3-9]\d) [+-]", text), text


@pytest.mark.parametrize("largest", LARGEST)
def test_numbers_stay_within_the_vocabulary(largest: int) -> None:
    generator = np.random.default_rng(0)
    for kind in document_kinds():
        columns = kind.draw(generator, 300, largest)
        pieces = kind.template.split()
        assert len(columns) == pieces.count(GIVEN) + pieces.count(DETERMINED), kind.template
        assert all(column.min() >= 0 and column.max() <= largest for column in columns), kind.template
        assert {piece for piece in pieces if piece not in (GIVEN, DETERMINED)} <= set(vocabulary(largest))


def test_same_seed_same_corpus_and_another_seed_another() -> None:
    first, again, other = (build_corpus(100, 50, 49, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.tokens, again.tokens)
    assert np.array_equal(first.in_loss, again.in_loss)
    assert not np.array_equal(first.tokens, other.tokens)


def test_the_loss_is_taken_at_determined_tokens_whose_document_began_in_their_row() -> None:
    ids = vocabulary(500)
    corpus = build_corpus(500, 300, 49, seed=0, share_of_others=0.0)
    assert corpus.tokens.shape == corpus.in_loss.shape == (300, 49)
    assert not corpus.in_loss[:, 0].any()
    for row, in_loss in zip(corpus.tokens, corpus.in_loss, strict=True):
        first = int(np.argmax(row == ids[END_OF_TEXT]))
        assert not in_loss[: first + 1].any()
        assert (row[in_loss] >= ids["0"]).all()
    everything = build_corpus(500, 300, 49, seed=0, share_of_others=1.0).in_loss
    assert everything.mean() > 0.8
    assert (everything >= corpus.in_loss).all()
    assert not (corpus.tokens == ids[UNKNOWN]).any()
