"""The columns of a task file: CSV, Parquet or JSON lines, with the names that published files give them.

An answer stands in a file as text, or as the id of a token. Where a file has both, the text is the answer, and the id
is compared with it. ``label`` is the answer only where no other column is: some files name a class by it.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circuitdrift.errors import CircuitDriftError

PROMPTS = ("clean", "corrupted")
TEXTS = (*PROMPTS, "answer", "corrupted_answer", "split")
LABEL = "label"
IDS: Mapping[str, tuple[str, ...]] = {
    "answer_id": ("answer_idx", "correct_idx", "clean_answer_idx", "country_idx", "answers_idx", "clean_answers_idx"),
    "corrupted_answer_id": ("corrupted_answer_idx", "incorrect_idx", "corrupted_country_idx", "corrupted_answers_idx"),
}
"""The columns that hold token ids of an answer, or lists of them, of which the first is taken."""

SUFFIXES = (".csv", ".parquet", ".jsonl")
CLOSE = 0.8
"""How alike an unknown name must be to a known one to be taken for a slip of the pen (difflib's ratio)."""


class PromptFileError(CircuitDriftError):
    """An unusable task file; one line for each problem: file, row, problem and fix."""


@dataclass(frozen=True)
class PromptColumns:
    """The cells of a file by our names of the columns; those that it lacks are absent.

    Attributes:
        cells: of each column, as the file has them.
        names: the file's own name of each column.
        ignored: names of the columns that mean nothing here.
        width: number of all columns.
        odd_rows: the number of cells of each row, from 0, that has another number of them than the header.
    """

    cells: Mapping[str, Sequence[Any]]
    names: Mapping[str, str]
    ignored: tuple[str, ...]
    width: int
    odd_rows: Mapping[int, int]

    @property
    def n_rows(self) -> int:
        """Number of rows, without the header."""
        return len(self.cells["clean"])

    def column(self, name: str) -> Sequence[Any]:
        """The cells of a column; None in each row where the file lacks it."""
        return self.cells.get(name, [None] * self.n_rows)


def read_columns(path: Path, answers: Literal["file", "none"]) -> PromptColumns:
    """Read a file whole.

    Args:
        path: the file.
        answers: whether its answers are read, where it has some.

    Raises:
        PromptFileError: the file is missing or unreadable, or a column is missing, is there twice, or holds no text.
    """
    if not path.is_file():
        raise PromptFileError(f"{path}: no such file; correct the task's path (relative to the config file)")
    if path.suffix not in SUFFIXES:
        raise PromptFileError(
            f"{path}: is neither .csv nor .parquet nor .jsonl; save the prompts in one of these formats"
        )
    header, columns, odd_rows = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_json_lines}[path.suffix](
        path
    )
    names, problems = _names_of_columns(header, answers)
    cells = {name: columns[header.index(found)] for name, found in names.items()}
    problems += [] if problems else [text for name in TEXTS if name in names for text in _no_text(names, name, cells)]
    if problems:
        raise PromptFileError("\n".join(f"{path}: {problem}" for problem in problems))
    ignored = tuple(dict.fromkeys(name or "(unnamed)" for name in header if name not in names.values()))
    return PromptColumns(cells, names, ignored, len(header), odd_rows)


Read = tuple[Sequence[str], Sequence[Sequence[Any]], Mapping[int, int]]
"""The names of a file's columns, their cells, and the number of cells of the rows that have another one."""


def _read_csv(path: Path) -> Read:
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            header, *rows = [row for row in csv.reader(opened, strict=True) if row] or [[]]
    except UnicodeDecodeError as error:
        raise PromptFileError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise PromptFileError(f"{path}: is not valid CSV ({error}); quote every cell that holds a comma") from None
    if not header:
        raise PromptFileError(f"{path}: is empty; its first line must name the columns {', '.join(PROMPTS)}, answer")
    odd = {place: len(row) for place, row in enumerate(rows) if len(row) != len(header)}
    whole = [("",) * len(header) if place in odd else row for place, row in enumerate(rows)]
    return header, [[row[place] for row in whole] for place in range(len(header))], odd


def _read_parquet(path: Path) -> Read:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise PromptFileError(f"{path}: is not a readable Parquet file ({error}); write it again") from None
    return table.column_names, [column.to_pylist() for column in table.columns], {}


def _read_json_lines(path: Path) -> Read:
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise PromptFileError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise PromptFileError(f"{path}, row {number}: is no JSON object; write one object on each line")
        rows.append(row)
    if not rows:
        raise PromptFileError(f"{path}: is empty; write a JSON object with {', '.join(PROMPTS)}, answer on each line")
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[row.get(name) for row in rows] for name in header], {}


def _names_of_columns(header: Sequence[str], answers: Literal["file", "none"]) -> tuple[dict[str, str], list[str]]:
    """Our name and the file's name of each column that is read, and what is wrong with the header."""
    found: dict[str, list[str]] = {name: [name] if name in header else [] for name in TEXTS}
    found |= {name: [other for other in others if other in header] for name, others in IDS.items()}
    if LABEL in header and not found["answer_id"]:
        found["answer"].append(LABEL)
    if answers == "none":
        found = {name: others for name, others in found.items() if name in PROMPTS or name == "split"}
    problems = [
        f"has both columns {others[0]!r} and {others[1]!r}, which mean the same; keep one"
        for others in found.values()
        if len(others) > 1
    ]
    names = {name: others[0] for name, others in found.items() if others}
    problems += [f"the column {name!r} occurs twice; keep one" for name in names.values() if header.count(name) > 1]
    lacking = [name for name, others in found.items() if name in TEXTS and not others and not found.get(f"{name}_id")]
    misspelt = _misspelt(header, [*lacking, *([LABEL] if "answer" in lacking else [])])
    problems += [f"unknown column {name!r}; did you mean {known!r}? Rename it" for name, known in misspelt.items()]
    meant = {*names, *misspelt.values()}
    shown = ", ".join(map(repr, header))
    problems += [f"has no column {name!r}; its columns are {shown}; add it" for name in PROMPTS if name not in meant]
    if {"corrupted_answer", "corrupted_answer_id"} & meant and not {"answer", LABEL, "answer_id"} & meant:
        problems.append(
            f"has answers to the corrupted prompts alone: no column 'answer' (or 'label'); its columns are {shown}; "
            "add it, or set the task's answers to none"
        )
    return names, problems


def _misspelt(header: Sequence[str], lacking: Sequence[str]) -> dict[str, str]:
    """The column that is meant by each name that is nearly one which the file lacks."""
    unknown = [name for name in header if name not in {*TEXTS, LABEL}]
    close = {name: difflib.get_close_matches(name.strip().lower(), lacking, n=1, cutoff=CLOSE) for name in unknown}
    return {name: found[0] for name, found in close.items() if found}


def _no_text(names: Mapping[str, str], name: str, cells: Mapping[str, Sequence[Any]]) -> list[str]:
    other = next((value for value in cells[name] if value is not None and not isinstance(value, str)), None)
    if other is None:
        return []
    return [
        f"the column {names[name]!r} holds {type(other).__name__}, not text; write it as text, an answer with its "
        "leading space (' 26')"
    ]
