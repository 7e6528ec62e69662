"""One fine-tuning, and one job that makes circuits of its checkpoints. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from circuitdrift.layout import CircuitFiles, Layout


@dataclass(frozen=True)
class Run:
    """One fine-tuning: a model on a task by a method with a seed; or the given checkpoints of a model, on a task."""

    model: str
    task: str
    method: str
    seed: int

    def on(self, tasks: Iterable[str]) -> tuple[Run, ...]:
        """The same run on each of some other tasks."""
        return tuple(replace(self, task=task) for task in tasks)


@dataclass(frozen=True)
class CircuitJob:
    """The circuits that one job makes: of the base model, or of some checkpoints of a run.

    ``checkpoints`` are patterns of the checkpoints' folders; the base model has none.
    """

    name: str
    circuits: tuple[CircuitFiles, ...]
    checkpoints: tuple[str, ...]

    @property
    def log_name(self) -> str:
        """Where the job's log goes, in the folder of its rule."""
        return (
            "{model}/{task}/base"
            if not self.checkpoints
            else f"{{model}}/{{task}}/{{method}}/seed-{{seed}}/{self.name}"
        )

    @property
    def scoring_benchmark(self) -> str:
        """Snakemake's measurements of the job that scores the edges of these circuits, beside the first of them."""
        return self.circuits[0].scoring_benchmark


def circuit_jobs(layout: Layout, checkpoints: Sequence[str], size: int) -> tuple[CircuitJob, ...]:
    """The base model's job, and one for each group of ``size`` of the checkpoints after it."""
    groups = [checkpoints[start : start + size] for start in range(0, len(checkpoints), size)]
    return (
        CircuitJob("base", (layout.base_circuit,), ()),
        *(
            CircuitJob(
                f"{group[0]}_to_{group[-1]}",
                tuple(map(layout.run_circuit, group)),
                tuple(map(layout.checkpoint, group)),
            )
            for group in groups
        ),
    )


def evenly_spaced(checkpoints: Sequence[str], number: int) -> tuple[str, ...]:
    """So many checkpoints, the first and the last among them; all if there are fewer."""
    last = len(checkpoints) - 1
    steps = min(number - 1, last)
    return tuple(checkpoints[round(last * step / steps)] for step in range(steps + 1))
