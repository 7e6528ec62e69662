"""From a task's config to its examples, whatever its family."""

from __future__ import annotations

from random import Random

from circuitdrift.config.tasks import (
    AddSubTask,
    CompositionalTask,
    FileTask,
    FunctionTask,
    LcmTask,
    MulDivTask,
    SequenceTask,
    SubTask,
    TaskConfig,
)
from circuitdrift.tasks import add_sub, compositional, function, lcm, mul_div, sequence
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Splits, Streams, assemble
from circuitdrift.tasks.from_file import examples_from_file
from circuitdrift.tasks.sub_tasks import decompose


def generate_examples(task: TaskConfig, encoding: Encoding, parent: CompositionalTask | None = None) -> Splits:
    """All examples of a task, the same for the same task and tokenizer.

    Args:
        task: the task's section of the config.
        encoding: the study's tokenizer.
        parent: the compositional task whose items a sub-task decomposes; None for every other family.

    Raises:
        TaskError: too few examples fit the tokenizer.
        PromptFileError: a task file has problems.
        ValueError: a sub-task without its parent.
    """
    if isinstance(task, FileTask):
        return examples_from_file(task, encoding)
    if isinstance(task, SubTask):
        if parent is None:
            raise ValueError(f"sub_task: the config of its compositional task '{task.of}' was not given")
        return decompose(generate_examples(parent, encoding), task, encoding)
    return assemble(task.family, _streams(task, encoding), task, encoding)


def _streams(
    task: AddSubTask | MulDivTask | SequenceTask | LcmTask | FunctionTask | CompositionalTask, encoding: Encoding
) -> Streams:
    random = Random(f"{task.family} {task.seed}")
    match task:
        case AddSubTask():
            return add_sub.candidates(task, random)
        case MulDivTask():
            return mul_div.candidates(task, random)
        case SequenceTask():
            return sequence.candidates(task, random)
        case LcmTask():
            return lcm.candidates(task, random, encoding.accepts)
        case FunctionTask():
            return function.candidates(task, random)
        case CompositionalTask():
            return compositional.candidates(task, random)
