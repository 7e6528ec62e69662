"""Values that the config may have but that hardly anybody wants: a warning of one line for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from circuitdrift.checks.tasks import warnings_of_tasks
from circuitdrift.config.models import ScratchModel
from circuitdrift.decoder.size import edges_in_share
from circuitdrift.models.shapes import ModelShape
from circuitdrift.section import Section
from circuitdrift.study import Study

LARGEST_LEARNING_RATE = 0.1
LARGEST_WEIGHT_DECAY = 1.0


def senseless_values(study: Study, shapes: Mapping[str, ModelShape | None]) -> list[str]:
    """One line for each senseless value: the key, the value, and what follows from it.

    Args:
        study: the study.
        shapes: the shape of each model by its name; None where it is not known yet.
    """
    return [
        *_nothing_to_do(study),
        *_learning_rates(study),
        *_sizes(study),
        *_circuits(study, shapes),
        *_repetitions("methods", study.config.methods),
        *_repetitions("recipes", study.config.recipes),
        *_recipes_like_the_own(study),
        *warnings_of_tasks(study),
    ]


def _nothing_to_do(study: Study) -> Iterator[str]:
    config = study.config
    circuits = config.recipes and study.models_and_tasks
    if not (study.all_runs or circuits or config.imports):
        empty = [key for key in ("models", "tasks", "methods") if not getattr(config, key)]
        why = f"{' and '.join(empty)} is empty" if empty else "no task has a method"
        yield f"study: '{config.study}' has no run, no recipe and no import, so it does nothing: {why}"


def _learning_rates(study: Study) -> Iterator[str]:
    config = study.config
    rates = {f"training.{key}": getattr(config.training, key) for key in ("learning_rate_lora", "learning_rate_full")}
    rates |= {f"methods.{name}.learning_rate": method.learning_rate for name, method in config.methods.items()}
    scratch = {name: model for name, model in config.models.items() if isinstance(model, ScratchModel)}
    rates |= {f"models.{name}.learning_rate": model.learning_rate for name, model in scratch.items()}
    for key, rate in rates.items():
        if rate is not None and rate > LARGEST_LEARNING_RATE:
            yield f"{key}: {rate:g} is a large learning rate, with which training mostly diverges"
    if (decay := config.training.weight_decay) > LARGEST_WEIGHT_DECAY:
        yield f"training.weight_decay: {decay:g} pulls the trained weights to zero faster than they learn"


def _sizes(study: Study) -> Iterator[str]:
    config = study.config
    training, examples, folds = config.training, config.faithfulness.examples, config.circuit.folds
    for name, task in config.tasks.items():
        if _written(config.faithfulness, "examples") and examples > task.test:
            yield f"faithfulness.examples: {examples} exceeds the {task.test} test prompts of '{name}': all are used"
        if _written(config.circuit, "folds") and folds > task.circuit:
            yield f"circuit.folds: {folds} exceeds the {task.circuit} circuit prompts of '{name}': one a fold"
        if study.methods_on(name) and training.batch_size > task.train:
            yield f"training.batch_size: {training.batch_size} exceeds the {task.train} train prompts of task '{name}'"
    if training.micro_batch_size and training.micro_batch_size > training.batch_size:
        yield (
            f"training.micro_batch_size: {training.micro_batch_size} exceeds training.batch_size "
            f"{training.batch_size}, so it has no effect"
        )
    wanted, saved = config.drift.functional_checkpoints, training.checkpoints + 1
    if _written(config.drift, "functional_checkpoints") and wanted > saved:
        yield f"drift.functional_checkpoints: {wanted} exceeds the {saved} checkpoints of a run: all are used"


def _circuits(study: Study, shapes: Mapping[str, ModelShape | None]) -> Iterator[str]:
    config = study.config
    for name, shape in shapes.items():
        fractions = config.faithfulness.size_fractions if _written(config.faithfulness, "size_fractions") else ()
        empty = [fraction for fraction in fractions if shape and edges_in_share(shape.edges, fraction) == 0]
        if shape and empty:
            yield (
                f"faithfulness.size_fractions: {empty} of the {shape.edges:,} edges of model '{name}' is no edge: "
                "an empty circuit"
            )
    if config.circuit.fraction == 1.0 and config.circuit.selection in {"top", "greedy"}:
        yield "circuit.fraction: 1 keeps every edge, so that no circuit changes"


def _repetitions(section: str, entries: Mapping[str, Section]) -> Iterator[str]:
    """Entries with the settings of an earlier one."""
    first: dict[Any, str] = {}
    for name, entry in entries.items():
        other = first.setdefault(entry.model_dump_json(), name)
        if other != name:
            yield f"{section}.{name}: has the settings of {section}.{other}, so its results are the same"


def _recipes_like_the_own(study: Study) -> Iterator[str]:
    own = study.config.circuit.recipe()
    for name, recipe in study.config.recipes.items():
        if recipe.applied_to(own) == own:
            yield f"recipes.{name}: changes nothing of circuit, so it is compared with itself"


def _written(section: Section, key: str) -> bool:
    """Whether the config file itself gives a key."""
    return key in section.model_fields_set
