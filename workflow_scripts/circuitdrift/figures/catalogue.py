"""The list of figures and tables: what each reads, and what a study must have for it. Imported at parsing: no pandas.

A figure is one line here, a module of its name beside this one with ``tidy`` and ``draw``, and the caption
``docs/captions/<name>.rst``. A table is one line, a module with ``table``, and ``docs/captions/table_<name>.rst``. The
keywords of these functions are the names in ``reads`` and ``settings``, and ``table``, ``style`` and ``labels``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.study import Run, Study


@dataclass(frozen=True)
class Entry:
    """One table, or what a figure has in common with it.

    Attributes:
        name: of its module, and of its files.
        reads: names of the files it is made from, keys of :func:`files_of_study`.
        needs: the runs without which a study cannot have it.
        settings: what else it takes, keys of :func:`settings_of_study`.
    """

    name: str
    reads: tuple[str, ...]
    needs: Literal["runs", "drift_runs", "allocated_runs", "tuned_runs"]
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FigureEntry(Entry):
    """One figure.

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
    FigureEntry("transition_changes", ("transitions",), "drift_runs", category="Drift"),
    FigureEntry("change_rates", ("summary", "controls"), "drift_runs", category="Drift"),
    FigureEntry("layer_changes", ("layers",), "drift_runs", ("top_layers",), category="Drift"),
    FigureEntry("circuit_before_after", _TWO_CIRCUITS, "drift_runs", category="Circuits"),
    FigureEntry("explorer", _EXPLORED, "drift_runs", ("study",), category="Explorer", formats=("html",)),
)
TABLES = (
    Entry("method_accuracy", ("accuracy",), "runs"),
    Entry("base_accuracy", ("accuracy", "test"), "runs"),
    Entry("training_cost", _COSTS, "runs", ("benchmarked", "scored", "phase_1")),
    Entry("change_rates", ("summary", "controls"), "drift_runs"),
    Entry("faithfulness_areas", ("faithfulness_areas",), "drift_runs"),
    Entry("critical_layers", ("critical_layers",), "allocated_runs"),
    Entry("learning_rates", ("trials",), "tuned_runs"),
)


def of_study(listed: Sequence[Listed], study: Study) -> list[Listed]:
    """Those of the figures or tables that a study has the runs for."""
    return [entry for entry in listed if getattr(study, entry.needs)]


def files_of_study(study: Study) -> dict[str, list[str]]:
    """Every group of files that figures and tables are made from, by the name under which they read it."""
    last_circuit = f"{study.circuits}/{study.checkpoints[-1]}"
    shown = _shown_run(study)
    of_runs = {
        "accuracy": (f"{study.run}/accuracy.parquet", study.runs),
        "training_log": (f"{study.run}/training_log.parquet", study.runs),
        "test": (f"{study.data}/test.parquet", study.runs),
        "benchmarks": (study.benchmark, study.runs),
        "trials": (study.trials, study.tuned_runs),
        "critical_layers": (f"{study.allocation}/critical_layers.parquet", study.allocated_runs),
        "transitions": (f"{study.drift}/transitions.parquet", study.drift_runs),
        "summary": (f"{study.drift}/summary.parquet", study.drift_runs),
        "layers": (f"{study.drift}/layers.parquet", study.drift_runs),
        "controls": (study.controls, study.drift_runs),
        "before_edges": (f"{study.base_circuit}/edges.parquet", shown),
        "before_nodes": (f"{study.base_circuit}/nodes.parquet", shown),
        "after_edges": (f"{last_circuit}/edges.parquet", shown),
        "after_nodes": (f"{last_circuit}/nodes.parquet", shown),
    }
    scorings = [
        path
        for run in _phase_1_runs(study)
        for job in study.circuit_jobs
        for path in study.of_runs(job.scoring_benchmark, (run,))
    ]
    return {name: study.of_runs(pattern, runs) for name, (pattern, runs) in of_runs.items()} | {
        "scoring_benchmarks": scorings,
        "faithfulness": study.all_circuit_files("faithfulness.parquet"),
        "base_and_last_faithfulness": study.base_and_last_circuit_files("faithfulness.parquet"),
        "faithfulness_areas": study.base_and_last_circuit_files("faithfulness_areas.parquet"),
    }


def settings_of_study(study: Study) -> dict[str, Any]:
    """Every setting that figures and tables take beside their style and the methods, by its name.

    ``top_layers`` is how many layers are marked as critical: as many as the first CircuitLoRA has, otherwise five as
    in the paper. ``benchmarked`` and ``scored`` name the run of each file of ``benchmarks`` and ``scoring_benchmarks``.
    """
    circuit_loras = [method for method in study.config.methods.values() if isinstance(method, CircuitLoraMethod)]
    return {
        "study": study.config.study,
        "top_layers": circuit_loras[0].critical_layers if circuit_loras else 5,
        "phase_1": study.phase_1,
        "benchmarked": [asdict(run) for run in study.runs],
        "scored": [asdict(run) for run in _phase_1_runs(study) for _ in study.circuit_jobs],
    }


def _phase_1_runs(study: Study) -> list[Run]:
    return [run for run in study.runs if run.method in study.phase_1.values()]


def _shown_run(study: Study) -> tuple[Run, ...]:
    """The first run with circuits of the model and task that the ``figures`` section names; none without circuits."""
    wanted = study.config.figures
    found = [r for r in study.drift_runs if wanted.model in {None, r.model} and wanted.task in {None, r.task}]
    return tuple(found[:1])
