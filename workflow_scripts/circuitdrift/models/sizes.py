"""The shape of a model by its manifest, without torch."""

from __future__ import annotations

from pathlib import Path

from circuitdrift.models.files import model_folder_without_weights
from circuitdrift.models.folder import settings_of_folder
from circuitdrift.models.manifest import ManifestError
from circuitdrift.models.shapes import ModelShape, shape_if_told


def shape_of_model(manifest: Path) -> ModelShape:
    """The shape of a model; sizes that its config.json leaves out are the architecture's own.

    Raises:
        ManifestError: a file of the model is missing or was changed, or no size is told.
    """
    shape = shape_if_told(settings_of_folder(model_folder_without_weights(manifest)))
    if shape is None:
        from circuitdrift.models.loading import load_config  # imports torch, for the rare file that leaves sizes out

        shape = shape_if_told(load_config(manifest).to_dict())
    if shape is None:
        raise ManifestError(f"{manifest}: the model's config.json names no layers, heads or width; save it again")
    return shape
