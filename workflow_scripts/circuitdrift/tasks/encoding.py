"""A tokenizer as tasks use it: token ids of prompts and answers, and whether a text may be an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from circuitdrift.tasks.tokenization import decode_answer, encode_answer, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoding:
    """How a tokenizer encodes prompts and answers.

    Attributes:
        encode_prompt: prompt to ids, with BOS where the tokenizer itself adds it.
        encode_answer: answer to ids, as it follows a prompt, without BOS.
        unknown_id: the id of text outside the vocabulary; None if the tokenizer has none.
        answer_tokens: whether an answer must be one token or may have several
            (docs/method.md#answers-of-several-tokens).
        decode_answer: id to the text that it adds to a prompt; None where it is no text of the tokenizer.
    """

    encode_prompt: Callable[[str], list[int]]
    encode_answer: Callable[[str], list[int]]
    unknown_id: int | None = None
    answer_tokens: Literal["single", "any"] = "single"
    decode_answer: Callable[[int], str | None] = lambda token: None
    _answers: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    _decoded: dict[int, str | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, answer_tokens: Literal["single", "any"] = "single") -> Encoding:
        """The encoding of a Hugging Face tokenizer, for answers of one token or any number.

        Byte-level tokenizers often give their end-of-text token as the unknown token too, but never produce it for
        unknown text; for these, no text counts as unknown.
        """
        unknown = tokenizer.unk_token_id
        reused = unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id)
        return cls(
            encode_prompt=partial(encode_prompt, tokenizer),
            encode_answer=partial(encode_answer, tokenizer),
            unknown_id=None if reused or not isinstance(unknown, int) else unknown,
            answer_tokens=answer_tokens,
            decode_answer=partial(decode_answer, tokenizer),
        )

    def prompt(self, text: str) -> tuple[int, ...]:
        """Ids of a prompt."""
        return tuple(self.encode_prompt(text))

    def answer(self, text: str) -> tuple[int, ...]:
        """Ids of an answer, cached because numbers recur."""
        if text not in self._answers:
            self._answers[text] = tuple(self.encode_answer(text))
        return self._answers[text]

    def decoded(self, token: int) -> str | None:
        """The text of an answer given by its id, cached because answers recur; None where the id is no text."""
        if token not in self._decoded:
            self._decoded[token] = self.decode_answer(token)
        return self._decoded[token]

    def knows(self, ids: tuple[int, ...]) -> bool:
        """Whether the whole text is in the vocabulary."""
        return self.unknown_id is None or self.unknown_id not in ids

    def known_prompt(self, text: str) -> tuple[int, ...] | None:
        """Ids of a prompt, or None if a part of it is outside the vocabulary."""
        ids = self.prompt(text)
        return ids if self.knows(ids) else None

    def accepts(self, text: str) -> bool:
        """Whether a text may be an answer: in the vocabulary, and one token unless several are allowed."""
        if self.answer_tokens == "any":
            return self.knows(self.answer(text))
        return self.single_answer(text) is not None

    def single_answer(self, text: str) -> tuple[int, ...] | None:
        """The id of an answer if it is one known token, otherwise None."""
        ids = self.answer(text)
        return ids if len(ids) == 1 and self.knows(ids) else None
