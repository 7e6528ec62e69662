"""The contents of a study: its runs, the jobs that make its circuits, its figures and its tables. No torch.

Paths with braces are Snakemake patterns; :mod:`circuitdrift.layout` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from circuitdrift.config.given import GIVEN, GIVEN_SEED, GivenCheckpoint
from circuitdrift.config.layer_sets import layer_sets
from circuitdrift.config.methods import AllocatedLoraMethod, CircuitLoraMethod, RandomLoraMethod
from circuitdrift.config.models import HubModel, ScratchModel
from circuitdrift.config.reading import check_imported_files, load_study
from circuitdrift.config.study import OWN_RECIPE, StudyConfig
from circuitdrift.config.yaml_file import read_yaml
from circuitdrift.layout import CircuitFiles, Layout
from circuitdrift.provenance import checkpoint_names
from circuitdrift.runs import CircuitJob, Run, circuit_jobs
from circuitdrift.tasks.from_file import FileTask
from circuitdrift.tasks.sub_tasks import SubTask


def read_study(path: Path) -> Study:
    """Read and validate a config file.

    Raises:
        ConfigError: the file is missing, is not YAML or does not describe a study, or a file of circuits that it
            imports is missing.
    """
    config = load_study(read_yaml(path), path.parent, path.name)
    check_imported_files(config)
    return Study(config)


@dataclass(frozen=True)
class Study:
    """A validated config and everything that follows from it."""

    config: StudyConfig

    @cached_property
    def layout(self) -> Layout:
        """The paths of the study's files."""
        return Layout(self.config.study)

    @cached_property
    def checkpoints(self) -> tuple[str, ...]:
        """Names of a run's checkpoints, the base model's first."""
        return checkpoint_names(self.config.training.checkpoints)

    def checkpoints_of(self, model: str, method: str) -> tuple[str, ...]:
        """Names of the checkpoints of a model's run by a method, the base model's first."""
        if method == GIVEN:
            return checkpoint_names(len(self.config.models[model].checkpoints))
        return self.checkpoints

    @cached_property
    def functional_checkpoints(self) -> tuple[str, ...]:
        """Evenly spaced checkpoints, the first and the last among them, whose circuits run in each other's models."""
        return self._evenly_spaced(self.checkpoints)

    def _evenly_spaced(self, checkpoints: tuple[str, ...]) -> tuple[str, ...]:
        last = len(checkpoints) - 1
        steps = min(self.config.drift.functional_checkpoints - 1, last)
        return tuple(checkpoints[round(last * step / steps)] for step in range(steps + 1))

    @cached_property
    def circuits(self) -> tuple[CircuitFiles, ...]:
        """The circuit of the base model and of each checkpoint after it, in order."""
        return self._circuits_at(self.checkpoints)

    def circuits_of(self, model: str, method: str) -> tuple[CircuitFiles, ...]:
        """The same of a model's run by a method."""
        return self._circuits_at(self.checkpoints_of(model, method))

    def _circuits_at(self, checkpoints: tuple[str, ...]) -> tuple[CircuitFiles, ...]:
        return (self.layout.base_circuit, *map(self.layout.run_circuit, checkpoints[1:]))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every fine-tuning of the study."""
        config = self.config
        return tuple(
            Run(model, task, method, seed)
            for model in config.models
            for task in config.tasks
            for method in self.methods_on(task)
            for seed in config.seeds
        )

    @cached_property
    def given_models(self) -> tuple[str, ...]:
        """Names of the models with given checkpoints."""
        return tuple(name for name, model in self.config.models.items() if model.checkpoints)

    @cached_property
    def given_runs(self) -> tuple[Run, ...]:
        """The given checkpoints of each model that has some, on every task, as a run that nobody trains here."""
        return tuple(self.given_run(model, task) for model in self.given_models for task in self.config.tasks)

    def given_run(self, model: str, task: str) -> Run:
        """The given checkpoints of a model on a task."""
        return Run(model, task, GIVEN, GIVEN_SEED)

    @cached_property
    def all_runs(self) -> tuple[Run, ...]:
        """Every fine-tuning, and the given checkpoints."""
        return (*self.runs, *self.given_runs)

    def given_checkpoint(self, model: str, checkpoint: str) -> GivenCheckpoint:
        """A given checkpoint by its name, two digits from ``01``; a revision of a hub model has the model's id."""
        section = self.config.models[model]
        given = section.checkpoints[int(checkpoint) - 1]
        if given.folder is None and given.hub_id is None and isinstance(section, HubModel):
            return given.model_copy(update={"id": section.id})
        return given

    def given_files(self, model: str, checkpoint: str) -> list[str]:
        """The files on this machine of a given checkpoint; none of one on the hub."""
        folder = self.given_checkpoint(model, checkpoint).folder
        files = folder.glob("*") if folder else ()
        return sorted(str(path) for path in files if path.suffix in {".json", ".safetensors"})

    def given_folders(self, model: str) -> list[str]:
        """The folder in the results of each given checkpoint of a model."""
        return self._given_folders(model, self.checkpoints_of(model, GIVEN)[1:])

    def given_functional_folders(self, model: str) -> list[str]:
        """The same of those whose circuits run in each other's models."""
        return self._given_folders(model, self._evenly_spaced(self.checkpoints_of(model, GIVEN))[1:])

    def _given_folders(self, model: str, checkpoints: tuple[str, ...]) -> list[str]:
        return [self.layout.given_checkpoint.format(model=model, checkpoint=name) for name in checkpoints]

    @cached_property
    def untouched(self) -> tuple[dict[str, str], ...]:
        """Every model with every task that has no run, as wildcards: circuits of models as they are."""
        with_runs = {(run.model, run.task) for run in self.all_runs}
        return tuple(pair for pair in self.models_and_tasks if (pair["model"], pair["task"]) not in with_runs)

    @cached_property
    def extracted(self) -> tuple[dict[str, str], ...]:
        """Every model with every task whose circuits are extracted, as wildcards."""
        with_circuits = {(run.model, run.task) for run in self.drift_runs}
        return tuple(
            pair
            for pair in self.models_and_tasks
            if pair in self.untouched or (pair["model"], pair["task"]) in with_circuits
        )

    def methods_on(self, task: str) -> tuple[str, ...]:
        """Methods that are trained on a task: those that it names, and each ``phase_1`` that they need."""
        wanted = self.config.tasks[task].methods
        if wanted == "all":
            return tuple(self.config.methods)
        needed = {*wanted, *(phase_1 for name, phase_1 in self.phase_1.items() if name in wanted)}
        return tuple(name for name in self.config.methods if name in needed)

    @cached_property
    def phase_1(self) -> dict[str, str]:
        """The method that is the phase 1 of each method that has one."""
        methods = self.config.methods.items()
        of_two_phases = {n: m.phase_1 for n, m in methods if isinstance(m, CircuitLoraMethod | AllocatedLoraMethod)}
        return {name: phase_1 for name, phase_1 in of_two_phases.items() if phase_1}

    @cached_property
    def traced_phase_1(self) -> frozenset[str]:
        """Names of each ``phase_1`` whose circuits decide ranks; of an AdaLoRA its ranks alone do."""
        names = frozenset(self.phase_1.values()) - {GIVEN}
        return frozenset(name for name in names if self.config.methods[name].kind != "adalora")

    @cached_property
    def layer_sets(self) -> dict[str, dict[str, list[int]]]:
        """The methods that are all sets of as many layers as a CircuitLoRA has critical layers, with their layers."""
        return layer_sets(self.config)

    @cached_property
    def drift_methods(self) -> tuple[str, ...]:
        """Methods whose checkpoints' circuits are extracted: those configured, and each ``phase_1`` that needs them."""
        config = self.config
        wanted = config.methods if config.drift.methods == "all" else config.drift.methods
        return tuple(name for name in config.methods if name in wanted or name in self.traced_phase_1)

    @cached_property
    def drift_runs(self) -> tuple[Run, ...]:
        """Runs whose circuits are extracted at every checkpoint, given checkpoints last."""
        return (*(run for run in self.runs if run.method in self.drift_methods), *self.given_runs)

    def phase_1_run(self, run: Run) -> Run:
        """The run whose drift decides the ranks of an allocation: the method's phase 1, or the given checkpoints."""
        phase_1 = self.phase_1.get(run.method, run.method)
        return replace(run, method=phase_1, seed=GIVEN_SEED if phase_1 == GIVEN else run.seed)

    @cached_property
    def sham_twins(self) -> dict[str, str]:
        """The true twin of each control on permuted answers: the same method on its own answers; both with circuits."""
        methods = self.config.methods
        return {
            sham: twin
            for sham in self.drift_methods
            for twin in self.drift_methods
            if methods[sham].answers == "permuted"
            and methods[sham].model_copy(update={"answers": "own"}) == methods[twin]
        }

    @cached_property
    def sham_runs(self) -> tuple[Run, ...]:
        """Runs on permuted answers whose drift has that of a true twin beside it."""
        runs, twins = self.drift_runs, self.sham_twins
        return tuple(run for run in runs if run.method in twins and replace(run, method=twins[run.method]) in runs)

    @cached_property
    def allocated_runs(self) -> tuple[Run, ...]:
        """Runs of CircuitLoRA and RandomLoRA, whose critical layers decide their ranks, and given checkpoints."""
        methods = self.config.methods
        own = (r for r in self.runs if isinstance(methods[r.method], CircuitLoraMethod | RandomLoraMethod))
        return (*own, *self.given_runs)

    @cached_property
    def circuit_lora_runs(self) -> tuple[Run, ...]:
        """Runs whose ranks follow the drift of a phase 1."""
        return tuple(run for run in self.runs if run.method in self.methods_of("circuit_lora"))

    @cached_property
    def allocated_lora_runs(self) -> tuple[Run, ...]:
        """Runs whose ranks follow a rule other than drift."""
        return tuple(run for run in self.runs if run.method in self.methods_of("allocated_lora"))

    @cached_property
    def tuned_runs(self) -> tuple[Run, ...]:
        """Runs whose learning rate is searched for: all or none."""
        return self.runs if self.config.learning_rate_search.rates else ()

    @cached_property
    def fetched_runs(self) -> tuple[Run, ...]:
        """Runs on models whose shape may be unknown until they are fetched."""
        return tuple(run for run in self.all_runs if run.model in self.models_from("hub", "package"))

    @cached_property
    def fetched_untouched(self) -> tuple[dict[str, str], ...]:
        """Those of :attr:`untouched` whose model may have a shape that is unknown until it is fetched."""
        fetched = self.models_from("hub", "package")
        return tuple(pair for pair in self.untouched if pair["model"] in fetched)

    @cached_property
    def untrained_seeds(self) -> tuple[int, ...]:
        """Seeds of the untrained models whose circuits are controls."""
        return tuple(range(self.config.drift.untrained))

    @cached_property
    def untrained_scores(self) -> tuple[str, ...]:
        """The edge scores of each untrained model; the wildcards of model and task stay."""
        return tuple(map(self.layout.untrained_scores, self.untrained_seeds))

    @cached_property
    def reworded_tasks(self) -> tuple[str, ...]:
        """Names of the tasks whose family has a second wording."""
        return tuple(name for name, task in self.config.tasks.items() if task.wording is not None)

    @cached_property
    def model_control_runs(self) -> tuple[Run, ...]:
        """Runs with circuits, on a task that has a control of its own: a second wording, or untrained models."""
        return tuple(r for r in self.drift_runs if self.untrained_seeds or r.task in self.reworded_tasks)

    @cached_property
    def robustness_runs(self) -> tuple[Run, ...]:
        """Runs with circuits, where their robustness to other prompts is asked for."""
        return self.drift_runs if self.config.drift.perturbed_draws or self.config.drift.disjoint_splits else ()

    @cached_property
    def split_untrained_runs(self) -> tuple[Run, ...]:
        """Runs with circuits, where those of untrained models are compared over disjoint splits of the prompts."""
        return self.drift_runs if self.untrained_seeds and self.config.drift.disjoint_splits else ()

    def models_from(self, *sources: str) -> tuple[str, ...]:
        """Names of the models of some sources."""
        return tuple(name for name, model in self.config.models.items() if model.source in sources)

    def methods_of(self, kind: str) -> tuple[str, ...]:
        """Names of the methods of a kind."""
        return tuple(name for name, method in self.config.methods.items() if method.kind == kind)

    @cached_property
    def methods_by_module(self) -> tuple[str, ...]:
        """Names of the methods whose ranks differ between the modules of a layer."""
        methods = self.config.methods.items()
        return tuple(n for n, m in methods if isinstance(m, CircuitLoraMethod) and m.allocation == "per_module")

    def methods_allocated_by(self, *allocations: str) -> tuple[str, ...]:
        """Names of the methods of kind ``allocated_lora`` with one of these allocations."""
        methods = self.config.methods.items()
        return tuple(n for n, m in methods if isinstance(m, AllocatedLoraMethod) and m.allocation in allocations)

    @cached_property
    def file_tasks(self) -> dict[str, FileTask]:
        """The tasks whose prompts are in a file."""
        return {name: task for name, task in self.config.tasks.items() if isinstance(task, FileTask)}

    @cached_property
    def prompt_files(self) -> dict[str, Path]:
        """The file of each task that has one."""
        return {name: task.path for name, task in self.file_tasks.items()}

    @cached_property
    def dropping_tasks(self) -> tuple[str, ...]:
        """Names of the tasks that leave out the rows of their file which do not fit."""
        return tuple(name for name, task in self.file_tasks.items() if task.invalid_rows == "drop")

    @cached_property
    def dropping(self) -> tuple[dict[str, str], ...]:
        """Every model with every task that leaves out rows, as wildcards."""
        return tuple(pair for pair in self.models_and_tasks if pair["task"] in self.dropping_tasks)

    def data_settings(self, task: str) -> dict[str, Any]:
        """What a task's data depend on, as JSON values: its section without the methods that are trained on it."""
        return self.config.tasks[task].model_dump(mode="json", exclude={"methods"})

    def parent_of(self, task: str) -> dict[str, Any] | None:
        """The compositional task that a sub-task is taken from, as JSON values; None for other tasks."""
        found = self.config.tasks[task]
        return self.data_settings(found.of) if isinstance(found, SubTask) else None

    def is_small(self, model: str) -> bool:
        """Whether a model is the workflow's own, so that one core serves it best."""
        return isinstance(self.config.models[model], ScratchModel)

    @cached_property
    def circuit_jobs(self) -> tuple[CircuitJob, ...]:
        """The base model's job, and one for each group of ``execution.checkpoints_per_job`` checkpoints."""
        return circuit_jobs(self.layout, self.checkpoints, self.config.execution.checkpoints_per_job)

    def imported_circuits(self, name: str) -> tuple[CircuitFiles, ...]:
        """The circuit of each checkpoint of an import, in order; the wildcard ``name`` stays."""
        return tuple(map(self.layout.imported_circuit, self.config.imports[name].checkpoints))

    @cached_property
    def compared_recipes(self) -> tuple[dict[str, str], ...]:
        """Every model with every task on which recipes are compared, as wildcards."""
        return self.models_and_tasks if self.config.recipes else ()

    @cached_property
    def recipe_pairs(self) -> tuple[dict[str, str], ...]:
        """Those of :attr:`compared_recipes`, or else those of :attr:`untouched`, where the own recipe stands alone.

        A circuit that is not compared with those of later checkpoints has its reliability from here.
        """
        return self.compared_recipes or self.untouched

    @cached_property
    def recipes(self) -> dict[str, CircuitFiles]:
        """The base model's circuit by each recipe that is compared, the study's own first; none where none are."""
        if not self.recipe_pairs:
            return {}
        folder = self.layout.recipe_circuit.folder
        others = {name: CircuitFiles(folder.replace("{recipe}", name)) for name in self.config.recipes}
        return {OWN_RECIPE: self.layout.base_circuit, **others}

    @cached_property
    def models_and_tasks(self) -> tuple[dict[str, str], ...]:
        """Every model with every task, as wildcards."""
        return tuple({"model": model, "task": task} for model in self.config.models for task in self.config.tasks)

    def of_pairs(self, pattern: str, pairs: Iterable[dict[str, str]]) -> list[str]:
        """A pattern filled in for each of some models with tasks, without repetition and in order."""
        return list(dict.fromkeys(pattern.format(**pair) for pair in pairs))

    def of_imports(self, pattern: str) -> list[str]:
        """A pattern filled in for each import."""
        return [pattern.format(name=name) for name in self.config.imports]

    def of_runs(self, pattern: str, runs: tuple[Run, ...]) -> list[str]:
        """A pattern filled in for each run, without repetition and in order; ``{name}`` is the method."""
        return list(dict.fromkeys(_fill(pattern, run) for run in runs))

    def of_each_seed(self, pattern: str) -> list[str]:
        """A pattern with the seed filled in, for each seed of the study; the other wildcards stay."""
        return [pattern.replace("{seed}", str(seed)) for seed in self.config.seeds]

    def of_circuits(self, run: Run, file: str, *places: int) -> list[str]:
        """A file of a run's circuits, by its name in :class:`CircuitFiles`: of all, or of those at some places."""
        circuits = self.circuits_of(run.model, run.method)
        return [_fill(getattr(circuits[place], file), run) for place in places or range(len(circuits))]

    def of_drift_runs(self, file: str, *places: int) -> list[str]:
        """The same of each run with circuits, one checkpoint of all runs after the other."""
        columns = zip_longest(*(self.of_circuits(run, file, *places) for run in self.drift_runs))
        return list(dict.fromkeys(path for column in columns for path in column if path))


def _fill(pattern: str, run: Run) -> str:
    return pattern.format(model=run.model, task=run.task, method=run.method, seed=run.seed, name=run.method)
