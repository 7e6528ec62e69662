"""A tokenizer as the tasks see it: prompts and answers to token ids, and whether an answer is one token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from circuitdrift.tasks.tokenization import encode_answer, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoding:
    """How one tokenizer writes prompts and answers.

    Attributes:
        encode_prompt: text to ids, as the tokenizer itself does it (BOS only where it adds one).
        encode_answer: the text that follows a prompt to ids, without BOS.
        unknown_id: the id that stands for text outside the vocabulary, where the tokenizer has one.
        answer_tokens: whether answers must be one token each, or may have several.
    """

    encode_prompt: Callable[[str], list[int]]
    encode_answer: Callable[[str], list[int]]
    unknown_id: int | None = None
    answer_tokens: Literal["single", "any"] = "single"
    _answers: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, answer_tokens: Literal["single", "any"] = "single") -> Encoding:
        """The encoding of a Hugging Face tokenizer, for answers of one token or of any number.

        Byte-level tokenizers often name their end-of-text token as the unknown one too, without ever using it so;
        there nothing counts as unknown.
        """
        unknown = tokenizer.unk_token_id
        reused = unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id)
        return cls(
            encode_prompt=partial(encode_prompt, tokenizer),
            encode_answer=partial(encode_answer, tokenizer),
            unknown_id=None if reused or not isinstance(unknown, int) else unknown,
            answer_tokens=answer_tokens,
        )

    def prompt(self, text: str) -> tuple[int, ...]:
        """Ids of a prompt."""
        return tuple(self.encode_prompt(text))

    def answer(self, text: str) -> tuple[int, ...]:
        """Ids of an answer; numbers recur, so they are remembered."""
        if text not in self._answers:
            self._answers[text] = tuple(self.encode_answer(text))
        return self._answers[text]

    def knows(self, ids: tuple[int, ...]) -> bool:
        """Whether no part of the text fell outside the vocabulary."""
        return self.unknown_id is None or self.unknown_id not in ids

    def known_prompt(self, text: str) -> tuple[int, ...] | None:
        """Ids of a prompt, or None where a part of it is outside the vocabulary."""
        ids = self.prompt(text)
        return ids if self.knows(ids) else None

    def accepts(self, text: str) -> bool:
        """Whether a text may be an answer: all known, and one token unless several are allowed."""
        if self.answer_tokens == "any":
            return self.knows(self.answer(text))
        return self.single_answer(text) is not None

    def single_answer(self, text: str) -> tuple[int, ...] | None:
        """The id of an answer that is one known token, or None."""
        ids = self.answer(text)
        return ids if len(ids) == 1 and self.knows(ids) else None
