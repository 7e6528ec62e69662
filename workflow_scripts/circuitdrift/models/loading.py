"""From a manifest to a model, ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from circuitdrift.decoder.anatomy import AnatomyError, anatomy_of
from circuitdrift.decoder.linears import shape_of_config
from circuitdrift.models.files import model_folder, model_folder_without_weights
from circuitdrift.models.manifest import ManifestError, read_manifest

if TYPE_CHECKING:
    from transformers import PretrainedConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

UNTRAINED = 1_000_003
"""Added to the seeds of untrained models: the weights of seed 0 would be those that a scratch model of seed 0, the
default, starts from, so that the control would share its origin with the trained model."""


def load_config(manifest: Path) -> PretrainedConfig:
    """The model's configuration, such as its number of layers, without its weights.

    Raises:
        ManifestError: see ``files.model_folder``.
    """
    folder = model_folder_without_weights(manifest)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return cast("PretrainedConfig", config)


def load_shape(manifest: Path) -> PreTrainedModel:
    """The model on the meta device: every module and shape without weights."""
    return shape_of_config(load_config(manifest))


def check_model(folder: Path) -> None:
    """Check that the engine takes a model apart and that its tokenizer loads, without loading the weights.

    Raises:
        AnatomyError: the circuit engine does not support the model.
        ManifestError: the configuration or the tokenizer does not load.
    """
    check_architecture(folder)
    try:
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exceptions
        raise ManifestError(f"{folder}: its tokenizer does not load ({_first_line(error)}); save it again") from None


def check_architecture(folder: Path) -> PretrainedConfig:
    """Check that the engine takes a model apart, without loading the weights; return its configuration.

    Raises:
        AnatomyError: the circuit engine does not support the model.
        ManifestError: the configuration does not load.
    """
    file = folder / "config.json"
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        anatomy_of(shape_of_config(config).eval())
    except AnatomyError as error:
        raise AnatomyError(f"{file}: {error}") from None
    except Exception as error:  # whatever impossible values make transformers raise
        raise ManifestError(f"{file}: describes no model ({_first_line(error)}); save it again") from None
    return cast("PretrainedConfig", config)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def load_model(manifest: Path, device: torch.device) -> PreTrainedModel:
    """The model in evaluation mode on ``device``, in the manifest's dtype, its parameters still trainable.

    On CPU attention is eager, because the fused kernel's backward pass is slower there. Elsewhere the library chooses:
    fused (SDPA) if the architecture has it, which GPT-Neo does not.

    Raises:
        ManifestError: see ``files.model_folder``; or the weights are not those of the whole model.
    """
    disable_progress_bar()  # a bar for each load would fill the logs
    folder = model_folder(manifest)
    model: torch.nn.Module
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=DTYPES[read_manifest(manifest).dtype],
        attn_implementation="eager" if device.type == "cpu" else None,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if missing := sorted(loading["missing_keys"]):
        raise ManifestError(
            f"{folder}: its weights lack {len(missing)} tensors of the model, the first is {missing[0]}, which would "
            "be random; save the model again with save_pretrained"
        )
    return cast(PreTrainedModel, model.to(device).eval())


def build_untrained_model(manifest: Path, seed: int, device: torch.device) -> PreTrainedModel:
    """The model's architecture with random weights, otherwise as :func:`load_model` gives the model.

    The weights are those that the library initialises the architecture with, drawn in float32 and then put into the
    manifest's dtype. A scratch model's number tokens lack the Fourier features that its pre-training starts from.

    Args:
        manifest: manifest of the trained model, of which the configuration alone is used.
        seed: seed of the weights.
        device: device of the model.

    Raises:
        ManifestError: see ``files.model_folder``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED + seed)
        model: torch.nn.Module = AutoModelForCausalLM.from_config(
            load_config(manifest),
            dtype=torch.float32,
            attn_implementation="eager" if device.type == "cpu" else None,
        )
    return cast(PreTrainedModel, model.to(device, DTYPES[read_manifest(manifest).dtype]).eval())
