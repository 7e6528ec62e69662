"""Compositional tasks with both sub-tasks in the study, and what is asked of them (docs/method.md#composition)."""

from __future__ import annotations

from typing import get_args

from circuitdrift.config.given import GIVEN
from circuitdrift.config.methods import CircuitLoraMethod, MethodConfig
from circuitdrift.tasks.add_sub import AddSubTask
from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.families import TaskConfig
from circuitdrift.tasks.mul_div import MulDivTask
from circuitdrift.tasks.sub_tasks import Part, SubTask

PARTS: tuple[Part, ...] = get_args(Part)


def sub_tasks_of(tasks: dict[str, TaskConfig]) -> dict[str, tuple[str, str]]:
    """The Add/Sub and the Mul/Div sub-task of each compositional task that has both; of several the first."""
    steps = {(task.of, task.part): name for name, task in reversed(tasks.items()) if isinstance(task, SubTask)}
    both = {name: [steps[name, part] for part in PARTS if (name, part) in steps] for name in tasks}
    return {name: (found[0], found[1]) for name, found in both.items() if len(found) == len(PARTS)}


def unrelated_tasks(tasks: dict[str, TaskConfig]) -> tuple[str, ...]:
    """The tasks that need none of the operations of a compositional task."""
    related = (AddSubTask, CompositionalTask, MulDivTask, SubTask)
    return tuple(name for name, task in tasks.items() if not isinstance(task, related))


def methods_by_union(methods: dict[str, MethodConfig]) -> dict[str, CircuitLoraMethod]:
    """The CircuitLoRAs whose ranks follow the union of the circuits of a task's sub-tasks."""
    return {n: m for n, m in methods.items() if isinstance(m, CircuitLoraMethod) and m.circuit == "union"}


def methods_from_sub_task(task: str, tasks: dict[str, TaskConfig], methods: dict[str, MethodConfig]) -> tuple[str, ...]:
    """Names of the methods, trained on the task that this one is a sub-task of, whose ranks need its circuits."""
    parents = [parent for parent, sub_tasks in sub_tasks_of(tasks).items() if task in sub_tasks]
    return tuple(name for name in methods_by_union(methods) if any(_trains(name, tasks[p]) for p in parents))


def problems_of_unions(tasks: dict[str, TaskConfig], methods: dict[str, MethodConfig]) -> list[str]:
    """One line for each method by union and each reason why there is no union: the key, the problem and the fix."""
    complete = sub_tasks_of(tasks)
    problems = []
    for name, method in methods_by_union(methods).items():
        without = [task for task in tasks if task not in complete and _trains(name, tasks[task])]
        compositional = [task for task in without if isinstance(tasks[task], CompositionalTask)]
        if others := [task for task in without if task not in compositional]:
            problems.append(
                f"methods.{name}.circuit: union is for compositional tasks, which {others} are not; list the methods "
                f"of these tasks without '{name}', as in tasks.{others[0]}.methods: [...]"
            )
        steps = {(task.of, task.part) for task in tasks.values() if isinstance(task, SubTask)}
        problems += [
            f"methods.{name}.circuit: union needs a sub-task {part} of '{task}'; add a task such as "
            f"{task}_{part}: {{family: sub_task, of: {task}, part: {part}, methods: []}}"
            for task in compositional
            for part in PARTS
            if (task, part) not in steps
        ]
        if method.phase_1 == GIVEN:
            problems.append(
                f"methods.{name}.circuit: circuits of given checkpoints are not united; choose a phase_1 that this "
                "study trains, or circuit own"
            )
    return problems


def _trains(method: str, task: TaskConfig) -> bool:
    return task.methods == "all" or method in task.methods
