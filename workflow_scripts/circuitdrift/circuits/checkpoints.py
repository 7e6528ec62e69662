"""The checkpoints of a fine-tuning, or untrained models, one after the other, ready for the circuit engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from circuitdrift.compute import precision_of_weights
from circuitdrift.config.circuits import Precision
from circuitdrift.decoder.anatomy import Anatomy, anatomy_of
from circuitdrift.models.loading import build_untrained_model
from circuitdrift.provenance import BASE_CHECKPOINT
from circuitdrift.training.checkpoints import load_checkpoint


def checkpoint_anatomies(
    manifest: Path, checkpoints: Sequence[Path], precision: Precision, device: torch.device
) -> Iterator[tuple[str, Anatomy]]:
    """Load each checkpoint, or the base model if there are none; yield its name and the model's anatomy.

    Args:
        manifest: manifest of the base model.
        checkpoints: checkpoint folders, named by their numbers.
        precision: precision of weights and passes.
        device: device of the models.

    Raises:
        CheckpointError: a checkpoint is missing or damaged.
        ManifestError: the base model cannot be loaded.
        AnatomyError: the engine does not support the model.
    """
    folders: list[Path | None] = [*checkpoints] or [None]
    for folder in folders:
        model = load_checkpoint(manifest, folder, device)
        model.to(dtype=precision_of_weights(precision, model.dtype, device))
        yield BASE_CHECKPOINT if folder is None else folder.name, anatomy_of(model)


def untrained_anatomies(
    manifest: Path, seeds: Sequence[int], precision: Precision, device: torch.device
) -> Iterator[Anatomy]:
    """The anatomy of an untrained model for each seed: the architecture of a model with random weights.

    Raises:
        ManifestError: the model's configuration cannot be read.
        AnatomyError: the engine does not support the model.
    """
    for seed in seeds:
        model = build_untrained_model(manifest, seed, device)
        model.to(dtype=precision_of_weights(precision, model.dtype, device))
        yield anatomy_of(model)
