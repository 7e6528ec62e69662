"""What a fine-tuning is given, as every process that takes part in it gets it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circuitdrift.config.methods import MethodConfig, Training
from circuitdrift.provenance import Provenance


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning, from its inputs to its outputs.

    Attributes:
        manifest: manifest of the base model.
        train: the split to train on.
        test: the split to measure accuracy on.
        adapter_config: the allocated ranks, for methods that have them.
        trials: the search for the method's learning rate, if there is one; its choice replaces the configured rate.
        checkpoints: checkpoint folders to write, from the base model (before any step) to the end of the run.
        training_log: table to write.
        accuracy: table to write: the accuracy on the test split at each checkpoint.
        predictions: table to write: which examples of the test split are right at each checkpoint.
        method: the method.
        training: the training section.
        seed: seed of the data order and of the adapters' first values.
        device: execution.device.
        processes: execution.processes.
        sharding: execution.sharding.
        resume: undeclared folder; a run that is killed leaves there what the next one continues from.
        provenance: origin of the files.
    """

    manifest: Path
    train: Path
    test: Path
    adapter_config: Path | None
    trials: Path | None
    checkpoints: list[Path]
    training_log: Path
    accuracy: Path
    predictions: Path
    method: MethodConfig
    training: Training
    seed: int
    device: str
    processes: int | Literal["auto"]
    sharding: Literal["none", "full"]
    resume: Path
    provenance: Provenance
