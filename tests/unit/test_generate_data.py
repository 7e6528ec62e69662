"""The stage that writes a task's three tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

import generate_data
from circuitdrift.models.embedded_tokenizer import build_tokenizer
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table
from circuitdrift.tasks.add_sub import AddSubTask
from circuitdrift.tasks.capital_country import CapitalCountryTask
from circuitdrift.tasks.comparison import ComparisonTask
from circuitdrift.tasks.complex_ioi import ComplexIoiTask
from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.families import TaskConfig
from circuitdrift.tasks.from_file import FileTask
from circuitdrift.tasks.function import FunctionTask
from circuitdrift.tasks.lcm import LcmTask
from circuitdrift.tasks.mul_div import MulDivTask
from circuitdrift.tasks.sequence import SequenceTask
from circuitdrift.tasks.sub_tasks import SubTask
from circuitdrift.tasks.wording import WordingError

SIZES = {"train": 60, "circuit": 10, "test": 20}


@pytest.fixture(autouse=True)
def tokenizer_of_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_data, "load_tokenizer", lambda manifest: build_tokenizer(500))


def write(
    folder: Path,
    task: TaskConfig,
    prompts: Path | None = None,
    parent: CompositionalTask | None = None,
    folds: int = 4,
    reworded: Path | None = None,
):
    paths = [folder / f"{split}.parquet" for split in ("train", "circuit", "test")]
    origin = Provenance.detached(task="t")
    generate_data.main(Path("manifest.json"), prompts, *paths, reworded, None, task, parent, folds, origin)
    return [read_table(path, "examples") for path in paths]


def test_tables_hold_the_schema_with_ids_that_name_one_example_each(tmp_path: Path) -> None:
    tables = write(tmp_path, AddSubTask(family="add_sub", **SIZES))
    assert [len(table) for table in tables] == [60, 10, 20]
    assert [i for table in tables for i in table["example_id"]] == list(range(90))
    for table in tables:
        assert (table["clean_ids"].map(len) == table["corrupted_ids"].map(len)).all()
        assert (table["answer_ids"].map(len) == 1).all()


def test_the_same_task_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, AddSubTask(family="add_sub", **SIZES))
    for split in ("train", "circuit", "test"):
        assert (tmp_path / "a" / f"{split}.parquet").read_bytes() == (tmp_path / "b" / f"{split}.parquet").read_bytes()


COMPOSITIONAL = CompositionalTask(family="compositional", train=200, circuit=50, test=60)
EVERY_FAMILY = [
    AddSubTask(family="add_sub", **SIZES),
    MulDivTask(family="mul_div", max_result=500, **SIZES),
    SequenceTask(family="sequence", max_term=500, **SIZES),
    LcmTask(family="lcm", **SIZES),
    FunctionTask(family="function", **SIZES),
    COMPOSITIONAL,
    SubTask(family="sub_task", of="c", part="add_sub", **SIZES),
    SubTask(family="sub_task", of="c", part="mul_div", **SIZES),
]


OF_OTHER_WORDS = {ComparisonTask, ComplexIoiTask, CapitalCountryTask}
"""Families whose words the embedded model lacks; tests/unit/test_tasks.py has them."""


def test_every_family_is_among_those_tested() -> None:
    union = get_args(get_args(TaskConfig)[0])
    assert {type(task) for task in EVERY_FAMILY} | OF_OTHER_WORDS | {FileTask} == set(union)


@pytest.mark.parametrize("task", EVERY_FAMILY, ids=lambda task: f"{task.family}-{getattr(task, 'part', '')}")
@pytest.mark.parametrize("folds", [4, 7])
def test_folds_of_every_family_are_alike_in_kind(tmp_path: Path, task: TaskConfig, folds: int) -> None:
    for table in write(tmp_path, task, parent=COMPOSITIONAL, folds=folds):
        assert (table["kind"] != "").all()
        counts = [Counter(table["kind"][fold::folds]) for fold in range(folds)]
        for kind in set(table["kind"]):
            of_folds = [count[kind] for count in counts]
            assert max(of_folds) - min(of_folds) <= 1, kind


def test_kinds_do_not_alternate_with_the_rows(tmp_path: Path) -> None:
    train = write(tmp_path, AddSubTask(family="add_sub", train=200, circuit=10, test=10))[0]
    even = Counter(train["kind"][::2])
    assert set(even) == {"+", "-"}
    assert abs(even["+"] - even["-"]) <= 4


def test_a_sub_task_needs_its_parent(tmp_path: Path) -> None:
    task = SubTask(family="sub_task", of="c", part="mul_div", **SIZES)
    assert all(len(t) for t in write(tmp_path, task, parent=CompositionalTask(family="compositional", **SIZES)))
    with pytest.raises(ValueError, match="compositional task 'c' was not given"):
        write(tmp_path, task)


def test_a_file_task_reads_the_file_that_the_rule_names(tmp_path: Path) -> None:
    lines = [f"Calculate {i} + 1 =,Calculate {i} + 2 =, {i + 1}" for i in range(20)]
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("\n".join(["clean,corrupted,answer", *lines]))
    tables = write(tmp_path, FileTask(family="file", path=Path("elsewhere.csv"), **SIZES), prompts=prompts)
    assert sum(map(len, tables)) == 20
    assert {kind for table in tables for kind in table["kind"]} == {"row"}
    assert all((table["corrupted_answer"] == "").any() for table in tables)


def test_the_reworded_circuit_split_has_the_same_examples_in_the_same_order(tmp_path: Path) -> None:
    circuit = write(tmp_path, LcmTask(family="lcm", **SIZES), reworded=tmp_path / "reworded.parquet")[1]
    reworded = read_table(tmp_path / "reworded.parquet", "examples")
    assert reworded["example_id"].tolist() == circuit["example_id"].tolist()
    assert reworded["kind"].tolist() == circuit["kind"].tolist()
    assert all(text.startswith("Given two numbers") for text in reworded["clean"])
    assert not set(reworded["clean"]) & set(circuit["clean"])


def test_a_family_without_a_second_wording_is_not_reworded(tmp_path: Path) -> None:
    with pytest.raises(WordingError, match="family function has no second wording"):
        write(tmp_path, FunctionTask(family="function", **SIZES), reworded=tmp_path / "reworded.parquet")
