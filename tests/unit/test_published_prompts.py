"""Task files as others publish them: their columns, answers as token ids or none at all, and rows that do not fit.

The rows are made up; the columns are those of EAP-IG, of its study of faithfulness, and of the paper's repository.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

import generate_data
from circuitdrift.models.embedded_tokenizer import build_tokenizer, vocabulary
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Example
from circuitdrift.tasks.from_file import FileExamples, FileTask, examples_from_file, problems_of_file
from circuitdrift.tasks.prompt_columns import PromptFileError, read_columns

TOKENIZER = build_tokenizer(500)
ENCODING = Encoding.of(TOKENIZER)
IDS = vocabulary(500)
NAMES = ["box", "shelf", "room", "code", "page", "row"]
"""Words that are tokens of the embedded model."""

N = 24


def prompts() -> pd.DataFrame:
    clean = [f"from {NAMES[i % 6]} {i} to" for i in range(N)]
    return pd.DataFrame({"clean": clean, "corrupted": [text.replace("from", "after") for text in clean]})


def ids(shift: int = 0) -> list[int]:
    return [IDS[NAMES[(i + shift) % 6]] for i in range(N)]


def greater_than() -> pd.DataFrame:
    """``correct_idx`` is no id here, but the year that the answer must exceed."""
    years = [10 + i for i in range(N)]
    clean = [f"from row 3{year} to row 3" for year in years]
    return prompts().assign(clean=clean, corrupted="from row 301 to row 3", correct_idx=years)


PUBLISHED = {
    "ioi": prompts()
    .assign(corrupted_hard="other", correct_idx=ids(), incorrect_idx=ids(1))
    .set_index(pd.Index(range(900, 900 + N), name="")),
    "gender_bias": prompts().assign(clean_answer_idx=ids(), corrupted_answer_idx=ids(1), label=[0, 1] * (N // 2)),
    "fact_retrieval": prompts().assign(
        capital="x", country=[NAMES[i % 6] for i in range(N)], country_idx=ids(), corrupted_country_idx=ids(1)
    ),
    "hypernymy": prompts().assign(
        answers="['a', 'b']",
        answers_idx=[f"[{i}, 3]" for i in ids()],
        corrupted_answers="['c']",
        corrupted_answers_idx=[f"[{i}]" for i in ids(1)],
        clean2="x",
        prob_diff=0.1,
    ),
}


def write(folder: Path, table: pd.DataFrame, suffix: str = "csv") -> Path:
    path = folder / f"prompts.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=table.index.name is not None)
    elif suffix == "parquet":
        table.to_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in table.to_dict("records")))
    return path


def task(path: Path, **settings: object) -> FileTask:
    return FileTask.model_validate({"family": "file", "path": path, "circuit": 8, "test": 8, "train": 8, **settings})


def read(path: Path, **settings: object) -> FileExamples:
    return examples_from_file(task(path, **settings), ENCODING)


def examples(found: FileExamples) -> list[Example]:
    return [example for members in found.splits.values() for example in members]


@pytest.mark.parametrize("name", PUBLISHED)
def test_answers_that_are_token_ids_are_read_as_they_are_published(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, PUBLISHED[name])
    assert problems_of_file(task(path)) == []
    with caplog.at_level(logging.INFO):
        found = examples(read(path))
    assert len(found) == N
    order = {text: i for i, text in enumerate(PUBLISHED[name]["clean"])}
    for example in found:
        i = order[example.clean]
        assert (example.answer, example.answer_ids) == (f" {NAMES[i % 6]}", (ids()[i],))
        assert (example.corrupted_answer, example.corrupted_answer_ids) == (f" {NAMES[(i + 1) % 6]}", (ids(1)[i],))
    assert f"from token ids, such as {ids()[0]} ' box' after" in caplog.text


def test_other_columns_are_ignored_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read(write(tmp_path, PUBLISHED["ioi"]))
    assert [line for line in caplog.messages if "ignored" in line] == [
        "prompts.csv: ignored the columns (unnamed), corrupted_hard"
    ]


def test_the_formats_give_the_same_examples(tmp_path: Path) -> None:
    table = prompts().assign(answer=[f" {NAMES[i % 6]}" for i in range(N)], other=[[1]] * N)
    found = [read(write(tmp_path, table, suffix)) for suffix in ("csv", "parquet", "jsonl")]
    assert found[0] == found[1] == found[2]
    lists = prompts().assign(answers_idx=[[i, 3] for i in ids()])
    assert read(write(tmp_path, lists, "jsonl")) == read(write(tmp_path, lists, "parquet"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ('{"clean": "a"\n', "row 1: is no JSON object"),
        ('{"clean": "a", "corrupted": "b"}\n[1]\n', "row 2: is no JSON object"),
        ('{"clean": "a", "answer": " b"}', "no column 'corrupted'"),
        ('{"clean": "a", "corrupted": "b", "answer": 26}', "'answer' holds int, not text"),
    ],
)
def test_json_lines_that_cannot_be_read_are_explained(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    assert any(expected in problem for problem in problems_of_file(task(path)))


def test_a_number_of_the_prompt_is_not_taken_for_a_token_id(tmp_path: Path) -> None:
    path = write(tmp_path, greater_than())
    (problem,) = problems_of_file(task(path))
    assert "row 1: correct_idx is 10, a number of its prompt" in problem
    assert "answers to none" in problem
    found = examples(read(path, answers="none"))
    assert len(found) == 16
    assert all(example.answer_ids == () for example in found)


def test_a_text_and_an_id_must_agree(tmp_path: Path) -> None:
    table = prompts().assign(answer=[f" {NAMES[i % 6]}" for i in range(N)], answer_idx=ids())
    assert examples(read(write(tmp_path, table)))[0].answer.strip() in NAMES
    table.loc[3, "answer_idx"] = 9
    with pytest.raises(PromptFileError, match="row 4: answer ' code' does not begin with its id 9"):
        read(write(tmp_path, table))


@pytest.mark.parametrize("token", [len(IDS), IDS["<eos>"]])
def test_ids_of_another_tokenizer_are_explained(tmp_path: Path, token: int) -> None:
    table = prompts().assign(correct_idx=ids())
    table.loc[2, "correct_idx"] = token
    with pytest.raises(
        PromptFileError, match=rf"row 3: the id {token} of answer is no text .* belong to one tokenizer"
    ):
        read(write(tmp_path, table))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"answer": " box", "label": " box"}, "both columns 'answer' and 'label'"),
        ({"answer_idx": 7, "correct_idx": 7}, "both columns 'answer_idx' and 'correct_idx'"),
        ({"incorrect_idx": 7}, "corrupted prompts alone"),
        ({"answr": " box"}, "did you mean 'answer'"),
        ({"splits": "train"}, "did you mean 'split'"),
    ],
)
def test_columns_that_contradict_or_nearly_mean_something_are_refused(
    tmp_path: Path, columns: dict[str, object], expected: str
) -> None:
    path = write(tmp_path, prompts().assign(**columns))
    assert any(expected in problem for problem in problems_of_file(task(path)))


def faulty() -> pd.DataFrame:
    """Rows with one fault each; the comment of each line is the reason that counts."""
    table = prompts().assign(answer=[f" {NAMES[i % 6]}" for i in range(N)])
    table.loc[2, "answer"] = ""  # value missing
    table.loc[3, "corrupted"] = table.loc[3, "clean"]  # corruption changes nothing
    table.loc[4, "clean"] = "from 999 4 to"  # text outside the vocabulary
    table.loc[5, "corrupted"] = "to"  # prompts differ in tokens
    table.loc[6, "answer"] = " box 7"  # answer of several tokens
    table.loc[8, ["clean", "corrupted"]] = table.loc[7, ["clean", "corrupted"]]  # prompt repeated
    table.loc[9, "corrupted"] = "to"
    table.loc[9, "answer"] = ""  # value missing, before prompts differ in tokens
    table.loc[10, ["clean", "corrupted", "answer"]] = [*table.loc[2, ["clean", "corrupted"]], " shelf"]
    return table  # row 10 repeats row 2, which is left out, so it stays


REASONS = {
    2: "value missing",
    3: "corruption changes nothing",
    4: "text outside the vocabulary",
    5: "prompts differ in tokens",
    6: "answer of several tokens",
    8: "prompt repeated",
    9: "value missing",
}


def test_rows_that_do_not_fit_are_left_out_and_counted_where_the_task_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, faulty())
    with pytest.raises(PromptFileError) as refused:
        read(path)
    assert all(f"row {row + 1}:" in str(refused.value) for row in REASONS)
    assert problems_of_file(task(path, invalid_rows="drop")) == []
    with caplog.at_level(logging.INFO):
        found = read(path, invalid_rows="drop")
    assert {fault.row: fault.reason for fault in found.dropped} == REASONS
    (line,) = [line for line in caplog.messages if "left out" in line]
    assert line.startswith("prompts.csv: left out 7 of 24 rows (value missing 2, corruption changes nothing 1, ")
    kept = faulty().drop(index=list(REASONS))
    assert Counter(example.clean for example in examples(found)) == Counter(kept["clean"])
    assert read(write(tmp_path, kept)).splits == found.splits


def test_rows_with_too_many_cells_are_left_out_too(tmp_path: Path) -> None:
    path = write(tmp_path, prompts().assign(answer=" box"))
    path.write_text(path.read_text() + "a,b,c,d\n")
    (fault,) = read(path, invalid_rows="drop").dropped
    assert (fault.row, fault.reason) == (N, "cells unlike the header")


@pytest.mark.parametrize("splits", [None, ["train"] * 8 + ["circuit"] * 8 + ["test"] * 8])
def test_a_task_that_is_left_with_too_few_rows_says_so(tmp_path: Path, splits: list[str] | None) -> None:
    table = prompts().assign(answer=" box")
    table.loc[3:20, "corrupted"] = "to"
    table = table if splits is None else table.assign(split=splits)
    path = write(tmp_path, table.iloc[:8] if splits is None else table)
    message = {True: "has 3 rows; train, circuit and test need at least 6", False: "no row belongs to split 'circuit'"}
    with pytest.raises(PromptFileError, match=message[splits is None]) as refused:
        read(path, invalid_rows="drop")
    assert f"of {8 if splits is None else 24} rows that are left out (prompts differ in tokens" in str(refused.value)


def test_rows_of_one_prompt_cannot_fill_several_splits(tmp_path: Path) -> None:
    corrupted = [f"after box {i} to" for i in range(N)]
    path = write(tmp_path, prompts().assign(clean="from box 1 to", corrupted=corrupted, answer=" box"))
    assert problems_of_file(task(path)) == []
    with pytest.raises(PromptFileError, match="split train gets 0 rows, at least 1 are needed; rows with one clean"):
        read(path)


def test_one_row_stays_for_training_where_the_task_asks_for_no_more(tmp_path: Path) -> None:
    path = write(tmp_path, prompts().assign(answer=" box"))
    sizes = [len(members) for members in read(path, train=1, circuit=200, test=500).splits.values()]
    assert sizes == [1, 7, 16]


def test_an_unknown_split_is_refused_even_where_rows_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, prompts().assign(split="validation"))
    assert "unknown split 'validation'" in problems_of_file(task(path, invalid_rows="drop"))[0]


def test_prompts_without_answers_are_never_for_training(tmp_path: Path) -> None:
    """The columns of the agreement task of EAP-IG's study, whose answers are classes of words."""
    path = write(tmp_path, prompts().assign(group="simple", plural=[0, 1] * (N // 2)))
    assert {split: len(members) for split, members in read(path).splits.items()} == {
        "train": 0, "circuit": 8, "test": 8,
    }  # fmt: skip
    few = read(path, circuit=200, test=500, train=4000).splits
    assert [len(few[split]) for split in ("train", "circuit", "test")] == [0, 7, 17]
    with_splits = write(tmp_path, prompts().assign(split=["circuit"] * 12 + ["test"] * 12))
    assert [len(members) for members in read(with_splits).splits.values()] == [0, 8, 8]


def test_the_stage_lists_the_rows_that_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_data, "load_tokenizer", lambda manifest: TOKENIZER)
    path, empty = write(tmp_path, faulty().drop(columns="answer")), tmp_path / "empty"
    empty.mkdir()
    for source, folder in ((path, tmp_path), (write(empty, prompts()), empty)):
        outputs = [folder / f"{name}.parquet" for name in ("train", "circuit", "test")]
        generate_data.main(
            Path("manifest.json"),
            source,
            *outputs,
            None,
            folder / "dropped.parquet",
            task(Path("elsewhere"), invalid_rows="drop"),
            None,
            4,
            Provenance.detached(task="t"),
        )
        train, circuit, test = (read_table(output, "examples") for output in outputs)
        assert [len(train), len(circuit), len(test)] == [0, 8, 8]
        assert (circuit["answer_ids"].map(len) == 0).all()
    dropped = read_table(tmp_path / "dropped.parquet", "dropped")
    without_answers = {row: reason for row, reason in REASONS.items() if row not in {2, 6}}
    assert dict(zip(dropped["row"], dropped["reason"], strict=True)) == {
        **without_answers, 9: "prompts differ in tokens", 10: "prompt repeated",
    }  # fmt: skip
    assert read_table(empty / "dropped.parquet", "dropped").empty


def test_a_file_is_read_without_pandas_or_a_tokenizer(tmp_path: Path) -> None:
    columns = read_columns(write(tmp_path, PUBLISHED["hypernymy"]), "file")
    assert columns.names["answer_id"] == "answers_idx"
    assert "answers" in columns.ignored
