"""One fine-tuning, and one job that makes circuits of its checkpoints. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from circuitdrift.layout import CircuitFiles


@dataclass(frozen=True)
class Run:
    """One fine-tuning: a model on a task by a method with a seed; or the given checkpoints of a model, on a task."""

    model: str
    task: str
    method: str
    seed: int


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
