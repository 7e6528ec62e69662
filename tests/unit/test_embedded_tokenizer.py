from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from circuitdrift.config.models import ScratchModel
from circuitdrift.models.embedded_model import build_model
from circuitdrift.models.embedded_tokenizer import END_OF_TEXT, UNKNOWN, build_tokenizer, vocabulary
from circuitdrift.tasks.tokenization import encode_answer, encode_prompt

INSTRUCTION = "Calculate the result of the following arithmetic expression and provide only the final answer:"
PROMPTS = {
    f"{INSTRUCTION} 72 - 46 =": 20,
    f"{INSTRUCTION} (61 - 45) * 45 =": 24,
    "Derive the following sequence: 152, 157, 162, 167,": 14,
    "Calculate the least common multiple (LCM) of two numbers. LCM(20, 160) = 160, LCM(8, 64) =": 29,
    "There is a function y=5x+75. Given x=1,2,3,4, y=80,85,90,": 31,
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer(500)


def test_prompts_of_the_paper_are_known_and_short(tokenizer: PreTrainedTokenizerBase) -> None:
    for prompt, length in PROMPTS.items():
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt)["input_ids"])
        assert len(tokens) == length, prompt
        assert tokens[0] == END_OF_TEXT
        assert UNKNOWN not in tokens


def test_every_integer_up_to_the_largest_is_one_token(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = [encode_answer(tokenizer, f" {number}") for number in range(501)]
    assert all(len(one) == 1 for one in ids)
    assert [one[0] - ids[0][0] for one in ids] == list(range(501))
    assert encode_answer(tokenizer, " 501") == [tokenizer.unk_token_id]


def test_the_tokenizer_adds_its_bos_itself_and_once(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0
    assert encode_prompt(tokenizer, "5 + 6 =").count(0) == 1
    assert 0 not in encode_answer(tokenizer, " 11")


def test_auto_tokenizer_loads_what_was_saved(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    section = ScratchModel(source="scratch", layers=1, heads=2, width=16, mlp_width=16)
    build_model(section).config.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for prompt in PROMPTS:
        assert loaded(prompt)["input_ids"] == tokenizer(prompt)["input_ids"]


def test_vocabulary_holds_each_token_once_with_the_numbers_last() -> None:
    ids = vocabulary(20)
    assert sorted(ids.values()) == list(range(len(ids)))
    assert list(ids)[-21:] == [str(number) for number in range(21)]
