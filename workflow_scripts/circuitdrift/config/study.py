"""A whole config file, and the references between its sections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from circuitdrift.config.circuits import Circuit, Composition, Drift, Faithfulness, Recipe
from circuitdrift.config.compositions import problems_of_unions
from circuitdrift.config.figures import Figures
from circuitdrift.config.given import GIVEN, DriftRanks
from circuitdrift.config.imports import ImportedCircuits
from circuitdrift.config.learning_rates import LearningRateSearch
from circuitdrift.config.methods import (
    AdaLoraMethod,
    AllocatedLoraMethod,
    CircuitLoraMethod,
    FullMethod,
    GrpoMethod,
    LoraMethod,
    MethodConfig,
    Training,
)
from circuitdrift.config.models import ModelConfig
from circuitdrift.section import Name, Section
from circuitdrift.tasks.compositional import CompositionalTask
from circuitdrift.tasks.families import TaskConfig
from circuitdrift.tasks.sub_tasks import SubTask

RESERVED_NAMES = frozenset({"base", GIVEN, "imported", "untrained"})
WINDOWS_NAMES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
)
OWN_RECIPE = "own"
"""The name of the study's own recipe among those that are compared."""


class Execution(Section):
    """How jobs run, beyond the settings of rules and profiles."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: a GPU where a job of a large model has one"
    )
    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="of a fine-tuning, each with a GPU; auto: one for each GPU, one for the workflow's own models",
    )
    sharding: Literal["none", "full"] = Field(
        "none", description="none: each process holds the whole model; full: weights, gradients and averages are spread"
    )
    checkpoints_per_job: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        "all", description="checkpoints whose circuits one job makes; fewer make more jobs, side by side on a cluster"
    )


class StudyConfig(Section):
    """A whole config file."""

    study: Name = Field("embedded", description="name of the study; its results go to results/NAME")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="of the fine-tunings; every method runs with each"
    )
    models: dict[Name, ModelConfig] = Field(default_factory=dict, description="models by name")
    tasks: dict[Name, TaskConfig] = Field(default_factory=dict, description="tasks by name")
    methods: dict[Name, MethodConfig] = Field(default_factory=dict, description="ways to fine-tune, by name")
    training: Training = Training()
    learning_rate_search: LearningRateSearch = LearningRateSearch()
    circuit: Circuit = Circuit()
    recipes: dict[Name, Recipe] = Field(
        default_factory=dict, description="ways to score edges that are compared with that of circuit on the base model"
    )
    faithfulness: Faithfulness = Faithfulness()
    drift: Drift = Drift()
    composition: Composition = Composition()
    figures: Figures = Figures()
    given: DriftRanks = Field(
        DriftRanks(), description="ranks that the drift of models' given checkpoints (models.NAME.checkpoints) leads to"
    )
    imports: dict[Name, ImportedCircuits] = Field(
        default_factory=dict, description="circuits that other tools extracted, by name"
    )
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections_take_their_defaults(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data

    @model_validator(mode="after")
    def _references_resolve(self) -> StudyConfig:
        problems = [
            *self._reserved_names(),
            *self._odd_names(),
            *self._method_problems(),
            *self._task_problems(),
            *problems_of_unions(self.tasks, self.methods),
            *self._drift_problems(),
            *self._recipe_problems(),
            *self._figure_problems(),
            *self._sharding_problems(),
        ]
        if len(set(self.seeds)) != len(self.seeds):
            problems.append(f"seeds: {list(self.seeds)} names a seed twice; list each once")
        search = self.learning_rate_search
        if search.rates and search.seed in self.seeds:
            problems.append(
                f"learning_rate_search.seed: {search.seed} is a seed of the study, whose runs would repeat the trials; "
                f"choose a seed outside seeds {list(self.seeds)}"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _reserved_names(self) -> list[str]:
        return [
            f"{section}.{name}: the name '{name}' is taken by a folder of the results; choose another name"
            for section in ("models", "methods")
            for name in getattr(self, section)
            if name in RESERVED_NAMES
        ]

    def _odd_names(self) -> list[str]:
        """Names that some file system does not take, or takes for another name."""
        named = ("models", "tasks", "methods", "recipes", "imports")
        places = [("", "study", self.study), *((f"{key}.", key, name) for key in named for name in getattr(self, key))]
        problems, seen = [], dict[tuple[str, str], str]()
        for prefix, section, name in places:
            key = f"{prefix}{name}" if prefix else section
            if name.split(".")[0].lower() in WINDOWS_NAMES or name.endswith("."):
                problems.append(f"{key}: Windows allows no folder '{name}'; choose another name")
            other = seen.setdefault((section, name.lower()), name)
            if other != name:
                problems.append(
                    f"{key}: differs from '{other}' in capital letters alone, and some file systems take them for one "
                    "folder; choose another name"
                )
        return problems

    def _drift_problems(self) -> list[str]:
        if self.drift.methods == "all":
            return []
        unknown = [name for name in self.drift.methods if name not in self.methods]
        return [f"drift.methods: '{name}' is not in methods; choose from {list(self.methods)}" for name in unknown]

    def _recipe_problems(self) -> list[str]:
        problems = []
        for name, changes in self.recipes.items():
            if name == OWN_RECIPE:
                problems.append(f"recipes.{name}: this name is that of circuit's own recipe; choose another name")
            try:
                changes.applied_to(self.circuit.recipe())
            except ValidationError as error:
                problems.append(f"recipes.{name}: {error.errors()[0]['ctx']['error']}")
        if self.recipes and self.circuit.selection not in {"top", "greedy"}:
            problems.append(
                f"circuit.selection: {self.circuit.selection} gives circuits of different sizes, which the comparison "
                "of recipes cannot use; choose top or greedy, or remove recipes"
            )
        return problems

    def _method_problems(self) -> list[str]:
        problems = []
        for name, method in self.methods.items():
            if isinstance(method, CircuitLoraMethod) and method.phase_1 == GIVEN:
                problems += [
                    f"methods.{name}.phase_1: '{GIVEN}' means checkpoints trained elsewhere, which model '{model}' "
                    f"lacks; add models.{model}.checkpoints, or choose a method of this study"
                    for model, section in self.models.items()
                    if not section.checkpoints
                ]
            elif isinstance(method, CircuitLoraMethod):
                phase_1 = self.methods.get(method.phase_1)
                if not isinstance(phase_1, LoraMethod | FullMethod):
                    plain = [n for n, m in self.methods.items() if isinstance(m, LoraMethod | FullMethod)]
                    problems.append(
                        f"methods.{name}.phase_1: '{method.phase_1}' is not a lora or full method of this study; "
                        f"choose one of {plain or '(none: add one, such as lora_r2: {kind: lora, rank: 2})'}"
                    )
            if isinstance(method, AllocatedLoraMethod) and method.phase_1 is not None:
                kinds = (AdaLoraMethod,) if method.allocation == "adalora" else (LoraMethod, FullMethod)
                if not isinstance(self.methods.get(method.phase_1), kinds):
                    fitting = [n for n, m in self.methods.items() if isinstance(m, kinds)]
                    wanted = "an adalora" if method.allocation == "adalora" else "a lora or full"
                    problems.append(
                        f"methods.{name}.phase_1: '{method.phase_1}' is not {wanted} method of this study; "
                        f"choose one of {fitting or '(none: add one)'}"
                    )
        return problems

    def _task_problems(self) -> list[str]:
        problems = []
        for name, task in self.tasks.items():
            if isinstance(task, SubTask) and not isinstance(self.tasks.get(task.of), CompositionalTask):
                compositional = [n for n, t in self.tasks.items() if isinstance(t, CompositionalTask)]
                problems.append(
                    f"tasks.{name}.of: '{task.of}' is not a compositional task of this study; "
                    f"choose one of {compositional or '(none: add one with family: compositional)'}"
                )
            problems += [
                f"tasks.{name}.methods: '{method}' is not in methods; choose from {list(self.methods)}"
                for method in (() if task.methods == "all" else task.methods)
                if method not in self.methods
            ]
        return problems

    def _sharding_problems(self) -> list[str]:
        if self.execution.sharding == "none":
            return []
        return [
            f"execution.sharding: '{name}' is of kind {method.kind}, which cannot train a sharded model; set it to "
            "none, or move the method to a study of its own"
            for name, method in self.methods.items()
            if isinstance(method, AdaLoraMethod | GrpoMethod)
        ]

    def _figure_problems(self) -> list[str]:
        problems = []
        for key, known in (("model", self.models), ("task", self.tasks)):
            wanted = getattr(self.figures, key)
            if wanted is not None and wanted not in known:
                problems.append(f"figures.{key}: '{wanted}' is not in {key}s; choose one of {list(known)}")
        return problems
