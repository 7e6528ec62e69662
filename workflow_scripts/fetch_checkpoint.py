"""Fetch a checkpoint that was trained elsewhere, check that it fits the base model, and write its manifest."""

from circuitdrift import stage

import os
from pathlib import Path
from typing import Any

from circuitdrift.config.given import GivenCheckpoint
from circuitdrift.models import hub
from circuitdrift.models.adapter_folder import ADAPTER_FILES, problem_of_adapter
from circuitdrift.models.folder import problem_of_weights_folder
from circuitdrift.models.local import files_of_layout
from circuitdrift.models.manifest import ManifestError, read_manifest, write_manifest
from circuitdrift.training.given_checkpoints import MANIFEST, check_given_adapter, check_given_model


def main(manifest: Path, checkpoint: Path, given: GivenCheckpoint) -> None:
    """Write the manifest of a checkpoint; its weights stay where they are.

    Args:
        manifest: manifest of the base model.
        checkpoint: the folder to make, which holds ``manifest.json``.
        given: where the checkpoint comes from; a checkpoint on the hub has an id.

    Raises:
        ManifestError: the checkpoint cannot be obtained, is incomplete, or does not fit the base model.
        AnatomyError: the circuit engine does not support the model.
    """
    checkpoint.mkdir(parents=True, exist_ok=True)
    if given.folder is None:
        folder, source = _from_hub(given)
    else:
        folder = given.folder.resolve()
        source = {"source": "local", "path": os.path.relpath(folder, checkpoint.resolve()), "given": True}
    problem_of, check = (
        (problem_of_adapter, check_given_adapter)
        if given.is_adapter
        else (problem_of_weights_folder, check_given_model)
    )
    if problem := problem_of(folder):
        raise ManifestError(problem)
    check(manifest, folder)
    names = list(ADAPTER_FILES) if given.is_adapter else files_of_layout(folder)
    dtype = read_manifest(manifest).dtype
    write_manifest(checkpoint / MANIFEST, source=source, folder=folder, files=names, dtype=dtype)


def _from_hub(given: GivenCheckpoint) -> tuple[Path, dict[str, Any]]:
    """The folder of a checkpoint of the hub in the hub's cache, and its source."""
    model_id, revision = str(given.hub_id), given.revision or "main"
    commit = hub.resolve_commit(model_id, revision)
    folder = hub.fetch(model_id, commit, ADAPTER_FILES if given.is_adapter else hub.MODEL_FILES)
    hub.check_digests(folder)  # of a file that an interrupted download left, too
    return folder, {"source": "hub", "id": model_id, "revision": revision, "commit": commit, "given": True}


if __name__ == "__main__":
    stage.run(main)
