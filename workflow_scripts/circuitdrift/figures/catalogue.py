"""The list of figures and tables: the files that each reads and the runs that it needs. No pandas: parsing imports it.

A figure is one line here, a module of its name beside this one with ``tidy`` and ``draw``, and the caption
``docs/captions/<name>.rst``. A table is one line, a module with ``table``, and ``docs/captions/table_<name>.rst``. The
keywords of these functions are the names in ``reads`` and ``settings``, and ``table``, ``style`` and ``labels``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from circuitdrift.config.compositions import methods_by_union
from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.runs import Run
from circuitdrift.study import Study

CATEGORIES = (
    "Verdicts",
    "Data and accuracy",
    "Circuits",
    "Drift",
    "Where the circuit changes",
    "Critical layers",
    "CircuitLoRA and comparisons",
    "Composition",
    "Robustness",
    "Explorer",
    "Cost and details",
)
"""The parts of the report, in the order of the argument."""


@dataclass(frozen=True)
class Entry:
    """A table, or the part of a figure that is the same for tables.

    Attributes:
        name: of its module, and of its files.
        reads: names of the files it is made from, keys of :func:`_files`.
        needs: the runs, circuits, sets of layers, recipes or lists of rows without which a study cannot have it.
        settings: what else it takes, keys of :func:`_settings`.
        may_lack: names in ``reads`` of which a study can have no files.
        category: where the report shows it, one of :data:`CATEGORIES`.
    """

    name: str
    reads: tuple[str, ...]
    needs: Literal[
        "runs",
        "drift_runs",
        "allocated_runs",
        "circuit_lora_runs",
        "tuned_runs",
        "layer_sets",
        "sham_runs",
        "composition_runs",
        "model_control_runs",
        "robustness_runs",
        "compared_recipes",
        "extracted",
        "untouched",
        "dropping",
    ]
    settings: tuple[str, ...] = ()
    may_lack: tuple[str, ...] = ()
    category: str = field(default=CATEGORIES[-1], kw_only=True)

    @property
    def heading(self) -> str:
        """The category with its place: Snakemake's report sorts by name."""
        return f"{CATEGORIES.index(self.category) + 1:02} {self.category}"


@dataclass(frozen=True, kw_only=True)
class FigureEntry(Entry):
    """A figure.

    Attributes:
        formats: endings of its files; the report shows the first.
    """

    formats: tuple[str, ...] = ("svg", "pdf", "png", "parquet")


Listed = TypeVar("Listed", bound=Entry)

_TWO_CIRCUITS = ("before_edges", "after_edges", "before_nodes", "after_nodes")
_OVER_CHECKPOINTS = ("accuracy", "faithfulness", "transitions", "layers")
_UNITED = ("explored_unions", "explored_intersections")
_EXPLORED = (*_OVER_CHECKPOINTS, "explored_nodes", "explored_edges", "explored_changes", *_UNITED)
_SETS = ("accuracy", "critical_layers")
_COSTS = ("accuracy", "training_log", "benchmarks", "scoring_benchmarks")
_ROBUSTNESS = ("robustness", "untrained_robustness")
_RECIPES = ("recipe_reliability", "recipe_faithfulness", "recipe_benchmarks")
_TRAINED = ("accuracy", "predictions", "training_log")
_DRIFT = ("faithfulness", "reliability", "nodes_and_edges", "summary", "transitions")
_CIRCUITS = (*_DRIFT, *_ROBUSTNESS, "where", "node_induced", "layer_orders", "union_faithfulness", "overlaps")
_RELATED = ("phase_1", "united", "sham_twins", "fraction")

FIGURES = (
    FigureEntry("method_accuracy", ("accuracy",), "runs", category="CircuitLoRA and comparisons"),
    FigureEntry("layer_sets", _SETS, "layer_sets", ("layer_sets",), category="CircuitLoRA and comparisons"),
    FigureEntry("accuracy_and_faithfulness", ("accuracy", "faithfulness"), "drift_runs", category="Data and accuracy"),
    FigureEntry("faithfulness_by_size", ("base_and_last_faithfulness",), "extracted", category="Circuits"),
    FigureEntry("drift_and_noise", ("reliability",), "drift_runs", category="Drift"),
    FigureEntry("functional_drift", ("functional",), "drift_runs", category="Drift"),
    FigureEntry("transition_changes", ("transitions",), "drift_runs", category="Drift"),
    FigureEntry("change_rates", ("summary", "controls"), "drift_runs", category="Drift"),
    FigureEntry("layer_changes", ("layers",), "drift_runs", ("top_layers",), category="Where the circuit changes"),
    FigureEntry("edge_changes", ("edge_counts",), "drift_runs", category="Where the circuit changes"),
    FigureEntry("where_changes", ("where",), "drift_runs", category="Where the circuit changes"),
    FigureEntry("layer_certainty", ("circuit_lora_layers",), "circuit_lora_runs", category="Critical layers"),
    FigureEntry(
        "circuit_before_after", (*_TWO_CIRCUITS, "edges_changed"), "drift_runs", category="Where the circuit changes"
    ),
    FigureEntry("union_faithfulness", ("union_faithfulness",), "composition_runs", category="Composition"),
    FigureEntry("overlaps", ("overlaps",), "composition_runs", ("sub_tasks",), category="Composition"),
    FigureEntry("robustness", _ROBUSTNESS, "robustness_runs", category="Robustness"),
    FigureEntry("circuit", ("base_edges", "base_nodes"), "untouched", category="Circuits"),
    FigureEntry(
        "explorer", _EXPLORED, "drift_runs", ("study", "sub_tasks"), _UNITED, category="Explorer", formats=("html",)
    ),
)
TABLES = (
    Entry("method_accuracy", ("accuracy",), "runs", category="CircuitLoRA and comparisons"),
    Entry(
        "method_comparisons",
        _TRAINED,
        "runs",
        ("layer_sets", "phase_1", "united"),
        category="CircuitLoRA and comparisons",
    ),
    Entry("layer_sets", _SETS, "layer_sets", ("layer_sets",), category="CircuitLoRA and comparisons"),
    Entry("base_accuracy", ("accuracy", "test"), "runs", category="Data and accuracy"),
    Entry("training_cost", _COSTS, "runs", ("benchmarked", "scored", "phase_1", "united")),
    Entry("drift_reliability", ("reliability",), "drift_runs", category="Drift"),
    Entry("change_rates", ("summary", "controls"), "drift_runs", category="Drift"),
    Entry("edge_changes", ("edge_counts",), "drift_runs", category="Where the circuit changes"),
    Entry("functional_drift", ("functional", "summary", "reliability"), "drift_runs", category="Drift"),
    Entry("sham_drift", ("reliability",), "sham_runs", ("sham_twins",), category="Drift"),
    Entry("model_controls", ("reliability", "model_controls"), "model_control_runs", category="Drift"),
    Entry("nodes_and_edges", ("nodes_and_edges",), "drift_runs", category="Drift"),
    Entry("where_changes", ("where",), "drift_runs", category="Where the circuit changes"),
    Entry("node_induced", ("node_induced",), "drift_runs", category="Where the circuit changes"),
    Entry("early_signal", ("layer_orders",), "drift_runs", ("top_layers",), category="Critical layers"),
    Entry("robustness", _ROBUSTNESS, "robustness_runs", category="Robustness"),
    Entry("controls", ("controls",), "drift_runs", category="Drift"),
    Entry("union_faithfulness", ("union_faithfulness",), "composition_runs", category="Composition"),
    Entry("overlaps", ("overlaps",), "composition_runs", ("sub_tasks",), category="Composition"),
    Entry("faithfulness_areas", ("faithfulness_areas",), "extracted", category="Circuits"),
    Entry("critical_layers", ("critical_layers",), "allocated_runs", ("layer_sets",), category="Critical layers"),
    Entry(
        "critical_layer_overlap", ("critical_layers",), "allocated_runs", ("layer_sets",), category="Critical layers"
    ),
    Entry("learning_rates", ("trials",), "tuned_runs", category="Data and accuracy"),
    Entry("recipes", _RECIPES, "compared_recipes", ("recipe_scorings",), category="Robustness"),
    Entry("recipe_areas", ("recipe_areas",), "compared_recipes", category="Robustness"),
    Entry("untouched_circuits", ("untouched_reliability", "untouched_faithfulness"), "untouched", category="Circuits"),
    Entry("dropped_rows", ("dropped",), "dropping", ("dropping",)),
    Entry("verdicts", (*_TRAINED, *_CIRCUITS), "runs", _RELATED, may_lack=_CIRCUITS, category="Verdicts"),
    Entry("published_rates", ("summary",), "drift_runs", ("families",), category="Verdicts"),
)


def label(entry: Entry) -> str:
    """How the report calls a figure or table: by place in its part, figures first; Snakemake sorts by name."""
    part = [other for other in (*FIGURES, *TABLES) if other.category == entry.category]
    kind = "" if isinstance(entry, FigureEntry) else "table: "
    return f"{part.index(entry) + 1:02} {kind}{entry.name.replace('_', ' ')}"


def of_study(listed: Sequence[Listed], study: Study) -> list[Listed]:
    """The figures or tables that a study has the runs for."""
    return [entry for entry in listed if getattr(study, entry.needs)]


def files(entry: Entry, name: str, study: Study) -> list[str]:
    """The files of a study that a figure or table reads under a name, one of its ``reads``."""
    return _files(study, study.all_runs if entry.needs == "drift_runs" else study.runs)[name]()


def settings(entry: Entry, study: Study) -> dict[str, Any]:
    """The settings that a figure or table of a study takes beside its style and the methods, by name."""
    return {name: _settings(study)[name] for name in entry.settings}


def _files(study: Study, scored: tuple[Run, ...]) -> dict[str, Callable[[], list[str]]]:
    """Each group of files. Tables are named after their schema, except the splits of a task.

    ``scored`` are the runs whose accuracy is read: what shows circuits shows those of given checkpoints too, what
    compares methods of training does not.
    """
    layout, drift = study.layout, study.layout.drift
    shown = _shown_run(study)

    def of_runs(pattern: str, runs: tuple[Run, ...]) -> Callable[[], list[str]]:
        return lambda: study.of_runs(pattern, runs)

    def of_circuit(file: str, place: int) -> Callable[[], list[str]]:
        return lambda: [path for run in shown for path in study.of_circuits(run, file, place)]

    def of_united(kind: str) -> Callable[[], list[str]]:
        patterns = [layout.composition.circuit(checkpoint, kind).edges for checkpoint in study.checkpoints]
        return lambda: [path for run in study.composition_runs for p in patterns for path in study.of_runs(p, (run,))]

    def of_base_and_last(file: str) -> Callable[[], list[str]]:
        untouched = getattr(layout.base_circuit, file)
        return lambda: [*study.of_drift_runs(file, 0, -1), *study.of_pairs(untouched, study.untouched)]

    return {
        "dropped": lambda: study.of_pairs(layout.dropped, study.dropping),
        "accuracy": of_runs(layout.accuracy, scored),
        "predictions": of_runs(layout.predictions, study.runs),
        "training_log": of_runs(layout.training_log, study.runs),
        "benchmarks": of_runs(layout.benchmark, study.runs),
        "scoring_benchmarks": lambda: [path for _, path in _phase_1_scorings(study)],
        "test": of_runs(layout.test, study.runs),
        "trials": of_runs(layout.trials, study.tuned_runs),
        "critical_layers": of_runs(layout.allocation.critical_layers, study.allocated_runs),
        "circuit_lora_layers": of_runs(layout.allocation.critical_layers, _first_circuit_lora(study)),
        "faithfulness": lambda: study.of_drift_runs("faithfulness"),
        "base_and_last_faithfulness": of_base_and_last("faithfulness"),
        "faithfulness_areas": of_base_and_last("faithfulness_areas"),
        "transitions": of_runs(drift.transitions, study.drift_runs),
        "summary": of_runs(drift.summary, study.drift_runs),
        "layers": of_runs(drift.layers, study.drift_runs),
        "reliability": of_runs(drift.reliability, study.drift_runs),
        "edge_counts": of_runs(drift.edge_counts, study.drift_runs),
        "functional": of_runs(drift.functional, study.drift_runs),
        "nodes_and_edges": of_runs(drift.nodes_and_edges, study.drift_runs),
        "where": of_runs(drift.where, study.drift_runs),
        "node_induced": of_runs(drift.node_induced, study.drift_runs),
        "layer_orders": of_runs(drift.layer_orders, study.drift_runs),
        "robustness": of_runs(drift.robustness, study.robustness_runs),
        "untrained_robustness": of_runs(layout.untrained_robustness, study.split_untrained_runs),
        "controls": of_runs(layout.controls, study.drift_runs),
        "model_controls": of_runs(layout.model_controls, study.model_control_runs),
        "union_faithfulness": of_runs(layout.composition.union_faithfulness, study.composition_runs),
        "overlaps": of_runs(layout.composition.overlaps, study.composition_runs),
        "recipe_reliability": lambda: study.of_pairs(layout.recipes.reliability, study.recipe_pairs),
        "recipe_faithfulness": lambda: study.of_pairs(layout.recipes.faithfulness, study.recipe_pairs),
        "recipe_areas": lambda: study.of_pairs(layout.recipes.areas, study.recipe_pairs),
        "recipe_benchmarks": lambda: [path for _, path in _recipe_scorings(study)],
        "untouched_reliability": lambda: study.of_pairs(layout.recipes.reliability, study.untouched),
        "untouched_faithfulness": lambda: study.of_pairs(layout.recipes.faithfulness, study.untouched),
        "base_edges": lambda: study.of_pairs(layout.base_circuit.edges, _shown_untouched(study)),
        "base_nodes": lambda: study.of_pairs(layout.base_circuit.nodes, _shown_untouched(study)),
        "before_edges": of_circuit("edges", 0),
        "after_edges": of_circuit("edges", -1),
        "before_nodes": of_circuit("nodes", 0),
        "after_nodes": of_circuit("nodes", -1),
        "edges_changed": of_runs(drift.edges_changed, shown),
        "explored_nodes": lambda: study.of_pairs(layout.base_circuit.nodes, _first_extracted(study)),
        "explored_edges": lambda: list(
            dict.fromkeys(p for r in study.drift_runs for p in study.of_circuits(r, "edges"))
        ),
        "explored_changes": of_runs(drift.edges_changed, study.drift_runs),
        "explored_unions": of_united("union"),
        "explored_intersections": of_united("intersection"),
    }


def _settings(study: Study) -> dict[str, Any]:
    """All settings: ``benchmarked`` and ``scored`` name the run of each of ``benchmarks`` and ``scoring_benchmarks``.

    ``recipe_scorings`` names model, task and recipe of each of ``recipe_benchmarks``.

    ``top_layers``, the number of layers marked as critical, is that of the first CircuitLoRA, otherwise that of given
    checkpoints.
    """
    circuit_loras = [method for method in study.config.methods.values() if isinstance(method, CircuitLoraMethod)]
    return {
        "study": study.config.study,
        "top_layers": circuit_loras[0].critical_layers if circuit_loras else study.config.given.critical_layers,
        "phase_1": study.phase_1,
        "united": {name: _lists(study.sub_tasks) for name in methods_by_union(study.config.methods)},
        "layer_sets": study.layer_sets,
        "sham_twins": study.sham_twins,
        "fraction": study.config.circuit.fraction,
        "families": {name: task.family for name, task in study.config.tasks.items()},
        "sub_tasks": _lists(study.sub_tasks),
        "dropping": list(study.dropping),
        "benchmarked": [asdict(run) for run in study.runs],
        "scored": [asdict(run) for run, _ in _phase_1_scorings(study)],
        "recipe_scorings": [scoring for scoring, _ in _recipe_scorings(study)],
    }


def _lists(sub_tasks: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {task: list(names) for task, names in sub_tasks.items()}


def _phase_1_scorings(study: Study) -> list[tuple[Run, str]]:
    """Each run that is a phase 1, with the measurements of each job that scored its circuits, base model included."""
    return [
        (run, path)
        for run in study.runs
        if run.method in study.traced_phase_1
        for job in study.circuit_jobs
        for path in study.of_runs(job.scoring_benchmark, (run,))
    ]


def _first_circuit_lora(study: Study) -> tuple[Run, ...]:
    """The runs of the study's first CircuitLoRA that follows no union; none without one."""
    return tuple(run for run in study.circuit_lora_runs if run.method == study.circuit_lora_runs[0].method)


def _recipe_scorings(study: Study) -> list[tuple[dict[str, str], str]]:
    """Model, task and recipe of each scoring that is compared, with the measurements of its job."""
    return [
        ({**wildcards, "recipe": recipe}, circuit.scoring_benchmark.format(**wildcards))
        for wildcards in study.recipe_pairs
        for recipe, circuit in study.recipes.items()
    ]


def _first_extracted(study: Study) -> tuple[dict[str, str], ...]:
    """The first task with circuits over checkpoints of each model that has some."""
    first = {run.model: {"model": run.model, "task": run.task} for run in reversed(study.drift_runs)}
    return tuple(first.values())


def _shown_run(study: Study) -> tuple[Run, ...]:
    """The first run with circuits of the model and task that the ``figures`` section names; none without circuits."""
    wanted = study.config.figures
    found = [r for r in study.drift_runs if wanted.model in {None, r.model} and wanted.task in {None, r.task}]
    return tuple(found[:1])


def _shown_untouched(study: Study) -> tuple[dict[str, str], ...]:
    """The first model as it is with a task, if possible of those that the ``figures`` section names."""
    wanted = study.config.figures
    named = [p for p in study.untouched if wanted.model in {None, p["model"]} and wanted.task in {None, p["task"]}]
    return tuple([*named, *study.untouched][:1])
