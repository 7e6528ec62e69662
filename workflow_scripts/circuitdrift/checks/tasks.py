"""Whether a task can give what the config asks of it: enough prompts, answers, a model's numbers, the steps of a run.

A value that the config writes is refused where it cannot be had. A default that cannot be had gets a warning, since a
task with a small range need not name every size.
"""

from __future__ import annotations

from circuitdrift.config.models import ScratchModel
from circuitdrift.config.study import StudyConfig
from circuitdrift.study import Study
from circuitdrift.tasks.from_file import FileTask, lacks_answers
from circuitdrift.tasks.sub_tasks import SubTask
from circuitdrift.tasks.task import Task

SIZES = ("train", "circuit", "test")


def problems_of_tasks(study: Study) -> list[str]:
    """One line for each key of a task, or of the training on it, that cannot be had."""
    config = study.config
    return [
        *(problem for name, task in config.tasks.items() for problem in _problems_of_size(name, task, config)),
        *(f"{key}: {text}; {fix}" for key, text, fix, written in _large_numbers(config) if written),
        *_problems_of_answers(study),
        *_problems_of_steps(study),
    ]


def warnings_of_tasks(study: Study) -> list[str]:
    """One line for each default size or range that the generators cannot fill."""
    config = study.config
    return [
        *(_few_prompts(name, task, most) for name, task in config.tasks.items() if (most := _too_few(task))),
        *(
            f"{key}: {text}; such prompts are left out"
            for key, text, _, written in _large_numbers(config)
            if not written
        ),
    ]


def _problems_of_size(name: str, task: Task, config: StudyConfig) -> list[str]:
    problems = []
    most = task.most_examples()
    written = [size for size in SIZES if size in task.model_fields_set]
    if most is not None and (asked := sum(getattr(task, size) for size in written)) > most:
        problems.append(
            f"tasks.{name}.{written[0]}: asks with {' and '.join(written)} for {asked:,} prompts, of which its range "
            f"has at most {most:,}; ask for fewer, or widen the range"
        )
    if isinstance(task, SubTask):
        parent = config.tasks[task.of]
        problems += [
            f"tasks.{name}.{size}: asks for {getattr(task, size):,} steps of the {getattr(parent, size):,} items of "
            f"tasks.{task.of}.{size}, which have one each; lower it, or raise that"
            for size in written
            if getattr(task, size) > getattr(parent, size)
        ]
    return problems


def _too_few(task: Task) -> int | None:
    """The number of prompts of a task's range, if only its default sizes exceed it."""
    most = task.most_examples()
    asked = sum(getattr(task, size) for size in SIZES if size in task.model_fields_set)
    return most if most is not None and asked <= most < task.asked else None


def _few_prompts(name: str, task: Task, most: int) -> str:
    return (
        f"tasks.{name}: asks, with its default sizes, for {task.asked:,} prompts, of which its range has at most "
        f"{most:,}; train gets fewer"
    )


def _large_numbers(config: StudyConfig) -> list[tuple[str, str, str, bool]]:
    """Key, problem, fix, and whether the config writes it, of each range beyond the numbers of a scratch model."""
    found = []
    for name, task in config.tasks.items():
        largest = getattr(task, task.number_key) if task.number_key else None
        for model_name, model in config.models.items():
            if isinstance(model, ScratchModel) and largest is not None and largest > model.largest_number:
                text = f"{largest} exceeds the numbers of model '{model_name}', which end at {model.largest_number}"
                fix = f"lower it, or raise models.{model_name}.largest_number"
                written = task.number_key in task.model_fields_set
                found.append((f"tasks.{name}.{task.number_key}", text, fix, written))
    return found


def _problems_of_answers(study: Study) -> list[str]:
    """Methods and objectives that need the answers which a task lacks."""
    config = study.config
    without = {name: task for name, task in study.file_tasks.items() if lacks_answers(task)}
    problems = [
        f"tasks.{name}.methods: training by {', '.join(methods)} needs answers, and {_where_none(task)}; or write "
        "methods: [] for the circuit of the model as it is"
        for name, task in without.items()
        if (methods := study.methods_on(name)) and config.models
    ]
    objectives = {"circuit.objective": config.circuit.objective}
    objectives |= {f"recipes.{name}.objective": recipe.objective or "kl" for name, recipe in config.recipes.items()}
    problems += [
        f"{key}: {objective} needs answers, which task '{next(iter(without))}' lacks; use kl, or give the task answers"
        for key, objective in objectives.items()
        if without and objective != "kl"
    ]
    return problems


def _where_none(task: FileTask) -> str:
    if task.answers == "none":
        return "the task has answers: none; remove this key"
    return f"{task.path.name} has no column answer; add it"


def _problems_of_steps(study: Study) -> list[str]:
    """Runs of fewer steps than checkpoints, if they trained on all prompts that the task asks for."""
    training = study.config.training
    problems = []
    for task_name, task in study.config.tasks.items():
        for method_name in study.methods_on(task_name) if study.config.models else ():
            method = study.config.methods[method_name]
            epochs, steps = training.epochs_of(method), training.steps_of(method, task.train)
            if steps < training.checkpoints:
                problems.append(
                    f"training.checkpoints: {training.checkpoints} do not fit into the {steps} steps of method "
                    f"'{method_name}' on task '{task_name}' ({epochs:g} epochs of {task.train} prompts, "
                    f"training.batch_size {training.batch_size}); lower it, or train longer"
                )
    return problems
