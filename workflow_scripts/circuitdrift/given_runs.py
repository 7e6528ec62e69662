"""Checkpoints that were trained elsewhere, as runs of a study that nobody trains here. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from circuitdrift.config.given import GIVEN, GIVEN_SEED, GivenCheckpoint
from circuitdrift.config.models import HubModel
from circuitdrift.config.study import StudyConfig
from circuitdrift.layout import Layout
from circuitdrift.provenance import checkpoint_names
from circuitdrift.runs import Run, evenly_spaced


@dataclass(frozen=True)
class GivenRuns:
    """The given checkpoints of a study's models, and where they lie in its results."""

    config: StudyConfig
    layout: Layout

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Names of the models with given checkpoints."""
        return tuple(name for name, model in self.config.models.items() if model.checkpoints)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The given checkpoints of each model that has some, on every task."""
        return tuple(self.run(model, task) for model in self.models for task in self.config.tasks)

    def run(self, model: str, task: str) -> Run:
        """The given checkpoints of a model on a task."""
        return Run(model, task, GIVEN, GIVEN_SEED)

    def checkpoints(self, model: str) -> tuple[str, ...]:
        """Names of a model's checkpoints, the base model's first."""
        return checkpoint_names(len(self.config.models[model].checkpoints))

    def checkpoint(self, model: str, checkpoint: str) -> GivenCheckpoint:
        """A given checkpoint by its name, two digits from ``01``; a revision of a hub model has the model's id."""
        section = self.config.models[model]
        given = section.checkpoints[int(checkpoint) - 1]
        if given.folder is None and given.hub_id is None and isinstance(section, HubModel):
            return given.model_copy(update={"id": section.id})
        return given

    def files(self, model: str, checkpoint: str) -> list[str]:
        """The files on this machine of a given checkpoint; none of one on the hub."""
        folder = self.checkpoint(model, checkpoint).folder
        files = folder.glob("*") if folder else ()
        return sorted(str(path) for path in files if path.suffix in {".json", ".safetensors"})

    def folders(self, model: str) -> list[str]:
        """The folder in the results of each given checkpoint of a model."""
        return self._folders(model, self.checkpoints(model)[1:])

    def functional_folders(self, model: str) -> list[str]:
        """The same of those whose circuits run in each other's models."""
        return self._folders(
            model, evenly_spaced(self.checkpoints(model), self.config.drift.functional_checkpoints)[1:]
        )

    def _folders(self, model: str, checkpoints: tuple[str, ...]) -> list[str]:
        return [self.layout.given_checkpoint.format(model=model, checkpoint=name) for name in checkpoints]
