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

from circuitdrift.config.compositions import methods_by_union, methods_from_sub_task, sub_tasks_of, unrelated_tasks
from circuitdrift.config.given import GIVEN, GIVEN_SEED
from circuitdrift.config.layer_sets import layer_sets
from circuitdrift.config.methods import AllocatedLoraMethod, CircuitLoraMethod, RandomLoraMethod, sham_twins
from circuitdrift.config.models import ScratchModel
from circuitdrift.config.reading import check_imported_files, load_study
from circuitdrift.config.study import OWN_RECIPE, StudyConfig
from circuitdrift.config.yaml_file import read_yaml
from circuitdrift.given_runs import GivenRuns
from circuitdrift.layout import CircuitFiles, Layout
from circuitdrift.provenance import checkpoint_names
from circuitdrift.runs import CircuitJob, Run, circuit_jobs, evenly_spaced
from circuitdrift.tasks.from_file import FileTask
from circuitdrift.tasks.sub_tasks import SubTask


def read_study(path: Path) -> Study:
    """Read and validate a config file.

    Raises:
        ConfigError: the file is missing, is not YAML or does not describe a study, or a file of circuits that it
            imports is missing.
    """
    return study_in(read_yaml(path), path.parent, path.name)


def study_in(raw: dict[str, Any], folder: Path, source: str) -> Study:
    """Validate the mapping that a config file holds.

    Args:
        raw: the mapping.
        folder: the folder that relative paths start from.
        source: what messages call it.

    Raises:
        ConfigError: it does not describe a study, or a file of circuits that it imports is missing.
    """
    config = load_study(raw, folder, source)
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
            return self.given.checkpoints(model)
        return self.checkpoints

    @cached_property
    def functional_checkpoints(self) -> tuple[str, ...]:
        """Evenly spaced checkpoints, the first and the last among them, whose circuits run in each other's models."""
        return evenly_spaced(self.checkpoints, self.config.drift.functional_checkpoints)

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
    def given(self) -> GivenRuns:
        """The checkpoints that were trained elsewhere."""
        return GivenRuns(self.config, self.layout)

    @cached_property
    def all_runs(self) -> tuple[Run, ...]:
        """Every fine-tuning, and the given checkpoints."""
        return (*self.runs, *self.given.runs)

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
        tasks, methods = self.config.tasks, self.config.methods
        wanted = tasks[task].methods
        if wanted == "all":
            return tuple(methods)
        led = (*wanted, *methods_from_sub_task(task, tasks, methods))
        needed = {*wanted, *(phase_1 for name, phase_1 in self.phase_1.items() if name in led)}
        return tuple(name for name in methods if name in needed)

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
        return (*(run for run in self.runs if run.method in self.drift_methods), *self.given.runs)

    def phase_1_run(self, run: Run) -> Run:
        """The run whose drift decides the ranks of an allocation: the method's phase 1, or the given checkpoints."""
        phase_1 = self.phase_1.get(run.method, run.method)
        return replace(run, method=phase_1, seed=GIVEN_SEED if phase_1 == GIVEN else run.seed)

    @cached_property
    def sham_twins(self) -> dict[str, str]:
        """The true twin of each control on permuted answers: the same method on its own answers; both with circuits."""
        return sham_twins({name: self.config.methods[name] for name in self.drift_methods})

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
        return (*own, *self.given.runs)

    @cached_property
    def circuit_lora_runs(self) -> tuple[Run, ...]:
        """Runs whose ranks follow the drift of their own circuit in a phase 1; the layers of a union lack certainty."""
        own = set(self.methods_of("circuit_lora")) - set(methods_by_union(self.config.methods))
        return tuple(run for run in self.runs if run.method in own)

    @cached_property
    def allocated_lora_runs(self) -> tuple[Run, ...]:
        """Runs whose ranks follow a rule other than drift."""
        return tuple(run for run in self.runs if run.method in self.methods_of("allocated_lora"))

    @cached_property
    def sub_tasks(self) -> dict[str, tuple[str, str]]:
        """The two sub-tasks of each compositional task that has both in the study."""
        return sub_tasks_of(self.config.tasks)

    @cached_property
    def composition_runs(self) -> tuple[Run, ...]:
        """Runs with circuits on a compositional task, where the same run on both sub-tasks has circuits, too."""
        runs = (run for run in self.runs if run.task in self.sub_tasks)
        return tuple(r for r in runs if all(map(self._has_circuits, (r, *r.on(self.sub_tasks[r.task])))))

    def unrelated_runs(self, run: Run) -> tuple[Run, ...]:
        """The same run on two tasks that have no operation in common with a compositional one; none without two."""
        found = tuple(filter(self._has_circuits, run.on(unrelated_tasks(self.config.tasks))))[:2]
        return found if len(found) == 2 else ()

    def _has_circuits(self, run: Run) -> bool:
        return run.method in self.drift_methods and run.method in self.methods_on(run.task)

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
        wanted, checkpoints = self.config.execution.checkpoints_per_job, self.checkpoints[1:]
        return circuit_jobs(self.layout, checkpoints, len(checkpoints) if wanted == "all" else wanted)

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
