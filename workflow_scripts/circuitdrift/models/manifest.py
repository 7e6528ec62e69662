"""The manifest: the small file by which every stage knows a model.

A manifest holds the model's source, the dtype of its weights in use, and the size and sha256 of each file. It holds no
timestamps and, except for local models, no path: weights of scratch models lie beside it, and the caches hold those of
hub and package models (see ``files.model_folder``). So the same model gives the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from circuitdrift.storage import write_json

FULL_CHECK_BYTES = 64 * 2**20
"""Files up to this size are hashed at each load; for larger files only the size is compared."""


class ManifestError(ValueError):
    """A manifest, or a model file that it lists, cannot be used; the message names the file and the fix."""


class ManifestFile(BaseModel):
    """One file of the model: its name inside the model's folder, its size, and the digest of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int = Field(ge=0)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """The content of ``manifest.json``.

    Attributes:
        manifest_version: version of this layout.
        source: origin of the model; the key ``source`` is scratch, hub, local or package, and the other keys locate the
            model (a hub model's commit, a package's pin and checksum).
        dtype: dtype of the weights in memory.
        files: every file of the model, sorted by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest_version: Literal[1] = 1
    source: dict[str, Any]
    dtype: Literal["float32", "bfloat16"]
    files: tuple[ManifestFile, ...] = Field(min_length=1)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(path: Path, *, source: dict[str, Any], folder: Path, files: list[str], dtype: str) -> None:
    """Describe the model in ``folder`` and write its manifest atomically.

    Args:
        path: the manifest to write.
        source: origin of the model, with the key ``source`` and JSON values.
        folder: folder with the model's files.
        files: names of the files, relative to ``folder``.
        dtype: ``float32`` or ``bfloat16``.

    Raises:
        FileNotFoundError: a listed file does not exist.
    """
    entries = [
        ManifestFile(name=name, bytes=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
        for name in sorted(files)
    ]
    content = Manifest.model_validate({"source": source, "dtype": dtype, "files": entries})
    write_json(path, content.model_dump(mode="json"))


def read_manifest(path: Path) -> Manifest:
    """Read and validate a manifest; ``verify_files`` checks the model's files, once their folder is known.

    Raises:
        ManifestError: the manifest is missing, is not JSON, or lacks or misspells a key.
    """
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such model manifest; let the workflow make it: snakemake {path}") from None
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}: not valid JSON ({error}); delete it and run the workflow again") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ManifestError(f"{path}: not a model manifest ({faults}); delete it and run the workflow again") from None


def base_model_name(manifest: Path) -> tuple[str, str | None]:
    """The name and revision by which an adapter's configuration refers to its base model.

    A hub model's id and commit; for other models, which have no public name, the model's name in the study. It is never
    a local path.
    """
    source = read_manifest(manifest).source
    if source["source"] == "hub":
        return source["id"], source["commit"]
    return manifest.resolve().parent.name, None


def verify_files(manifest: Manifest, folder: Path, remedy: str, full_check_bytes: int = FULL_CHECK_BYTES) -> None:
    """Check that each file of the manifest exists with its size, and small ones with their sha256 too.

    Args:
        manifest: expected names, sizes and digests.
        folder: folder with the files.
        remedy: fix for a bad file, which ends the error message.
        full_check_bytes: files up to this size are hashed.

    Raises:
        ManifestError: a file is missing, truncated or changed; the message names the first such file.
    """
    for entry in manifest.files:
        path = folder / entry.name
        if not path.is_file():
            raise ManifestError(f"{path}: model file is missing; {remedy}")
        size = path.stat().st_size
        if size != entry.bytes:
            raise ManifestError(f"{path}: model file has {size} bytes, the manifest says {entry.bytes}; {remedy}")
        if size <= full_check_bytes and (found := sha256_of(path)) != entry.sha256:
            raise ManifestError(f"{path}: model file has sha256 {found}, the manifest says {entry.sha256}; {remedy}")
