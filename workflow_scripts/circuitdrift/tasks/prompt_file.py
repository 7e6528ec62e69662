"""Task files: a user's prompts as CSV or Parquet, read and checked without a tokenizer.

The Snakefile runs these checks before any job starts. Rows are counted from 1, without the header.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circuitdrift.errors import CircuitDriftError
from circuitdrift.tasks.splits import SPLITS
from circuitdrift.tasks.task import FEWEST_CIRCUIT_PROMPTS

REQUIRED = ("clean", "corrupted", "answer")
OPTIONAL = ("corrupted_answer", "split")
OTHER_NAMES = {"label": "answer"}
FEWEST_ROWS = FEWEST_CIRCUIT_PROMPTS + 2


class PromptFileError(CircuitDriftError):
    """An unusable task file; one line for each problem: file, row, problem and fix."""


@dataclass(frozen=True)
class PromptRow:
    """One row of a task file, verbatim; columns absent from the file are None."""

    number: int
    clean: str
    corrupted: str
    answer: str
    corrupted_answer: str | None
    split: str | None


def check_prompt_file(path: Path) -> list[str]:
    """All problems of a task file that show without a tokenizer."""
    try:
        rows = _parse(path)
    except PromptFileError as error:
        return str(error).splitlines()
    return [f"{path}: {problem}" for problem in _row_problems(rows)]


def read_prompt_file(path: Path) -> list[PromptRow]:
    """The rows of a task file.

    Raises:
        PromptFileError: the file has one of the problems that :func:`check_prompt_file` lists.
    """
    problems = check_prompt_file(path)
    if problems:
        raise PromptFileError(report(problems))
    return _parse(path)


def report(problems: Sequence[str], most: int = 20) -> str:
    """Problems as lines, cut after the first ``most``."""
    rest = [f"... and {len(problems) - most} more problems"] if len(problems) > most else []
    return "\n".join([*problems[:most], *rest])


# --------------------------------------------------------------------------------------------------- parsing


def _parse(path: Path) -> list[PromptRow]:
    if not path.is_file():
        raise PromptFileError(f"{path}: no such file; correct the task's path (relative to the config file)")
    if path.suffix not in {".csv", ".parquet"}:
        raise PromptFileError(f"{path}: is neither .csv nor .parquet; save the prompts in one of these formats")
    columns = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    problems = _column_problems(list(columns))
    if problems:
        raise PromptFileError("\n".join(f"{path}: {problem}" for problem in problems))
    columns = {OTHER_NAMES.get(name, name): values for name, values in columns.items()}
    absent = [None] * len(columns["clean"])
    return [
        PromptRow(number, clean or "", corrupted or "", answer or "", corrupted_answer, split)
        for number, (clean, corrupted, answer, corrupted_answer, split) in enumerate(
            zip(*(columns.get(name, absent) for name in (*REQUIRED, *OPTIONAL)), strict=True), start=1
        )
    ]


def _read_csv(path: Path) -> dict[str, list[str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            header, *rows = [row for row in csv.reader(opened, strict=True) if row] or [[]]
    except UnicodeDecodeError as error:
        raise PromptFileError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise PromptFileError(f"{path}: is not valid CSV ({error}); quote every cell that holds a comma") from None
    if not header:
        raise PromptFileError(f"{path}: is empty; its first line must name the columns {', '.join(REQUIRED)}")
    problems = [
        f"{path}, row {number}: has {len(row)} cells, the header has {len(header)}; "
        "quote every cell that holds a comma, and give every column a value"
        for number, row in enumerate(rows, start=1)
        if len(row) != len(header)
    ]
    if problems:
        raise PromptFileError("\n".join(problems))
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise PromptFileError(f"{path}: the column {repeated[0]!r} occurs twice; keep one")
    return {name: [row[index] for row in rows] for index, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, list[str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise PromptFileError(f"{path}: is not a readable Parquet file ({error}); write it again") from None
    columns: dict[str, list[str | None]] = {}
    for name in table.column_names:
        if OTHER_NAMES.get(name, name) in (*REQUIRED, *OPTIONAL):
            kind = table.schema.field(name).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise PromptFileError(
                    f"{path}: the column {name!r} holds {kind}, not text; write it as text, an answer with "
                    "its leading space (' 26')"
                )
        columns[name] = table[name].to_pylist()
    return columns


# ---------------------------------------------------------------------------------------------------- checks


def _column_problems(names: Sequence[str]) -> list[str]:
    known = {*REQUIRED, *OPTIONAL, *OTHER_NAMES}
    present = {OTHER_NAMES.get(name, name) for name in names}
    problems = []
    explained = set()
    for name in names:
        close = difflib.get_close_matches(name.strip().lower(), sorted(known - set(names)), n=1, cutoff=0.7)
        if name not in known and close:
            meant = OTHER_NAMES.get(close[0], close[0])
            if meant not in present:
                problems.append(f"unknown column {name!r}; did you mean {close[0]!r}? Rename it")
                explained.add(meant)
    for name in REQUIRED:
        if name not in present | explained:
            also = "".join(f" (or {other!r})" for other, meant in OTHER_NAMES.items() if meant == name)
            problems.append(f"has no column {name!r}{also}; its columns are {', '.join(map(repr, names))}; add it")
    if {"answer", "label"} <= set(names):
        problems.append("has both columns 'answer' and 'label', which mean the same; keep one")
    return problems


def _row_problems(rows: Sequence[PromptRow]) -> list[str]:
    if len(rows) < FEWEST_ROWS:
        return [f"has {len(rows)} rows; train, circuit and test need at least {FEWEST_ROWS}; add some"]
    return [
        *(f"row {row.number}: {problem}" for row in rows for problem in _problems_of_one(row)),
        *_repetitions(rows),
        *_small_splits(rows),
    ]


def _problems_of_one(row: PromptRow) -> Iterable[str]:
    cells: Mapping[str, str | None] = {name: getattr(row, name) for name in (*REQUIRED, *OPTIONAL)}
    for name, value in cells.items():
        if value is not None and not value.strip():
            yield f"'{name}' is empty; fill it in, or remove the row"
    if row.clean.strip() and row.clean == row.corrupted:
        yield f"clean and corrupted prompt are the same ({row.clean!r}); change the corrupted prompt"
    if row.answer.strip() and row.answer == row.corrupted_answer:
        yield f"answer and corrupted_answer are the same ({row.answer!r}); the corruption must change the answer"
    if row.split is not None and row.split.strip() and row.split not in SPLITS:
        close = difflib.get_close_matches(row.split.strip().lower(), SPLITS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"use one of {', '.join(SPLITS)}"
        yield f"unknown split {row.split!r}; {hint}"


def _repetitions(rows: Sequence[PromptRow]) -> Iterable[str]:
    first: dict[str, PromptRow] = {}
    pairs: dict[tuple[str, str], int] = {}
    for row in rows:
        if not row.clean.strip():
            continue
        earlier = first.setdefault(row.clean, row)
        same = pairs.setdefault((row.clean, row.corrupted), row.number)
        if earlier is row:
            continue
        if earlier.split != row.split:
            yield (
                f"row {row.number}: the clean prompt {row.clean!r} of split '{row.split}' is also in row "
                f"{earlier.number} of split '{earlier.split}'; keep it in one split only"
            )
        elif same != row.number:
            yield f"row {row.number}: repeats the prompts of row {same}; remove either row"
        elif earlier.answer != row.answer:
            yield (
                f"row {row.number}: answers {row.clean!r} with {row.answer!r}, row {earlier.number} with "
                f"{earlier.answer!r}; give both rows the same answer"
            )


def _small_splits(rows: Sequence[PromptRow]) -> Iterable[str]:
    if any(row.split is None for row in rows):
        return
    for split in SPLITS:
        if all(row.split != split for row in rows):
            yield (
                f"no row belongs to split '{split}'; give each of {', '.join(SPLITS)} some rows, or leave the column "
                "'split' out and the rows are split for you"
            )
    in_circuit = sum(row.split == "circuit" for row in rows)
    if 0 < in_circuit < FEWEST_CIRCUIT_PROMPTS:
        yield f"split 'circuit' has {in_circuit} rows, at least {FEWEST_CIRCUIT_PROMPTS} are needed; move some there"
