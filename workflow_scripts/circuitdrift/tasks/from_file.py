"""Tasks from a user's file: check its rows against the study's tokenizer, and split them unless the file does.

No row is left out silently: one that does not fit is an error that names the row and the fix, or, if the task says so,
is left out, counted and listed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, get_args

from pydantic import Field

from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Drawn, Example, Query, shuffled
from circuitdrift.tasks.prompt_columns import PromptFileError
from circuitdrift.tasks.prompt_file import (
    Fault,
    PromptFile,
    PromptRow,
    Reason,
    problems_of_number,
    read_prompt_file,
    repetitions,
    report,
)
from circuitdrift.tasks.splits import SPLITS, Split, Splits, fill
from circuitdrift.tasks.task import FEWEST_CIRCUIT_PROMPTS, Task

log = logging.getLogger(__name__)


class FileTask(Task):
    """Prompts from a CSV, Parquet or JSON lines file: clean, corrupted; optional answers and split."""

    family: Literal["file"]
    path: Path = Field(description="the file, relative to the config file")
    invalid_rows: Literal["refuse", "drop"] = Field(
        "refuse",
        description="rows that do not fit. refuse: each is an error; drop: they are left out, counted and listed",
    )
    answers: Literal["file", "none"] = Field(
        "file",
        description="file: those of the file, where it has some; none: the task has no answers, whatever the file",
    )


@dataclass(frozen=True)
class FileExamples:
    """The examples of a task file, and the rows that were left out.

    Attributes:
        splits: the examples of each split.
        dropped: the first fault of each row that was left out, in the order of the rows; none where rows are refused.
    """

    splits: Splits
    dropped: tuple[Fault, ...]


def problems_of_file(task: FileTask) -> list[str]:
    """All problems of a task's file that show without a tokenizer."""
    try:
        file = read_prompt_file(task.path, task.answers)
        _usable(file, file.faults, task)
    except PromptFileError as error:
        return str(error).splitlines()
    return []


def lacks_answers(task: FileTask) -> bool:
    """Whether no prompt of a task has an answer; not of a file that cannot be read, which is refused for that."""
    try:
        return not read_prompt_file(task.path, task.answers).has_answers
    except PromptFileError:
        return False


def examples_from_file(task: FileTask, encoding: Encoding) -> FileExamples:
    """The file's rows as examples, in its own splits or in splits drawn by the task's seed.

    From a larger file, each split takes as many rows as the task asks for, drawn by the seed. A smaller file without a
    split column is shared out in proportion to the sizes asked for. Where the file gives no corrupted answer, its text
    and ids are empty, unless the corrupted prompt is another row's clean prompt. Without any answers all texts and ids
    of answers are empty, and no row goes to the train split unless the file says so.

    Raises:
        PromptFileError: the file has problems, or its rows have and are not dropped, or too few are left; each problem
            is named with row and fix.
    """
    file = read_prompt_file(task.path, task.answers)
    if file.ignored:
        log.info("%s: ignored the columns %s", task.path.name, ", ".join(file.ignored))
    known = {fault.row for fault in file.faults}
    encoded = (row for row in file.rows if row.number not in known)
    faults = [*file.faults, *(fault for row in encoded for fault in _faults(row, encoding))]
    rows, dropped = _usable(file, faults, task)
    if task.invalid_rows == "drop":
        log.info("%s: left out %d of %d rows%s", task.path.name, len(dropped), len(file.rows), _counted(dropped))
    if file.has_answers and "answer" not in file.names:
        log.info("%s: answers from token ids, such as %s", task.path.name, _shown_ids(rows, encoding))
    _warn_of_missing_spaces(file.path.name, rows, encoding)
    answers = {row.clean: _answer(row, encoding) for row in rows}
    drawn = [_drawn(row, answers, encoding) for row in rows]
    splits = _given_splits(rows, drawn, task) if file.has_splits else _drawn_splits(drawn, task, file.has_answers)
    for split, needed in file.fewest.items():
        if (found := len(splits[split])) < needed:
            raise PromptFileError(
                f"{file.path}: split {split} gets {found} rows, at least {needed} are needed; rows with one clean "
                "prompt stay in one split, so add rows with other prompts"
            )
    return FileExamples(splits, dropped)


def _usable(file: PromptFile, faults: Sequence[Fault], task: FileTask) -> tuple[Sequence[PromptRow], tuple[Fault, ...]]:
    """The rows that fit, and the first fault of each other row; a row repeats an earlier one only where that one fits.

    Raises:
        PromptFileError: rows do not fit and are not dropped, or too few do fit.
    """
    order = get_args(Reason)
    of_row: dict[int, Fault] = {}
    for fault in sorted(faults, key=lambda fault: (fault.row, order.index(fault.reason))):
        of_row.setdefault(fault.row, fault)
    alone = [row for row in file.rows if row.number not in of_row]
    repeated = {fault.row: fault for fault in repetitions(alone)}
    rows = [row for row in alone if row.number not in repeated]
    if task.invalid_rows == "refuse":
        found = [*sorted(faults, key=lambda fault: fault.row), *repeated.values()]
        problems = [f"{file.path}, row {fault.row + 1}: {fault.problem}" for fault in found]
        problems += [] if problems else [f"{file.path}: {problem}" for problem in problems_of_number(rows, file)]
        if problems:
            raise PromptFileError(report(problems))
    dropped = tuple(fault for _, fault in sorted((of_row | repeated).items()))
    if problems := problems_of_number(rows, file):
        left_out = f"without the {len(dropped)} of {len(file.rows)} rows that are left out{_counted(dropped)}"
        raise PromptFileError("\n".join(f"{file.path}: {problem}; {left_out}" for problem in problems))
    return rows, dropped


def _counted(dropped: Sequence[Fault]) -> str:
    counts = Counter(fault.reason for fault in dropped)
    shown = ", ".join(f"{reason} {counts[reason]}" for reason in get_args(Reason) if counts[reason])
    return f" ({shown})" if shown else ""


# -------------------------------------------------------------------------------- rows against a tokenizer


def _faults(row: PromptRow, encoding: Encoding) -> Iterable[Fault]:
    clean, corrupted = encoding.prompt(row.clean), encoding.prompt(row.corrupted)
    for name, ids in (("clean", clean), ("corrupted", corrupted)):
        if not encoding.knows(ids):
            problem = f"the {name} prompt has text outside the model's vocabulary; replace it"
            yield Fault(row.number, "text outside the vocabulary", problem)
    if len(clean) != len(corrupted):
        problem = (
            f"the clean prompt has {len(clean)} tokens, the corrupted prompt {len(corrupted)}; "
            "both need the same number: choose words of as many tokens"
        )
        yield Fault(row.number, "prompts differ in tokens", problem)
    for name, text, token in (
        ("answer", row.answer, row.answer_id),
        ("corrupted_answer", row.corrupted_answer, row.corrupted_answer_id),
    ):
        if text is not None:
            yield from _faults_of_answer(row.number, name, text, encoding)
        if token is not None:
            yield from _faults_of_id(row.number, name, text, token, encoding)


def _faults_of_answer(row: int, name: str, text: str, encoding: Encoding) -> Iterable[Fault]:
    ids = encoding.answer(text)
    if not encoding.knows(ids):
        problem = f"{name} {text!r} is outside the model's vocabulary; choose another answer"
        yield Fault(row, "text outside the vocabulary", problem)
    elif not encoding.accepts(text):
        spaced = f" {text}"
        one_with_space = not text.startswith(" ") and encoding.single_answer(spaced) is not None
        fix = (
            f"with a leading space it is one token: write {spaced!r}"
            if one_with_space
            else "choose an answer of one token, or set the task's answer_tokens to any"
        )
        yield Fault(row, "answer of several tokens", f"{name} {text!r} is {len(ids)} tokens; {fix}")


def _faults_of_id(row: int, name: str, text: str | None, token: int, encoding: Encoding) -> Iterable[Fault]:
    decoded = encoding.decoded(token)
    if decoded is None:
        problem = (
            f"the id {token} of {name} is no text of the model's tokenizer; ids belong to one tokenizer, so use the "
            "file that was made for this model, or write answers as text"
        )
        yield Fault(row, "answer id unusable", problem)
    elif text is not None and encoding.answer(text)[:1] != (token,):
        problem = f"{name} {text!r} does not begin with its id {token}, which is {decoded!r}; make them agree"
        yield Fault(row, "answer id unusable", problem)


Answer = tuple[str, tuple[int, ...]]
"""The text of an answer and its ids; both empty where there is none."""


def _answer(row: PromptRow, encoding: Encoding) -> Answer:
    return _either(row.answer, row.answer_id, encoding)


def _either(text: str | None, token: int | None, encoding: Encoding) -> Answer:
    """An answer from its text, or from its id alone."""
    if text is not None:
        return text, encoding.answer(text)
    return ("", ()) if token is None else (encoding.decoded(token) or "", (token,))


def _warn_of_missing_spaces(name: str, rows: Sequence[PromptRow], encoding: Encoding) -> None:
    """Files often hold numbers without the space that a model would write before them."""
    texts = [row.answer for row in rows if row.answer is not None]
    joined = rows[0].clean[-1:].isspace() or any(text[:1].isspace() for text in texts)
    if texts and not joined and encoding.answer(f" {texts[0]}") != encoding.answer(texts[0]):
        log.warning(
            "%s: no answer begins with a space, so %r must follow %r directly; write the space if the model should",
            name, texts[0], rows[0].clean[-20:],
        )  # fmt: skip


def _shown_ids(rows: Sequence[PromptRow], encoding: Encoding) -> str:
    return ", ".join(f"{row.answer_id} {_answer(row, encoding)[0]!r} after {row.clean[-40:]!r}" for row in rows[:3])


# ------------------------------------------------------------------------------------------------- the splits


def _drawn(row: PromptRow, answers: dict[str, Answer], encoding: Encoding) -> Drawn:
    answer, answer_ids = answers[row.clean]
    corrupted_answer, corrupted_ids = _either(row.corrupted_answer, row.corrupted_answer_id, encoding)
    if not corrupted_answer:
        corrupted_answer, corrupted_ids = answers.get(row.corrupted, ("", ()))
    example = Example(
        clean=row.clean,
        corrupted=row.corrupted,
        answer=answer,
        corrupted_answer=corrupted_answer,
        clean_ids=encoding.prompt(row.clean),
        corrupted_ids=encoding.prompt(row.corrupted),
        answer_ids=answer_ids,
        corrupted_answer_ids=corrupted_ids,
        kind="row",
    )
    return Drawn(Candidate(Query(row.clean, answer), lambda random: (), group=row.clean), example)


def _given_splits(rows: Sequence[PromptRow], drawn: Sequence[Drawn], task: FileTask) -> Splits:
    splits: dict[Split, list[Example]] = {}
    for split in SPLITS:
        members = [kept.example for row, kept in zip(rows, drawn, strict=True) if row.split == split]
        splits[split] = shuffled(members, Random(f"{task.seed} {split}"))[: getattr(task, split)]
        log.info("%s: used %d of %d rows of split %s", task.path.name, len(splits[split]), len(members), split)
    return splits


def _drawn_splits(drawn: Sequence[Drawn], task: FileTask, has_answers: bool) -> Splits:
    sizes = shares(len(drawn), task) if has_answers else held_out_shares(len(drawn), task)
    filled = fill(shuffled(drawn, Random(task.seed)), sizes)
    used = {split: len(members) for split, members in filled.items()}
    log.info("%s: split %d rows by seed %d: %s", task.path.name, len(drawn), task.seed, used)
    return {split: [member.example for member in members] for split, members in filled.items()}


def shares(total: int, task: FileTask) -> dict[Split, int]:
    """Sizes of the splits of ``total`` rows: as the task asks, or in proportion if fewer; none is too small."""
    wanted = task.asked
    if total >= wanted:
        return {"train": task.train, "circuit": task.circuit, "test": task.test}
    circuit = min(max(FEWEST_CIRCUIT_PROMPTS, round(total * task.circuit / wanted)), total - 2)
    test = min(max(1, round(total * task.test / wanted)), total - circuit - 1)
    return {"train": total - circuit - test, "circuit": circuit, "test": test}


def held_out_shares(total: int, task: FileTask) -> dict[Split, int]:
    """Sizes of the splits of ``total`` rows on which nothing can be trained: as :func:`shares`, but train is empty."""
    if total >= task.circuit + task.test:
        return {"train": 0, "circuit": task.circuit, "test": task.test}
    circuit = max(FEWEST_CIRCUIT_PROMPTS, round(total * task.circuit / (task.circuit + task.test)))
    circuit = min(circuit, total - 1)
    return {"train": 0, "circuit": circuit, "test": total - circuit}
