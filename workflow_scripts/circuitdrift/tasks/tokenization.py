"""Text to token ids, in one way for training, evaluation and circuits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANCHOR = "="
"""Stands for the prompt when an answer is encoded: no tokenizer joins it to the space, word or number that follows."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a prompt as the model's own tokenizer makes them.

    Special tokens that the tokenizer puts in front (BOS) are kept, and none is added where it puts none. Those that
    it puts behind the text (EOS) are dropped: the answer is to follow.
    """
    encoding = tokenizer(text, return_special_tokens_mask=True)
    ids: list[int] = list(encoding["input_ids"])
    special: list[int] = list(encoding["special_tokens_mask"])
    end = len(ids)
    while end and special[end - 1] and 0 in special:
        end -= 1
    return ids[:end]


def encode_answer(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of an answer as they follow a prompt: verbatim, with its leading space, without special tokens.

    Some tokenizers put a space of their own before any text that they see first (those made by SentencePiece). A
    continuation has none, so the answer is encoded behind an anchor, whose ids are then cut off.
    """
    anchor: list[int] = list(tokenizer(ANCHOR, add_special_tokens=False)["input_ids"])
    anchored: list[int] = list(tokenizer(ANCHOR + text, add_special_tokens=False)["input_ids"])
    if anchored[: len(anchor)] == anchor:
        return anchored[len(anchor) :]
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
