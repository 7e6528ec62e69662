"""The manifest: the small file by which every stage knows a model.

A manifest holds the model's source, the dtype of its weights in use, and the size and sha256 of each file. It holds no
timestamps and, except for local models, no path: weights of scratch models lie beside it, and the caches hold those of
hub and package models (see ``files.model_folder``). So the same model gives the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from circuitdrift.errors import CircuitDriftError
from circuitdrift.storage import DamageError, fix_of_damage, read_json, write_json


class ManifestError(CircuitDriftError):
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

    @property
    def files_but_weights(self) -> tuple[ManifestFile, ...]:
        """The files of the configuration and of the tokenizer."""
        return tuple(file for file in self.files if not file.name.endswith(".safetensors"))

    @property
    def is_adapter(self) -> bool:
        """Whether the files are a PEFT adapter and not a model."""
        return any(file.name == "adapter_config.json" for file in self.files)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _sha256_of_version(path: Path, modified_ns: int) -> str:
    """The sha256 of a file as it was left at its last modification."""
    return sha256_of(path)


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
        ManifestError: the manifest is missing or damaged, or lacks or misspells a key.
    """
    try:
        return Manifest.model_validate(read_json(path))
    except DamageError as error:
        raise ManifestError(f"model manifest {error}") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ManifestError(f"{path}: not a model manifest ({faults}); {fix_of_damage(path)}") from None


def base_model_name(manifest: Path) -> tuple[str, str | None]:
    """The name and revision by which an adapter's configuration refers to its base model.

    A hub model's id and commit; for other models, which have no public name, the model's name in the study. It is never
    a local path.
    """
    source = read_manifest(manifest).source
    if source["source"] == "hub":
        return source["id"], source["commit"]
    return manifest.resolve().parent.name, None


def verify_files(files: Iterable[ManifestFile], folder: Path, remedy: str) -> None:
    """Check that each file exists with its size and its sha256, which a process computes once for each file.

    Args:
        files: expected names, sizes and digests.
        folder: folder with the files.
        remedy: fix for a bad file, which ends the error message.

    Raises:
        ManifestError: a file is missing, truncated or changed; the message names the first such file.
    """
    for entry in files:
        path = folder / entry.name
        if not path.is_file():
            raise ManifestError(f"{path}: model file is missing; {remedy}")
        status = path.stat()
        if (size := status.st_size) != entry.bytes:
            raise ManifestError(f"{path}: model file has {size} bytes, the manifest says {entry.bytes}; {remedy}")
        if (found := _sha256_of_version(path, status.st_mtime_ns)) != entry.sha256:
            raise ManifestError(f"{path}: model file has sha256 {found}, the manifest says {entry.sha256}; {remedy}")
