"""How long a job takes, from the study's config and rates that were measured once.

A job takes the time to start, and its work at the rates of its stage. Work is counted in *parameter-tokens*: a model
of N parameters that runs T tokens does N T of them, whichever way the engine runs them. The stages that compare
circuits count in *edge rows*: E edges, described once for each half of the prompts.

Estimates serve to choose a config and to tell the time left; no result depends on them. docs/benchmarks.md#estimates
compares them with a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from circuitdrift.config.circuits import Attribution
from circuitdrift.models.shapes import ModelShape
from circuitdrift.study import Study
from circuitdrift.tasks.from_file import FileTask

TOKENS_PER_PROMPT = 25
"""Tokens of a generated prompt with its answer: 21 to 29 with the tokenizers of the embedded model and of Pythia."""

TOKENS_PER_WORD = 1.3
PRETRAINING_TOKENS = 64
"""Tokens of a packed row of pre-training."""

SMALL, LARGE = 1.3e6, 1.35e8
"""Parameters of the two models whose rates were measured: the embedded model and SmolLM2-135M."""


@dataclass(frozen=True)
class Rate:
    """Seconds of one core for a unit of work, measured with a small and with a large model."""

    small: float
    large: float

    def of(self, parameters: float) -> float:
        """The rate of a model, between the measured ones by the logarithm of its size; the nearer one outside them."""
        share = math.log(parameters / SMALL) / math.log(LARGE / SMALL)
        share = min(1.0, max(0.0, share))
        return self.small ** (1 - share) * self.large**share


# Two cores of an AMD EPYC with avx512_bf16: config.yaml, tiny_quick.yaml, SmolLM2-135M (docs/benchmarks.md#estimates).
TRAINED = Rate(5.8e-11, 5.7e-11)
READ = Rate(3.0e-11, 2.0e-11)
SCORED = Rate(9e-12, 6e-12)
RUN_AS_CIRCUIT = Rate(4e-11, 6e-11)
COMPARED = Rate(3.25e-7, 1.44e-7)

CONTROLLED, LOCATED = 6e-4, 2.5e-4
"""Seconds for each edge of the graph: controls, and where edges change. Measured with 3,580 edges."""

GENERATED = 8e-4
"""Seconds for each prompt of a task's data."""

DRAWN = 1.6
"""Seconds for a figure."""

START_WITH_MODEL = 3.0
START = 1.5
START_OF_A_FORK = 0.25
"""Of a job that the preloaded process runs, whatever its stage: its own process, which waits, and the fork."""


@dataclass(frozen=True)
class PlannedWork:
    """What an estimate needs to know of a Snakemake job.

    Attributes:
        stage: name of its script.
        wildcards: names and values.
        checkpoints: number of checkpoints among its inputs; 0 stands for the base model.
        forked: whether it is a fork of the preloaded process (:mod:`circuitdrift.preloaded`).
    """

    stage: str
    wildcards: Mapping[str, str]
    checkpoints: int
    forked: bool = False

    @property
    def models(self) -> int:
        """Number of models that the job loads."""
        return max(1, self.checkpoints)


def tokens_per_prompt(study: Study, task: str) -> float:
    """About the tokens of a prompt of a task: of a file's prompts by their words, of a generator's the usual number."""
    config = study.config.tasks[task]
    if not isinstance(config, FileTask) or config.path.suffix != ".csv":
        return TOKENS_PER_PROMPT
    return max(2.0, _words_per_prompt(config.path) * TOKENS_PER_WORD)


@cache
def _words_per_prompt(path: Path) -> float:
    """The mean over the first hundred rows of a file; read once, however many jobs ask."""
    rows = path.read_text(encoding="utf-8").splitlines()[1:101]
    return sum(len(row.split(",")[0].split()) for row in rows) / max(1, len(rows))


def passes_of(recipe: Attribution, edges: int) -> float:
    """Passes over a prompt pair by which a recipe scores; a backward pass counts as two."""
    match recipe.attribution:
        case "random":
            return 0.0
        case "exact":
            return 2.0 + edges
        case "eap" | "relp" | "gim":
            return 5.0
        case "clean-corrupted":
            return 8.0
        case _:
            return 2.0 + 3.0 * recipe.steps


def seconds_of(study: Study, job: PlannedWork, shape: ModelShape | None) -> float | None:
    """Seconds of one core that a job takes; None where its model's shape is needed and not known.

    Args:
        study: the study.
        job: the job.
        shape: of the job's model.
    """
    stage = WITH_MODEL.get(job.stage)
    if stage is None:
        work = WITHOUT_MODEL.get(job.stage)
        return (START_OF_A_FORK if job.forked else START) + (work(study, job) if work else 0.0)
    if shape is None:
        return None
    return (START_OF_A_FORK if job.forked else START_WITH_MODEL) + stage(study, job, shape)


def _tokens(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    """Parameter-tokens of one pass over one prompt of the job's task."""
    return shape.parameters * tokens_per_prompt(study, job.wildcards["task"])


def _no_work(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    """Of a job that loads a model's shape and is done."""
    return 0.0


def _pretraining(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    model = study.config.models[job.wildcards["model"]]
    rows = getattr(model, "steps", 0) * getattr(model, "batch_size", 0)
    return TRAINED.of(shape.parameters) * rows * PRETRAINING_TOKENS * shape.parameters


def _fine_tuning(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    task, epochs = study.config.tasks[job.wildcards["task"]], _epochs(study, job)
    trained = TRAINED.of(shape.parameters) * epochs * task.train
    scored = READ.of(shape.parameters) * len(study.checkpoints) * task.test
    return (trained + scored) * _tokens(study, job, shape)


def _search(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    trials = len(study.config.learning_rate_search.rates)
    trained = TRAINED.of(shape.parameters) * _epochs(study, job) * study.config.tasks[job.wildcards["task"]].train
    return trials * trained * _tokens(study, job, shape)


def _gradients(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    examples = study.config.tasks[job.wildcards["task"]].train
    return TRAINED.of(shape.parameters) * examples * _tokens(study, job, shape)


def _activations(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    examples = study.config.tasks[job.wildcards["task"]].train
    return READ.of(shape.parameters) * examples * _tokens(study, job, shape)


def _epochs(study: Study, job: PlannedWork) -> float:
    return study.config.training.epochs_of(study.config.methods[job.wildcards["method"]])


def _scoring(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    circuit = study.config.circuit
    recipe = circuit.recipe()
    if "recipe" in job.wildcards:
        recipe = study.config.recipes[job.wildcards["recipe"]].applied_to(recipe)
    pairs = study.config.tasks[job.wildcards["task"]].circuit
    passes = job.models * pairs * passes_of(recipe, shape.edges)
    return SCORED.of(shape.parameters) * passes * _tokens(study, job, shape)


def _control_scoring(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    return (1 + (job.wildcards["task"] in study.reworded_tasks)) * _scoring(study, job, shape)


def _untrained_scoring(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    return len(study.untrained_seeds) * _scoring(study, job, shape)


def _faithfulness(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    measured = study.config.faithfulness
    circuits = job.models * (len(measured.size_fractions) + 1)
    return RUN_AS_CIRCUIT.of(shape.parameters) * circuits * measured.examples * _tokens(study, job, shape)


def _functional_drift(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    models = job.checkpoints + 1
    circuits = models * (models + 1) + study.config.drift.random_circuits
    return (
        RUN_AS_CIRCUIT.of(shape.parameters) * circuits * study.config.faithfulness.examples * _tokens(study, job, shape)
    )


def _unions(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    composition = study.config.composition
    sizes, kinds = len(composition.size_fractions) + 1, 4 + composition.random_unions
    examples = study.config.faithfulness.examples
    return RUN_AS_CIRCUIT.of(shape.parameters) * 2 * sizes * kinds * examples * _tokens(study, job, shape)


def _recipes(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    return len(study.recipes) * _faithfulness(study, job, shape)


def _comparison(transitions: Callable[[Study, PlannedWork], int]) -> Callable[[Study, PlannedWork, ModelShape], float]:
    def seconds(study: Study, job: PlannedWork, shape: ModelShape) -> float:
        rows = study.config.drift.half_splits * (study.config.circuit.folds + 1)
        return COMPARED.of(shape.parameters) * shape.edges * rows * transitions(study, job)

    return seconds


def _robustness(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    """Of both ends of a run: nine shares, with as many draws as folds for each fold that the jackknife leaves out."""
    drift, folds = study.config.drift, study.config.circuit.folds
    circuits = 9 * (drift.perturbed_draws + folds**2) * (drift.perturbed_draws > 0) + 20 * drift.disjoint_splits
    rows = circuits / 2  # a row stands for two circuits; the circuit of all prompts is the same in each pair
    return 2 * COMPARED.of(shape.parameters) * shape.edges * rows


def _of_each_edge(seconds: float) -> Callable[[Study, PlannedWork, ModelShape], float]:
    return lambda study, job, shape: seconds * shape.edges


def _generation(study: Study, job: PlannedWork) -> float:
    task = study.config.tasks[job.wildcards["task"]]
    return GENERATED * (task.train + task.circuit + task.test)


def _number_of_checkpoints(study: Study, job: PlannedWork) -> int:
    return len(study.checkpoints_of(job.wildcards["model"], job.wildcards["method"]))


def _accuracy(study: Study, job: PlannedWork, shape: ModelShape) -> float:
    models = job.checkpoints + 1
    tested = models * study.config.tasks[job.wildcards["task"]].test
    return READ.of(shape.parameters) * tested * _tokens(study, job, shape)


WITH_MODEL: Mapping[str, Callable[[Study, PlannedWork, ModelShape], float]] = {
    "pretrain": _pretraining,
    "finetune": _fine_tuning,
    "search_learning_rate": _search,
    "score_edges": _scoring,
    "score_controls": _control_scoring,
    "score_untrained": _untrained_scoring,
    "score_perturbed": _scoring,
    "measure_accuracy": _accuracy,
    "measure_faithfulness": _faithfulness,
    "select_minimal_circuits": _faithfulness,
    "measure_recipe_faithfulness": _recipes,
    "measure_functional_drift": _functional_drift,
    "measure_union_faithfulness": _unions,
    "allocate_circuit_lora": _no_work,
    "allocate_random_lora": _no_work,
    "allocate_ranks": _no_work,
    "measure_gradients": _gradients,
    "measure_activation_ranks": _activations,
    "measure_reliability": _comparison(_number_of_checkpoints),
    "measure_robustness": _robustness,
    "measure_controls": _of_each_edge(CONTROLLED),
    "locate_changes": _of_each_edge(LOCATED),
    "measure_model_controls": _comparison(lambda study, job: len(study.untrained_seeds) + 1),
    "measure_recipe_reliability": _comparison(lambda study, job: len(study.recipes)),
}
"""The time that each stage takes beside its start, of those whose time depends on the model."""

WITHOUT_MODEL: Mapping[str, Callable[[Study, PlannedWork], float]] = {
    "generate_data": _generation,
    "plot_figure": lambda study, job: DRAWN,
}
"""The same of other stages; a stage in neither table takes the time to start alone."""

ON_A_DEVICE = frozenset(WITH_MODEL) - {
    "allocate_circuit_lora",
    "allocate_random_lora",
    "allocate_ranks",
    "measure_reliability",
    "measure_robustness",
    "measure_controls",
    "locate_changes",
    "measure_model_controls",
    "measure_recipe_reliability",
}
"""The stages that run a model, on a GPU where there is one; the others compare scores or read a model's shape."""
