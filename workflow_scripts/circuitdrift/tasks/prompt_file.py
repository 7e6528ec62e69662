"""Task files: a user's prompts, read and checked row by row without a tokenizer.

The Snakefile runs these checks before any job starts. Messages count rows from 1, without the header; tables from 0, as
pandas does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circuitdrift.tasks.prompt_columns import PROMPTS, PromptColumns, PromptFileError, read_columns
from circuitdrift.tasks.splits import SPLITS, Split
from circuitdrift.tasks.task import FEWEST_CIRCUIT_PROMPTS

Reason = Literal[
    "cells unlike the header",
    "value missing",
    "corruption changes nothing",
    "text outside the vocabulary",
    "prompts differ in tokens",
    "answer of several tokens",
    "answer id unusable",
    "prompt repeated",
]
"""Why a row does not fit. Of several reasons of a row the first of this list counts."""


@dataclass(frozen=True)
class PromptRow:
    """One row of a task file; what the file lacks is None.

    Attributes:
        number: of the row, from 0.
        answer_id: the token id of the answer.
        corrupted_answer_id: the token id of the answer to the corrupted prompt.
    """

    number: int
    clean: str
    corrupted: str
    answer: str | None
    corrupted_answer: str | None
    split: str | None
    answer_id: int | None
    corrupted_answer_id: int | None


@dataclass(frozen=True)
class Fault:
    """Why a row does not fit: its number from 0, the reason, and the problem with its fix."""

    row: int
    reason: Reason
    problem: str


@dataclass(frozen=True)
class PromptFile:
    """A task file: its rows, and those of its faults that a row shows by itself.

    Attributes:
        path: where it lies.
        rows: all rows.
        names: the file's own name of each column that is read.
        ignored: names of the other columns.
        faults: of single rows.
    """

    path: Path
    rows: tuple[PromptRow, ...]
    names: Mapping[str, str]
    ignored: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def has_answers(self) -> bool:
        """Whether the rows have answers, as text or as ids; otherwise no row has one."""
        return bool({"answer", "answer_id"} & set(self.names))

    @property
    def fewest(self) -> dict[Split, int]:
        """The fewest rows of each split that a task needs; without answers, train may be empty."""
        needed: dict[Split, int] = {"train": 1, "circuit": FEWEST_CIRCUIT_PROMPTS, "test": 1}
        return needed if self.has_answers else {"circuit": needed["circuit"], "test": needed["test"]}

    @property
    def has_splits(self) -> bool:
        """Whether the file says which row belongs to which split."""
        return "split" in self.names


def read_prompt_file(path: Path, answers: Literal["file", "none"] = "file") -> PromptFile:
    """The rows of a task file.

    Args:
        path: the file.
        answers: whether its answers are read, where it has some.

    Raises:
        PromptFileError: the file cannot be read, or is wrong in another way than in single rows.
    """
    columns = read_columns(path, answers)
    rows, faults = [], []
    for number in range(columns.n_rows):
        row, of_row = _row(number, columns)
        rows.append(row)
        faults += of_row
    file = PromptFile(path, tuple(rows), columns.names, columns.ignored, tuple(faults))
    problems = [*_unknown_splits(file), *_numbers_in_place_of_ids(file)]
    if problems:
        raise PromptFileError(report([f"{path}, {problem}" for problem in problems]))
    return file


def repetitions(rows: Sequence[PromptRow]) -> list[Fault]:
    """Rows that repeat the prompts of an earlier row, or contradict it in the answer or the split."""
    first: dict[str, PromptRow] = {}
    pairs: dict[tuple[str, str], int] = {}
    faults = []
    for row in rows:
        earlier = first.setdefault(row.clean, row)
        same = pairs.setdefault((row.clean, row.corrupted), row.number)
        problem = None
        if earlier.split != row.split:
            problem = (
                f"the clean prompt {row.clean!r} of split '{row.split}' is also in row {earlier.number + 1} of split "
                f"'{earlier.split}'; keep it in one split only"
            )
        elif same != row.number:
            problem = f"repeats the prompts of row {same + 1}; remove either row"
        elif (earlier.answer, earlier.answer_id) != (row.answer, row.answer_id):
            problem = (
                f"answers {row.clean!r} with {_shown_answer(row)}, row {earlier.number + 1} with "
                f"{_shown_answer(earlier)}; give both rows the same answer"
            )
        if problem:
            faults.append(Fault(row.number, "prompt repeated", problem))
    return faults


def problems_of_number(rows: Sequence[PromptRow], file: PromptFile) -> list[str]:
    """What is wrong with the number of rows that can be used, in all or in one split of the file's own."""
    needed = file.fewest
    fewest = sum(needed.values())
    if len(rows) < fewest:
        return [f"has {len(rows)} rows; {_in_words(tuple(needed))} need at least {fewest}; add some"]
    if not file.has_splits:
        return []
    found = {split: sum(row.split == split for row in rows) for split in needed}
    return [
        *(
            f"no row belongs to split '{split}'; give each of {', '.join(needed)} some rows, or leave the column "
            "'split' out and the rows are split for you"
            for split, number in found.items()
            if not number
        ),
        *(
            f"split '{split}' has {number} rows, at least {needed[split]} are needed; move some there"
            for split, number in found.items()
            if 0 < number < needed[split]
        ),
    ]


def report(problems: Sequence[str], most: int = 20) -> str:
    """Problems as lines, cut after the first ``most``."""
    rest = [f"... and {len(problems) - most} more problems"] if len(problems) > most else []
    return "\n".join([*problems[:most], *rest])


# -------------------------------------------------------------------------------------------------- single rows


def _row(number: int, columns: PromptColumns) -> tuple[PromptRow, list[Fault]]:
    clean, corrupted, answer, corrupted_answer, split = (
        columns.column(name)[number] for name in (*PROMPTS, "answer", "corrupted_answer", "split")
    )
    ids = {name: columns.column(name)[number] for name in ("answer_id", "corrupted_answer_id")}
    numbers = {name: _token_id(cell) for name, cell in ids.items()}
    row = PromptRow(
        number,
        clean or "",
        corrupted or "",
        (answer or "") if "answer" in columns.names else None,
        corrupted_answer,
        split,
        numbers["answer_id"],
        numbers["corrupted_answer_id"],
    )
    if number in columns.odd_rows:
        problem = (
            f"has {columns.odd_rows[number]} cells, the header has {columns.width}; "
            "quote every cell that holds a comma, and give every column a value"
        )
        return row, [Fault(number, "cells unlike the header", problem)]
    lacking = [
        f"'{columns.names[name]}' is {cell!r}, which is no token id; fill it in, or remove the row"
        for name, cell in ids.items()
        if name in columns.names and numbers[name] is None
    ]
    faults = [Fault(number, "value missing", problem) for problem in (*_empty_cells(row, columns), *lacking)]
    return row, [*faults, *(Fault(number, "corruption changes nothing", text) for text in _no_corruption(row))]


_ID_OR_LIST = re.compile(r"\s*(?:(\d+)(?:\.0*)?|\[\s*(\d+)\s*(?:,[\s\d,]*)?\])\s*", re.ASCII)
"""An id, of which pandas writes 26.0 in a column with gaps, or a list of ids."""


def _token_id(cell: Any) -> int | None:
    """The id in a cell, or the first of a list of ids; None where there is none."""
    if isinstance(cell, list):
        cell = cell[0] if cell else None
    found = _ID_OR_LIST.fullmatch(str(cell)) if isinstance(cell, str | int | float) else None
    return int(found[1] or found[2]) if found else None


def _empty_cells(row: PromptRow, columns: PromptColumns) -> Iterable[str]:
    for name in (*PROMPTS, "answer", "corrupted_answer", "split"):
        value = getattr(row, name)
        if value is not None and not value.strip():
            yield f"'{columns.names.get(name, name)}' is empty; fill it in, or remove the row"


def _no_corruption(row: PromptRow) -> Iterable[str]:
    if row.clean.strip() and row.clean == row.corrupted:
        yield f"clean and corrupted prompt are the same ({row.clean!r}); change the corrupted prompt"
    same_text = row.answer is not None and row.answer.strip() and row.answer == row.corrupted_answer
    same_id = row.answer_id is not None and row.answer_id == row.corrupted_answer_id
    if same_text or same_id:
        yield f"answer and corrupted_answer are the same ({_shown_answer(row)}); the corruption must change the answer"


def _shown_answer(row: PromptRow) -> str:
    return repr(row.answer) if row.answer is not None else f"token {row.answer_id}"


# ------------------------------------------------------------------------------------------------ the whole file


def _unknown_splits(file: PromptFile) -> Iterable[str]:
    for row in file.rows:
        if row.split is not None and row.split.strip() and row.split not in SPLITS:
            close = difflib.get_close_matches(row.split.strip().lower(), SPLITS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"use one of {', '.join(SPLITS)}"
            yield f"row {row.number + 1}: unknown split {row.split!r}; {hint}"


def _numbers_in_place_of_ids(file: PromptFile) -> Iterable[str]:
    """Ids that stand as numbers in every prompt are no ids: the greater-than files of EAP-IG name a year so."""
    rows = [row for row in file.rows if row.answer_id is not None]
    if rows and all(str(row.answer_id) in row.clean for row in rows):
        yield (
            f"row {rows[0].number + 1}: {file.names['answer_id']} is {rows[0].answer_id}, a number of its prompt as in "
            "every row, so hardly a token id; set the task's answers to none, or write text in a column 'answer'"
        )


def _in_words(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
