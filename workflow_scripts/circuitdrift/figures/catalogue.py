"""The list of figures and tables: the files that each reads and the runs that it needs. No pandas: parsing imports it.

A figure is one line here, a module of its name beside this one with ``tidy`` and ``draw``, and the caption
``docs/captions/<name>.rst``. A table is one line, a module with ``table``, and ``docs/captions/table_<name>.rst``. The
keywords of these functions are the names in ``reads`` and ``settings``, and ``table``, ``style`` and ``labels``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.study import Run, Study


@dataclass(frozen=True)
class Entry:
    """A table, or the part of a figure that is the same for tables.

    Attributes:
        name: of its module, and of its files.
        reads: names of the files it is made from, keys of :func:`_files`.
        needs: the runs without which a study cannot have it.
        settings: what else it takes, keys of :func:`_settings`.
    """

    name: str
    reads: tuple[str, ...]
    needs: Literal["runs", "drift_runs", "allocated_runs", "tuned_runs"]
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FigureEntry(Entry):
    """A figure.

    Attributes:
        category: where the report shows it.
        formats: endings of its files; the report shows the first.
    """

    category: str
    formats: tuple[str, ...] = ("svg", "pdf", "png", "parquet")


Listed = TypeVar("Listed", bound=Entry)

_TWO_CIRCUITS = ("before_edges", "after_edges", "before_nodes", "after_nodes")
_EXPLORED = ("accuracy", "faithfulness", "transitions", "layers")
_COSTS = ("accuracy", "training_log", "benchmarks", "scoring_benchmarks")

FIGURES = (
    FigureEntry("method_accuracy", ("accuracy",), "runs", category="Methods"),
    FigureEntry("accuracy_and_faithfulness", ("accuracy", "faithfulness"), "drift_runs", category="Training"),
    FigureEntry("faithfulness_by_size", ("base_and_last_faithfulness",), "drift_runs", category="Circuits"),
    FigureEntry("drift_and_noise", ("reliability",), "drift_runs", category="Drift"),
    FigureEntry("transition_changes", ("transitions",), "drift_runs", category="Drift"),
    FigureEntry("change_rates", ("summary", "controls"), "drift_runs", category="Drift"),
    FigureEntry("layer_changes", ("layers",), "drift_runs", ("top_layers",), category="Drift"),
    FigureEntry("circuit_before_after", _TWO_CIRCUITS, "drift_runs", category="Circuits"),
    FigureEntry("explorer", _EXPLORED, "drift_runs", ("study",), category="Explorer", formats=("html",)),
)
TABLES = (
    Entry("method_accuracy", ("accuracy",), "runs"),
    Entry("method_comparisons", ("accuracy", "predictions"), "runs"),
    Entry("base_accuracy", ("accuracy", "test"), "runs"),
    Entry("training_cost", _COSTS, "runs", ("benchmarked", "scored", "phase_1")),
    Entry("change_rates", ("summary", "controls"), "drift_runs"),
    Entry("drift_reliability", ("reliability",), "drift_runs"),
    Entry("nodes_and_edges", ("nodes_and_edges",), "drift_runs"),
    Entry("controls", ("controls",), "drift_runs"),
    Entry("faithfulness_areas", ("faithfulness_areas",), "drift_runs"),
    Entry("critical_layers", ("critical_layers",), "allocated_runs"),
    Entry("learning_rates", ("trials",), "tuned_runs"),
)


def of_study(listed: Sequence[Listed], study: Study) -> list[Listed]:
    """The figures or tables that a study has the runs for."""
    return [entry for entry in listed if getattr(study, entry.needs)]


def files(entry: Entry, study: Study) -> dict[str, list[str]]:
    """The files that a figure or table of a study reads, by name."""
    groups = _files(study)
    return {name: groups[name]() for name in entry.reads}


def settings(entry: Entry, study: Study) -> dict[str, Any]:
    """The settings that a figure or table of a study takes beside its style and the methods, by name."""
    return {name: _settings(study)[name] for name in entry.settings}


def _files(study: Study) -> dict[str, Callable[[], list[str]]]:
    """Each group of files. Tables are named after their schema, except the splits of a task."""
    layout, drift, first, last = study.layout, study.layout.drift, study.circuits[0], study.circuits[-1]
    shown = _shown_run(study)

    def of_runs(pattern: str, runs: tuple[Run, ...]) -> Callable[[], list[str]]:
        return lambda: study.of_runs(pattern, runs)

    return {
        "accuracy": of_runs(layout.accuracy, study.runs),
        "predictions": of_runs(layout.predictions, study.runs),
        "training_log": of_runs(layout.training_log, study.runs),
        "benchmarks": of_runs(layout.benchmark, study.runs),
        "scoring_benchmarks": lambda: [path for _, path in _phase_1_scorings(study)],
        "test": of_runs(layout.test, study.runs),
        "trials": of_runs(layout.trials, study.tuned_runs),
        "critical_layers": of_runs(layout.allocation.critical_layers, study.allocated_runs),
        "faithfulness": lambda: study.of_drift_runs(circuit.faithfulness for circuit in study.circuits),
        "base_and_last_faithfulness": lambda: study.of_drift_runs((first.faithfulness, last.faithfulness)),
        "faithfulness_areas": lambda: study.of_drift_runs((first.faithfulness_areas, last.faithfulness_areas)),
        "transitions": of_runs(drift.transitions, study.drift_runs),
        "summary": of_runs(drift.summary, study.drift_runs),
        "layers": of_runs(drift.layers, study.drift_runs),
        "reliability": of_runs(drift.reliability, study.drift_runs),
        "nodes_and_edges": of_runs(drift.nodes_and_edges, study.drift_runs),
        "controls": of_runs(layout.controls, study.drift_runs),
        "before_edges": of_runs(first.edges, shown),
        "after_edges": of_runs(last.edges, shown),
        "before_nodes": of_runs(first.nodes, shown),
        "after_nodes": of_runs(last.nodes, shown),
    }


def _settings(study: Study) -> dict[str, Any]:
    """All settings: ``benchmarked`` and ``scored`` name the run of each of ``benchmarks`` and ``scoring_benchmarks``.

    ``top_layers``, the number of layers marked as critical, is that of the first CircuitLoRA, otherwise five as in the
    paper.
    """
    circuit_loras = [method for method in study.config.methods.values() if isinstance(method, CircuitLoraMethod)]
    return {
        "study": study.config.study,
        "top_layers": circuit_loras[0].critical_layers if circuit_loras else 5,
        "phase_1": study.phase_1,
        "benchmarked": [asdict(run) for run in study.runs],
        "scored": [asdict(run) for run, _ in _phase_1_scorings(study)],
    }


def _phase_1_scorings(study: Study) -> list[tuple[Run, str]]:
    """Each run that is a phase 1, with the measurements of each job that scored its circuits, base model included."""
    return [
        (run, path)
        for run in study.runs
        if run.method in study.phase_1.values()
        for job in study.circuit_jobs
        for path in study.of_runs(job.scoring_benchmark, (run,))
    ]


def _shown_run(study: Study) -> tuple[Run, ...]:
    """The first run with circuits of the model and task that the ``figures`` section names; none without circuits."""
    wanted = study.config.figures
    found = [r for r in study.drift_runs if wanted.model in {None, r.model} and wanted.task in {None, r.task}]
    return tuple(found[:1])
