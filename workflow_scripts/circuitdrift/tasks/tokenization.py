"""Text to token ids, the same for training, evaluation and circuits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANCHOR = "="
"""Stands for the prompt when an answer is encoded; no tokenizer merges it with a following space, word or number."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a prompt from the model's own tokenizer.

    Special tokens in front of the text (BOS) are kept where the tokenizer adds them. Special tokens after it (EOS) are
    dropped, because the answer follows.
    """
    encoding = tokenizer(text, return_special_tokens_mask=True)
    ids: list[int] = list(encoding["input_ids"])
    special: list[int] = list(encoding["special_tokens_mask"])
    end = len(ids)
    while end and special[end - 1] and 0 in special:
        end -= 1
    return ids[:end]


def encode_answer(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of an answer after a prompt: verbatim, with its leading space, without special tokens.

    SentencePiece tokenizers prepend a space to the start of a text. A continuation has no such space, so the answer is
    encoded after an anchor, whose ids are then cut off.
    """
    anchor: list[int] = list(tokenizer(ANCHOR, add_special_tokens=False)["input_ids"])
    anchored: list[int] = list(tokenizer(ANCHOR + text, add_special_tokens=False)["input_ids"])
    if anchored[: len(anchor)] == anchor:
        return anchored[len(anchor) :]
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def decode_answer(tokenizer: PreTrainedTokenizerBase, token: int) -> str | None:
    """The text that a token adds to a prompt, with its leading space; the counterpart of :func:`encode_answer`.

    None where the id is beyond the vocabulary, a special token, or a part of a character alone.
    """
    if token >= len(tokenizer) or token in tokenizer.all_special_ids:
        return None
    anchor: list[int] = list(tokenizer(ANCHOR, add_special_tokens=False)["input_ids"])
    before, after = (
        str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for ids in (anchor, [*anchor, token])
    )
    text = after.removeprefix(before)
    return text if text and "\N{REPLACEMENT CHARACTER}" not in text else None
