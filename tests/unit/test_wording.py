"""The second wording of a task: the same operands, answers and order under another instruction, in known words."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from pydantic import TypeAdapter

from circuitdrift.config.study import StudyConfig
from circuitdrift.models.embedded_tokenizer import build_tokenizer
from circuitdrift.study import Study
from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Example
from circuitdrift.tasks.families import TaskConfig
from circuitdrift.tasks.generation import generate_examples
from circuitdrift.tasks.wording import Wording, WordingError, reword_examples

SIZES = {"train": 40, "circuit": 24, "test": 20}
COMPOSITIONAL = {"family": "compositional", **SIZES}
REWORDED = {
    "add_sub": {"family": "add_sub", **SIZES},
    "mul_div": {"family": "mul_div", "max_result": 500, **SIZES},
    "compositional": COMPOSITIONAL,
    "sub_add_sub": {"family": "sub_task", "of": "compositional", "part": "add_sub", **SIZES},
    "sequence": {"family": "sequence", **SIZES},
    "lcm": {"family": "lcm", **SIZES},
}
ENCODING = Encoding.of(build_tokenizer(500))


def task_of(name: str) -> TaskConfig:
    return TypeAdapter(TaskConfig).validate_python(REWORDED[name])


def circuit_split(name: str) -> pd.DataFrame:
    found = generate_examples(task_of(name), ENCODING, CompositionalTask(**COMPOSITIONAL))["circuit"]
    frame = pd.DataFrame([vars(example) for example in found], columns=list(Example.__annotations__))
    return frame.assign(example_id=range(len(frame)))


@pytest.mark.parametrize("name", REWORDED)
def test_nothing_but_the_instruction_changes_and_every_word_is_known(name: str) -> None:
    wording = task_of(name).wording
    before = circuit_split(name)
    after = reword_examples(before, wording, ENCODING)
    prompts = ["clean", "corrupted", "clean_ids", "corrupted_ids"]
    pd.testing.assert_frame_equal(after.drop(columns=prompts), before.drop(columns=prompts))
    for row in range(len(before)):
        for side in ("clean", "corrupted"):
            old, new = before.loc[row, side], after.loc[row, side]
            assert new.startswith(wording.second)
            assert new.removeprefix(wording.second) == old.removeprefix(wording.first) != old
            assert re.findall(r"\d+|[-+*/]", new) == re.findall(r"\d+|[-+*/]", old)
            assert after.loc[row, f"{side}_ids"] == ENCODING.prompt(new)
            assert ENCODING.unknown_id not in ENCODING.prompt(new)
        assert len(after.loc[row, "clean_ids"]) == len(after.loc[row, "corrupted_ids"])
    assert len(after) > 20


def test_every_second_wording_ends_in_the_sign_of_the_first() -> None:
    for name in REWORDED:
        wording = task_of(name).wording
        assert wording.first[-1] == wording.second[-1]
        assert wording.first != wording.second


def test_families_without_an_instruction_have_no_second_wording(tmp_path: Path) -> None:
    tasks = {**REWORDED, "f": {"family": "function"}, "own": {"family": "file", "path": tmp_path / "p.csv"}}
    study = Study(StudyConfig(tasks=tasks))
    assert study.reworded_tasks == tuple(REWORDED)


@pytest.mark.parametrize(
    ("wording", "message"),
    [
        (Wording("Work out", "Given"), "does not begin with 'Work out'"),
        (Wording("Calculate the result", "Compute the outcome"), "outside the vocabulary"),
    ],
)
def test_what_cannot_be_reworded_is_refused(wording: Wording, message: str) -> None:
    with pytest.raises(WordingError, match=message):
        reword_examples(circuit_split("add_sub"), wording, ENCODING)


def test_a_wording_that_parts_a_pair_in_unequal_tokens_is_refused() -> None:
    uneven = Encoding(lambda prompt: list(range(len(prompt))), lambda answer: [1])
    with pytest.raises(WordingError, match=r"tokens, its corrupted prompt \d+"):
        reword_examples(circuit_split("mul_div"), task_of("mul_div").wording, uneven)
