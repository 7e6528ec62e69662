"""The two steps of a compositional task's items as tasks of their own (docs/method.md#tasks).

Each split takes its prompts from the parent's split of the same name. Different items share steps, so a prompt found
in several splits of the parent goes only to the first of test, circuit, train.
"""

from __future__ import annotations

import logging
from typing import Literal

from pydantic import Field

from circuitdrift.section import Name
from circuitdrift.tasks import compositional
from circuitdrift.tasks.add_sub import WORDING
from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import SMALLEST_TASK, Drawn, Lookup, TaskError
from circuitdrift.tasks.splits import HELD_OUT, SPLITS, Split, Splits, allot, separate
from circuitdrift.tasks.task import Task

log = logging.getLogger(__name__)

Part = Literal["add_sub", "mul_div"]


class SubTask(Task):
    """One step of each item of a compositional task: the inner sum or difference, or the outer product or quotient."""

    wording = WORDING
    family: Literal["sub_task"]
    of: Name = Field(description="the compositional task to decompose")
    part: Part = Field(description="the step of it that is the task")


def decompose(parent: Splits, task: SubTask, encoding: Encoding) -> Splits:
    """One step of each of the parent's items, without repetition.

    Test and circuit keep their sizes where the parent has enough items and train still gets half of all prompts.

    Raises:
        TaskError: the parent's items hold too few different steps that fit the tokenizer.
    """
    lookup = Lookup(encoding, task.seed)
    steps = {split: _distinct_steps(parent, split, task, lookup) for split in parent}
    total = len({prompt for found in steps.values() for prompt in found})
    needed = min(SMALLEST_TASK, task.asked)
    if total < needed:
        raise TaskError(
            f"sub_task: the items of '{task.of}' hold {total} different {task.part} steps that fit the tokenizer, at "
            f"least {needed} are needed; ask for more examples of '{task.of}', or a larger max_operand"
        )
    sizes = allot(total, task)
    taken: set[str] = set()
    chosen: dict[Split, list[Drawn]] = {}
    order: tuple[Split, ...] = (*HELD_OUT, "train")
    for split in order:
        free = [prompt for prompt in steps[split] if prompt not in taken][: sizes[split]]
        chosen[split] = [steps[split][prompt] for prompt in free]
        taken.update(free)
    for split in SPLITS:
        wanted = getattr(task, split)
        if len(chosen[split]) < wanted:
            log.warning(
                "%s steps of %s: asked for %d %s examples, found %d different prompts",
                task.part, task.of, wanted, split, len(chosen[split]),
            )  # fmt: skip
    return separate({split: chosen[split] for split in parent}, lookup)


def _distinct_steps(parent: Splits, split: Split, task: SubTask, lookup: Lookup) -> dict[str, Drawn]:
    """The steps of one split of the parent that fit the tokenizer, by prompt."""
    found: dict[str, Drawn] = {}
    for item in parent[split]:
        steps = compositional.read(item.clean)
        candidate = steps.add_sub() if task.part == "add_sub" else steps.mul_div()
        if candidate.clean.prompt not in found:
            example = lookup.example(candidate, steps.inner if task.part == "add_sub" else steps.outer)
            if example is not None:
                found[candidate.clean.prompt] = Drawn(candidate, example)
    return found
