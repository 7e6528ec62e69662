"""Tasks from a user's file: what is read, how it is split, and every error with its row and fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.from_file import FileTask, examples_from_file
from circuitdrift.tasks.prompt_file import PromptFileError, check_prompt_file

WORDS = ["Paris", "Rome", "Oslo", "Bern"]


def encode_prompt(text: str) -> list[int]:
    return [len(word) for word in text.split()]


def encode_answer(text: str) -> list[int]:
    """One token with a leading space, one for each letter without; 'Nowhere' is not known."""
    if text == " Nowhere":
        return [0]
    return [sum(map(ord, text))] if text.startswith(" ") and " " not in text[1:] else [ord(c) for c in text]


ENCODING = Encoding(encode_prompt, encode_answer, unknown_id=0)


def frame(n: int = 20) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "clean": [f"Country number {i} has the capital" for i in range(n)],
            "corrupted": [f"Country number {i + 100} has the capital" for i in range(n)],
            "answer": [f" {WORDS[i % 4]}" for i in range(n)],
            "corrupted_answer": [f" {WORDS[(i + 1) % 4]}" for i in range(n)],
        }
    )


def task(path: Path, **sizes: int) -> FileTask:
    return FileTask(family="file", path=path, **sizes)


def csv(tmp_path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(tmp_path / "prompts.csv", index=False)
    return tmp_path / "prompts.csv"


def test_answers_of_several_tokens_are_taken_where_the_task_allows_them(tmp_path: Path) -> None:
    table = frame()
    table.loc[3, "answer"] = " New York"
    path = csv(tmp_path, table)
    several = Encoding(encode_prompt, encode_answer, unknown_id=0, answer_tokens="any")
    splits = examples_from_file(task(path), several)
    lengths = {e.answer: len(e.answer_ids) for members in splits.values() for e in members}
    assert lengths[" New York"] == 9
    assert lengths[" Paris"] == 1
    table.loc[4, "answer"] = " Nowhere"
    with pytest.raises(PromptFileError, match="' Nowhere' is outside the model's vocabulary"):
        examples_from_file(task(csv(tmp_path, table)), several)


def test_a_smaller_file_is_shared_out_in_proportion_and_always_in_the_same_way(tmp_path: Path) -> None:
    path = csv(tmp_path, frame(100))
    splits = examples_from_file(task(path, train=700, circuit=100, test=200), ENCODING)
    assert {split: len(members) for split, members in splits.items()} == {"train": 70, "circuit": 10, "test": 20}
    assert len({e.clean for members in splits.values() for e in members}) == 100
    assert examples_from_file(task(path, train=700, circuit=100, test=200), ENCODING) == splits
    assert examples_from_file(task(path, train=700, circuit=100, test=200, seed=1), ENCODING) != splits


def test_the_circuit_split_of_a_small_file_gets_the_rows_that_its_folds_need(tmp_path: Path) -> None:
    for rows, sizes in ((6, [1, 4, 1]), (12, [7, 4, 1]), (47, [40, 4, 3])):
        splits = examples_from_file(task(csv(tmp_path, frame(rows)), train=4000, circuit=50, test=300), ENCODING)
        assert [len(splits[split]) for split in ("train", "circuit", "test")] == sizes


def test_no_split_of_a_small_file_is_empty_however_unequal_the_sizes_asked_for(tmp_path: Path) -> None:
    splits = examples_from_file(task(csv(tmp_path, frame(48)), train=1, circuit=200, test=100), ENCODING)
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 1, "circuit": 32, "test": 15}


def test_text_is_taken_verbatim_from_csv_and_parquet_alike(tmp_path: Path) -> None:
    table = frame()
    table.loc[0, "clean"] = 'He said "no, thanks" in 2020, then'
    table.loc[0, "corrupted"] = 'He said "oh, thanks" in 2020, then'
    table.to_parquet(tmp_path / "prompts.parquet")
    from_csv = examples_from_file(task(csv(tmp_path, table)), ENCODING)
    assert examples_from_file(task(tmp_path / "prompts.parquet"), ENCODING) == from_csv
    assert {e.clean for m in from_csv.values() for e in m} == set(table["clean"])
    assert {e.answer for m in from_csv.values() for e in m} == set(table["answer"])


def test_a_larger_file_gives_the_sizes_asked_for(tmp_path: Path) -> None:
    splits = examples_from_file(task(csv(tmp_path, frame(50)), train=10, circuit=5, test=7), ENCODING)
    assert {split: len(members) for split, members in splits.items()} == {"train": 10, "circuit": 5, "test": 7}


def test_given_splits_are_kept_and_cut_to_the_sizes_asked_for(tmp_path: Path) -> None:
    table = frame(30).assign(split=["train"] * 15 + ["circuit"] * 8 + ["test"] * 7)
    splits = examples_from_file(task(csv(tmp_path, table), circuit=5), ENCODING)
    assert {split: len(members) for split, members in splits.items()} == {"train": 15, "circuit": 5, "test": 7}
    for split, members in splits.items():
        assert {e.clean for e in members} <= set(table.loc[table["split"] == split, "clean"])


def test_label_is_answer_and_the_corrupted_answer_may_be_unknown(tmp_path: Path) -> None:
    table = frame().drop(columns="corrupted_answer").rename(columns={"answer": "label"})
    table.loc[3, "corrupted"] = table.loc[4, "clean"]
    found = {e.clean: e for m in examples_from_file(task(csv(tmp_path, table)), ENCODING).values() for e in m}
    assert found[table.loc[3, "clean"]].corrupted_answer == table.loc[4, "label"]
    assert found[table.loc[5, "clean"]].corrupted_answer == ""
    assert found[table.loc[5, "clean"]].corrupted_answer_ids == ()


def changed(row: int, column: str, text: object) -> pd.DataFrame:
    table = frame().assign(split=["train"] * 10 + ["circuit"] * 5 + ["test"] * 5)
    table.loc[row, column] = text
    return table


def of_row(table: pd.DataFrame, row: int, source: int, *columns: str) -> pd.DataFrame:
    for column in columns:
        table.loc[row, column] = table.loc[source, column]
    return table


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (frame().rename(columns={"corrupted": "corupted"}), "unknown column 'corupted'; did you mean 'corrupted'?"),
        (frame().rename(columns={"corrupted_answer": "corrupted_anser"}), "did you mean 'corrupted_answer'?"),
        (frame().drop(columns="answer"), "has no column 'answer' (or 'label')"),
        (frame().assign(label=" Paris"), "has both columns 'answer' and 'label'"),
        (frame(3), "has 3 rows; train, circuit and test need at least 6"),
        (changed(2, "clean", ""), "row 3: 'clean' is empty"),
        (changed(2, "answer", " "), "row 3: 'answer' is empty"),
        (changed(2, "corrupted", "Country number 2 has the capital"), "row 3: clean and corrupted prompt are the same"),
        (changed(2, "corrupted_answer", " Oslo"), "row 3: answer and corrupted_answer are the same"),
        (changed(2, "split", "trian"), "row 3: unknown split 'trian'; did you mean 'train'?"),
        (changed(2, "split", "x"), "row 3: unknown split 'x'; use one of train, circuit, test"),
        (frame().assign(split="train"), "no row belongs to split 'circuit'"),
        (
            frame().assign(split=["train"] * 9 + ["circuit"] * 3 + ["test"] * 8),
            "split 'circuit' has 3 rows, at least 4",
        ),
        (of_row(changed(0, "split", "train"), 19, 2, "clean"), "row 20: the clean prompt"),
        (of_row(frame(), 8, 4, "clean", "corrupted"), "row 9: repeats the prompts of row 5"),
        (of_row(frame(), 9, 4, "clean"), "give both rows the same answer"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_problems_are_found_without_a_tokenizer(
    tmp_path: Path, table: pd.DataFrame, expected: str, suffix: str
) -> None:
    path = tmp_path / f"prompts.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    problems = check_prompt_file(path)
    assert any(expected in problem for problem in problems), problems
    assert all(str(path) in problem for problem in problems)
    with pytest.raises(PromptFileError):
        examples_from_file(task(path), ENCODING)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"clean,corrupted,answer\na,b, c, d\n", "row 1: has 4 cells, the header has 3"),
        ("a.csv", b"clean,corrupted,answer\n\xff\xfe,b, c\n", "is not UTF-8"),
        ("a.csv", b'clean,corrupted,answer\n"a,b, c\n', "is not valid CSV"),
        ("a.csv", b"clean,clean,answer\na,b, c\n", "'clean' occurs twice"),
        ("a.parquet", b"PAR1 no", "is not a readable Parquet file"),
        ("a.xlsx", b"", "neither .csv nor .parquet"),
    ],
)
def test_unreadable_files_are_explained(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert any(expected in problem for problem in check_prompt_file(tmp_path / name))


def test_a_missing_file_and_numbers_for_answers_are_explained(tmp_path: Path) -> None:
    assert "no such file" in check_prompt_file(tmp_path / "none.csv")[0]
    frame().assign(answer=range(20)).to_parquet(tmp_path / "numbers.parquet")
    assert "'answer' holds int64, not text" in check_prompt_file(tmp_path / "numbers.parquet")[0]
    assert check_prompt_file(csv(tmp_path, frame())) == []


@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("corrupted", "Country has the capital", "row 3: the clean prompt has 6 tokens, the corrupted prompt 4"),
        (
            "answer",
            "Oslo",
            "row 3: answer 'Oslo' is 4 tokens; with a leading space it is one token: write ' O",
        ),
        ("answer", " New York", "row 3: answer ' New York' is 9 tokens; choose an answer of one token"),
        ("corrupted_answer", "Rome", "row 3: corrupted_answer 'Rome' is 4 tokens"),
        ("answer", " Nowhere", "row 3: answer ' Nowhere' is outside the model's vocabulary"),
    ],
)
def test_rows_that_do_not_fit_the_tokenizer_are_errors(tmp_path: Path, column: str, text: str, expected: str) -> None:
    table = frame()
    table.loc[2, column] = text
    path = csv(tmp_path, table)
    assert check_prompt_file(path) == []
    with pytest.raises(PromptFileError) as error:
        examples_from_file(task(path), ENCODING)
    assert f"{path}, {expected}" in str(error.value)


def test_the_check_is_cheap_enough_for_the_snakefile() -> None:
    code = "import sys, circuitdrift.tasks.prompt_file; print({'torch', 'transformers', 'pandas'} & set(sys.modules))"
    folder = Path(__file__).parents[2] / "workflow_scripts"
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
