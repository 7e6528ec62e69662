"""From a task's config section to its examples, whatever its family."""

from __future__ import annotations

import logging
from random import Random

from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import SMALLEST_TASK, Lookup, Query, Streams, TaskError, draw
from circuitdrift.tasks.families import TaskConfig
from circuitdrift.tasks.from_file import FileTask, examples_from_file
from circuitdrift.tasks.splits import SPLITS, Splits, allot, fill, separate
from circuitdrift.tasks.sub_tasks import SubTask, decompose
from circuitdrift.tasks.task import FEWEST_CIRCUIT_PROMPTS, Task

log = logging.getLogger(__name__)


def generate_examples(task: TaskConfig, encoding: Encoding, parent: CompositionalTask | None = None) -> Splits:
    """All examples of a task; the same task and tokenizer give the same examples.

    Args:
        task: the task's section of the config.
        encoding: the study's tokenizer.
        parent: the compositional task whose items a sub-task decomposes; None for every other family.

    Raises:
        TaskError: too few examples fit the tokenizer, in all or in one split.
        PromptFileError: a task file has problems.
        ValueError: a sub-task without its parent.
    """
    splits = _examples(task, encoding, parent)
    for split in SPLITS:
        needed = FEWEST_CIRCUIT_PROMPTS if split == "circuit" else 1
        if (found := len(splits[split])) < needed:
            raise TaskError(
                f"{task.family}: split {split} has {found} prompts that fit this model's tokenizer, at least {needed} "
                f"are needed; raise the task's {split}, or widen its range"
            )
    return splits


def _examples(task: TaskConfig, encoding: Encoding, parent: CompositionalTask | None) -> Splits:
    if isinstance(task, FileTask):
        return examples_from_file(task, encoding)
    if isinstance(task, SubTask):
        if parent is None:
            raise ValueError(f"sub_task: the config of its compositional task '{task.of}' was not given")
        return decompose(generate_examples(parent, encoding), task, encoding)
    streams = task.candidates(Random(f"{task.family} {task.seed}"), encoding)
    return _assemble(task.family, streams, task, encoding)


def _assemble(family: str, streams: Streams, task: Task, encoding: Encoding) -> Splits:
    """Draw a generated task's examples and split them.

    Where fewer examples exist than the task asks for, test and circuit keep their sizes as long as train has at least
    half of all examples; this is logged.
    """
    wanted = task.asked
    needed = min(SMALLEST_TASK, wanted)
    lookup = Lookup(encoding, task.seed)
    drawn = draw(streams, wanted, lookup, task.largest_answer_share, task.scarce_kinds)
    if len(drawn) < needed:
        raise TaskError(f"{family}: {_why_too_few(len(drawn), needed, lookup.refused)}")
    sizes = allot(len(drawn), task)
    if len(drawn) < wanted:
        log.warning(
            "%s: asked for %d examples, found %d that are single tokens, balanced, with no answer above %.0f %%: %s",
            family, wanted, len(drawn), 100 * task.largest_answer_share,
            ", ".join(f"{split} {size}" for split, size in sizes.items()),
        )  # fmt: skip
    return separate(fill(drawn, sizes, task.largest_answer_share), lookup)


def _why_too_few(found: int, needed: int, refused: Query | None) -> str:
    problem = f"only {found} examples fit this model's tokenizer, at least {needed} are needed"
    if refused is None:
        return f"{problem}; widen the task's operand range, or choose a model whose tokenizer keeps numbers whole"
    return (
        f"{problem}. The first prompt refused: {refused.prompt!r} with the answer {refused.answer!r}; its text must be "
        "in the vocabulary, and its answer one token. Choose a task with smaller numbers, a model whose tokenizer "
        "keeps numbers whole, or answer_tokens: any"
    )
