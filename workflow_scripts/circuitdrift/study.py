"""The table of a study: its runs, its circuits, and the path of every file (DESIGN section 2). No torch.

Paths with braces are Snakemake patterns, relative to the working directory. This module is the only place that
knows the layout of ``results``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from circuitdrift.config.methods import CircuitLoraMethod, RandomLoraMethod
from circuitdrift.config.models import ScratchModel
from circuitdrift.config.reading import ConfigError, check_imported_files, load_study
from circuitdrift.config.study import StudyConfig
from circuitdrift.config.tasks import FileTask, SubTask


@dataclass(frozen=True)
class Run:
    """One fine-tuning: a model on a task by a method with a seed."""

    model: str
    task: str
    method: str
    seed: int


@dataclass(frozen=True)
class CircuitJob:
    """The circuits that one job makes: of the base model, or of some checkpoints of a run.

    ``folders`` and ``checkpoints`` are patterns; the base model has one folder and no checkpoint.
    """

    name: str
    folders: tuple[str, ...]
    checkpoints: tuple[str, ...]

    @property
    def log_name(self) -> str:
        """Where the job's log goes, in the folder of its rule."""
        return (
            "{model}/{task}/base"
            if not self.checkpoints
            else f"{{model}}/{{task}}/{{method}}/seed-{{seed}}/{self.name}"
        )

    def files(self, name: str) -> list[str]:
        """The file of that name in each folder."""
        return [f"{folder}/{name}" for folder in self.folders]

    @property
    def scoring_benchmark(self) -> str:
        """Snakemake's measurements of the job that scores the edges of these circuits, beside the first of them."""
        return f"{self.folders[0]}/scoring_benchmark.tsv"


def read_study(path: Path) -> Study:
    """Read and validate a config file.

    Raises:
        ConfigError: the file is missing, is not YAML, or says something that a study cannot be made of; or a file of
            circuits that it imports is missing.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file; give an existing one with --configfile")
    try:
        raw = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    config = load_study(raw, path.parent, path.name)
    check_imported_files(config)
    return Study(config)


@dataclass(frozen=True)
class Study:
    """A validated config and everything that follows from it."""

    config: StudyConfig

    # ------------------------------------------------------------------------------------------------ patterns

    @property
    def results(self) -> str:
        """The folder of everything that the study computes."""
        return f"results/{self.config.study}"

    @property
    def model_folder(self) -> str:
        """Pattern of a model's folder."""
        return f"{self.results}/models/{{model}}"

    @property
    def manifest(self) -> str:
        """Pattern of a model's manifest."""
        return f"{self.model_folder}/manifest.json"

    @property
    def data(self) -> str:
        """Pattern of the folder that holds a task's splits."""
        return f"{self.results}/data/{{model}}/{{task}}"

    @property
    def run(self) -> str:
        """Pattern of a run's folder."""
        return f"{self.results}/runs/{{model}}/{{task}}/{{method}}/seed-{{seed}}"

    @property
    def benchmark(self) -> str:
        """Pattern of Snakemake's measurements of a fine-tuning job."""
        return f"{self.run}/benchmark.tsv"

    @property
    def trials(self) -> str:
        """Pattern of the table of a search for a learning rate."""
        return f"{self.results}/learning_rates/{{model}}/{{task}}/{{method}}/trials.parquet"

    @property
    def circuits(self) -> str:
        """Pattern of the folder that holds a run's circuits, one folder for each checkpoint."""
        return f"{self.results}/circuits/{{model}}/{{task}}/{{method}}/seed-{{seed}}"

    @property
    def base_circuit(self) -> str:
        """Pattern of the folder of the base model's circuit, the same for every method and seed."""
        return f"{self.results}/circuits/{{model}}/{{task}}/base"

    @property
    def drift(self) -> str:
        """Pattern of the folder of a run's drift tables."""
        return f"{self.results}/drift/{{model}}/{{task}}/{{method}}/seed-{{seed}}"

    @property
    def controls(self) -> str:
        """Pattern of a method's control comparisons, which take all of its seeds."""
        return f"{self.results}/drift/{{model}}/{{task}}/{{method}}/controls.parquet"

    @property
    def allocation(self) -> str:
        """Pattern of the folder of an allocation of ranks; its name is that of the method that uses it."""
        return f"{self.results}/allocation/{{model}}/{{task}}/{{name}}/seed-{{seed}}"

    @property
    def imported_circuits(self) -> str:
        """Pattern of the folder of an import's circuits, one folder for each checkpoint; the name is the import's."""
        return f"{self.results}/circuits/imported/{{name}}"

    @property
    def imported_drift(self) -> str:
        """Pattern of the folder of the drift tables of circuits made elsewhere."""
        return f"{self.results}/drift/imported/{{name}}"

    @property
    def imported_allocation(self) -> str:
        """Pattern of the folder of the allocation of ranks that follows from circuits made elsewhere."""
        return f"{self.results}/allocation/imported/{{name}}"

    # ------------------------------------------------------------------------------------------------ contents

    @cached_property
    def checkpoints(self) -> tuple[str, ...]:
        """Checkpoints after the base model: ``01`` and on."""
        return tuple(f"{number:02d}" for number in range(1, self.config.training.checkpoints + 1))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every fine-tuning of the study."""
        config = self.config
        return tuple(
            Run(model, task, method, seed)
            for model in config.models
            for task in config.tasks
            for method in config.methods
            for seed in config.seeds
        )

    @cached_property
    def phase_1(self) -> dict[str, str]:
        """The method that is the phase 1 of each method that has one."""
        methods = self.config.methods
        return {name: m.phase_1 for name, m in methods.items() if isinstance(m, CircuitLoraMethod)}

    @cached_property
    def drift_methods(self) -> tuple[str, ...]:
        """Methods whose checkpoints' circuits are extracted: those configured, and every ``phase_1``."""
        config = self.config
        wanted = config.methods if config.drift.methods == "all" else config.drift.methods
        return tuple(name for name in config.methods if name in wanted or name in self.phase_1.values())

    @cached_property
    def drift_runs(self) -> tuple[Run, ...]:
        """Runs whose circuits are extracted at every checkpoint."""
        return tuple(run for run in self.runs if run.method in self.drift_methods)

    @cached_property
    def allocated_runs(self) -> tuple[Run, ...]:
        """Runs whose ranks differ between layers."""
        methods = self.config.methods
        return tuple(r for r in self.runs if isinstance(methods[r.method], CircuitLoraMethod | RandomLoraMethod))

    @cached_property
    def tuned_runs(self) -> tuple[Run, ...]:
        """Runs whose learning rate is searched for: all or none."""
        return self.runs if self.config.learning_rate_search.rates else ()

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

    @cached_property
    def prompt_files(self) -> dict[str, Path]:
        """The file of each task that has one."""
        return {name: task.path for name, task in self.config.tasks.items() if isinstance(task, FileTask)}

    def parent_of(self, task: str) -> dict[str, Any] | None:
        """The compositional task that a sub-task is taken from, as JSON values; None for other tasks."""
        found = self.config.tasks[task]
        return self.config.tasks[found.of].model_dump(mode="json") if isinstance(found, SubTask) else None

    def is_small(self, model: str) -> bool:
        """Whether a model is the workflow's own, so that one core serves it best."""
        return isinstance(self.config.models[model], ScratchModel)

    # ---------------------------------------------------------------------------------------------- jobs, files

    @cached_property
    def circuit_jobs(self) -> tuple[CircuitJob, ...]:
        """The base model's job, and one for each group of ``execution.checkpoints_per_job`` checkpoints."""
        wanted = self.config.execution.checkpoints_per_job
        size = len(self.checkpoints) if wanted == "all" else wanted
        groups = [self.checkpoints[start : start + size] for start in range(0, len(self.checkpoints), size)]
        return (
            CircuitJob("base", (self.base_circuit,), ()),
            *(
                CircuitJob(
                    f"{group[0]}_to_{group[-1]}",
                    tuple(f"{self.circuits}/{checkpoint}" for checkpoint in group),
                    tuple(f"{self.run}/checkpoints/{checkpoint}" for checkpoint in group),
                )
                for group in groups
            ),
        )

    def circuit_files(self, name: str) -> list[str]:
        """Patterns of a circuit file of the base model and of each checkpoint, in order."""
        return [f"{self.base_circuit}/{name}", *(f"{self.circuits}/{c}/{name}" for c in self.checkpoints)]

    def imported_files(self, name: str, file: str) -> list[str]:
        """A circuit file of each checkpoint of an import, in order; the wildcard ``name`` stays."""
        return [f"{self.imported_circuits}/{label}/{file}" for label in self.config.imports[name].checkpoints]

    def of_imports(self, pattern: str) -> list[str]:
        """A pattern filled in for each import."""
        return [pattern.format(name=name) for name in self.config.imports]

    def of_runs(self, pattern: str, runs: tuple[Run, ...]) -> list[str]:
        """A pattern filled in for each run, without repetition and in order; ``{name}`` is the method."""
        return list(dict.fromkeys(_fill(pattern, run) for run in runs))

    def of_each_seed(self, pattern: str) -> list[str]:
        """A pattern with the seed filled in, for each seed of the study; the other wildcards stay."""
        return [pattern.replace("{seed}", str(seed)) for seed in self.config.seeds]

    def all_circuit_files(self, name: str) -> list[str]:
        """A circuit file of every base model and of every checkpoint of every run with circuits."""
        return [path for pattern in self.circuit_files(name) for path in self.of_runs(pattern, self.drift_runs)]

    def base_and_last_circuit_files(self, name: str) -> list[str]:
        """A circuit file of every base model and of the last checkpoint of every run with circuits."""
        first, *_, last = self.circuit_files(name)
        return self.of_runs(first, self.drift_runs) + self.of_runs(last, self.drift_runs)


def _fill(pattern: str, run: Run) -> str:
    return pattern.format(model=run.model, task=run.task, method=run.method, seed=run.seed, name=run.method)
