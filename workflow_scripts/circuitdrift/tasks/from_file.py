"""Tasks from a user's file: check its rows against the study's tokenizer, and split them unless the file does.

No row is dropped silently: a row that does not fit is an error that names the row and the fix.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Literal

from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Drawn, Example, Query, shuffled
from circuitdrift.tasks.prompt_file import PromptFileError, PromptRow, read_prompt_file, report
from circuitdrift.tasks.splits import SPLITS, Split, Splits, fill
from circuitdrift.tasks.task import FEWEST_CIRCUIT_PROMPTS, Task

log = logging.getLogger(__name__)


class FileTask(Task):
    """Prompts from a CSV or Parquet file: clean, corrupted, answer; optional corrupted_answer and split."""

    family: Literal["file"]
    path: Path


def examples_from_file(task: FileTask, encoding: Encoding) -> Splits:
    """The file's rows as examples, in its own splits or in splits drawn by the task's seed.

    From a larger file, each split takes as many rows as the task asks for, drawn by the seed. A smaller file without a
    split column is shared out in proportion to the sizes asked for. Where the file gives no corrupted answer, its text
    and ids are empty, unless the corrupted prompt is another row's clean prompt.

    Raises:
        PromptFileError: the file or its rows have problems; each is named with row and fix.
    """
    rows = read_prompt_file(task.path)
    problems = [f"{task.path}, row {row.number}: {problem}" for row in rows for problem in _problems(row, encoding)]
    if problems:
        raise PromptFileError(report(problems))
    answers = {row.clean: row.answer for row in rows}
    drawn = [_drawn(row, answers, encoding) for row in rows]
    return _given_splits(rows, drawn, task) if rows[0].split is not None else _drawn_splits(drawn, task)


def _problems(row: PromptRow, encoding: Encoding) -> Iterable[str]:
    clean, corrupted = encoding.prompt(row.clean), encoding.prompt(row.corrupted)
    if len(clean) != len(corrupted):
        yield (
            f"the clean prompt has {len(clean)} tokens, the corrupted prompt {len(corrupted)}; "
            "both need the same number: choose words of as many tokens"
        )
    for name, ids in (("clean", clean), ("corrupted", corrupted)):
        if not encoding.knows(ids):
            yield f"the {name} prompt has text outside the model's vocabulary; replace it"
    for name in ("answer", "corrupted_answer"):
        text = getattr(row, name)
        if text is not None:
            yield from _answer_problems(name, text, encoding)


def _answer_problems(name: str, text: str, encoding: Encoding) -> Iterable[str]:
    ids = encoding.answer(text)
    if not encoding.knows(ids):
        yield f"{name} {text!r} is outside the model's vocabulary; choose another answer"
    elif not encoding.accepts(text):
        spaced = f" {text}"
        one_with_space = not text.startswith(" ") and encoding.single_answer(spaced) is not None
        fix = (
            f"with a leading space it is one token: write {spaced!r}"
            if one_with_space
            else "choose an answer of one token, or set the task's answer_tokens to any"
        )
        yield f"{name} {text!r} is {len(ids)} tokens; {fix}"


def _drawn(row: PromptRow, answers: dict[str, str], encoding: Encoding) -> Drawn:
    corrupted_answer = row.corrupted_answer or answers.get(row.corrupted, "")
    example = Example(
        clean=row.clean,
        corrupted=row.corrupted,
        answer=row.answer,
        corrupted_answer=corrupted_answer,
        clean_ids=encoding.prompt(row.clean),
        corrupted_ids=encoding.prompt(row.corrupted),
        answer_ids=encoding.answer(row.answer),
        corrupted_answer_ids=encoding.answer(corrupted_answer) if corrupted_answer else (),
        kind="row",
    )
    query = Query(row.clean, row.answer)
    return Drawn(Candidate(query, lambda random: (), group=row.clean), example)


def _given_splits(rows: Sequence[PromptRow], drawn: Sequence[Drawn], task: FileTask) -> Splits:
    splits: dict[Split, list[Example]] = {}
    for split in SPLITS:
        members = [kept.example for row, kept in zip(rows, drawn, strict=True) if row.split == split]
        splits[split] = shuffled(members, Random(f"{task.seed} {split}"))[: getattr(task, split)]
        log.info("%s: used %d of %d rows of split %s", task.path.name, len(splits[split]), len(members), split)
    return splits


def _drawn_splits(drawn: Sequence[Drawn], task: FileTask) -> Splits:
    sizes = shares(len(drawn), task)
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
