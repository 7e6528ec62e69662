"""Prompts and answers as token ids, for the kinds of tokenizer that the sources bring."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPTNeoXConfig, PreTrainedTokenizerFast

from circuitdrift.models.embedded_tokenizer import build_tokenizer
from circuitdrift.models.manifest import write_manifest
from circuitdrift.models.tokenizer import load_tokenizer
from circuitdrift.tasks.tokenization import decode_answer, encode_answer, encode_prompt

TEXTS = ["72 - 46 =", "Is 121 > 112? Answer: Yes", "Kelly wanted pan, Daniel handed brush to Robert"]


def word_level(bos: bool = True, eos_behind: bool = False) -> PreTrainedTokenizerFast:
    """Like the scratch model's: whole numbers and words, ``<eos>`` in front."""
    words = ["<eos>", "<unk>", "=", "+", "-", "to", *map(str, range(100))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    pattern = Regex(r"\d+|[A-Za-z']+|[^\sA-Za-z\d]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "removed", invert=True)
    template = f"{'<eos> ' if bos else ''}$A{' <eos>' if eos_behind else ''}"
    tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=[("<eos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


def byte_level() -> PreTrainedTokenizerFast:
    """Like those of GPT-2, Pythia and SmolLM2: a word's token holds the space before it, no BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def sentence_piece() -> PreTrainedTokenizerFast:
    """Like Llama 2's: BOS in front, and a space of its own before whatever text comes first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"])
    tokenizer.train_from_iterator(TEXTS * 50, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def test_word_level_prompt_keeps_its_bos_and_answer_has_none() -> None:
    tokenizer = word_level()
    assert tokenizer.convert_ids_to_tokens(encode_prompt(tokenizer, "72 - 46 =")) == ["<eos>", "72", "-", "46", "="]
    assert tokenizer.convert_ids_to_tokens(encode_answer(tokenizer, " 26")) == ["26"]
    assert encode_answer(tokenizer, "26") == encode_answer(tokenizer, " 26")


def test_nothing_is_put_in_front_where_the_tokenizer_puts_nothing() -> None:
    tokenizer = byte_level()
    assert tokenizer.decode(encode_prompt(tokenizer, "72 - 46 =")) == "72 - 46 ="


def test_a_token_that_ends_the_text_is_dropped_since_the_answer_follows() -> None:
    assert encode_prompt(word_level(eos_behind=True), "72 -") == encode_prompt(word_level(), "72 -")
    assert encode_prompt(word_level(bos=False, eos_behind=True), "72 -") == encode_prompt(word_level(), "72 -")[1:]


def test_an_empty_prompt_still_has_its_bos() -> None:
    assert encode_prompt(word_level(), "") == [0]


@pytest.mark.parametrize("make", [word_level, byte_level, sentence_piece, lambda: build_tokenizer(200)])
def test_the_text_of_an_id_is_what_it_adds_to_a_prompt(make: object) -> None:
    tokenizer = make()  # type: ignore[operator]
    ids = [token for token in encode_prompt(tokenizer, TEXTS[0]) if token not in tokenizer.all_special_ids]
    texts = [decode_answer(tokenizer, token) for token in ids]
    assert None not in texts
    assert "".join(map(str, texts)).strip() == TEXTS[0]
    outside = [len(tokenizer), *tokenizer.all_special_ids]
    assert [decode_answer(tokenizer, token) for token in outside] == [None] * len(outside)


def test_a_part_of_a_character_is_no_text() -> None:
    tokenizer = byte_level()
    part = encode_answer(tokenizer, "\N{SNOWMAN}")[0]
    assert decode_answer(tokenizer, part) is None


@pytest.mark.parametrize("make", [word_level, byte_level, sentence_piece, lambda: build_tokenizer(200)])
@pytest.mark.parametrize(("prompt", "answer"), [("72 - 46 =", " 26"), ("handed brush to", " Robert"), ("1 =", "7")])
def test_prompt_and_answer_together_are_the_whole_text(make: object, prompt: str, answer: str) -> None:
    tokenizer = make()  # type: ignore[operator]
    whole = encode_prompt(tokenizer, prompt + answer)
    assert encode_prompt(tokenizer, prompt) + encode_answer(tokenizer, answer) == whole


def test_embedded_tokenizer_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(200)
    tokenizer.save_pretrained(tmp_path)
    GPTNeoXConfig().save_pretrained(tmp_path)
    files = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    write_manifest(
        tmp_path / "manifest.json", source={"source": "scratch"}, folder=tmp_path, files=files, dtype="float32"
    )
    again = load_tokenizer(tmp_path / "manifest.json")
    for text in TEXTS:
        assert encode_prompt(again, text) == encode_prompt(tokenizer, text)
        assert encode_answer(again, " 26") == [tokenizer.convert_tokens_to_ids("26")]
