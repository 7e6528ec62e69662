"""Checkpoint folders: saved whole or not at all, and loaded as plain Hugging Face models.

Adapters have PEFT's layout (``adapter_config.json``, ``adapter_model.safetensors``), fully fine-tuned models have
Hugging Face's (``config.json``, ``model.safetensors``). Both load without this project. What is read again here is
verified first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from circuitdrift.errors import CircuitDriftError
from circuitdrift.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from circuitdrift.models.loading import load_model
from circuitdrift.provenance import Provenance
from circuitdrift.storage import DamageError, fix_of_damage, read_json, read_tensors, write_json, write_tensors
from circuitdrift.training.folders import write_folder
from circuitdrift.training.given_checkpoints import MANIFEST, load_given
from circuitdrift.training.processes import ALONE, Processes

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

# peft, and the modules that use it, are imported where a model has adapters: most jobs that load a model have none.

RANKS = "ranks.json"
MODEL_CONFIG = "config.json"
MODEL_WEIGHTS = "model.safetensors"

# The entry of a safetensors header that Hugging Face's libraries expect.
FORMAT = {"format": "pt"}


class CheckpointError(CircuitDriftError):
    """A checkpoint that cannot be loaded; the message names the file, the fault, and the fix."""


def save_checkpoint(
    model: PreTrainedModel | PeftModel,
    folder: Path,
    dtype: torch.dtype,
    provenance: Provenance,
    processes: Processes = ALONE,
) -> None:
    """Save the trained part of a model to a folder.

    The files are written to a temporary neighbour, flushed to the disk, and appear under the folder's name all at once.

    Args:
        model: an adapted model, whose adapters are saved, or a full model, whose weights are saved.
        folder: the checkpoint's folder; an existing one is replaced.
        dtype: dtype of a full model's saved weights; adapters keep theirs.
        provenance: written into the safetensors header.
        processes: the processes that train the model; all call this, and process 0 writes.
    """
    from peft import PeftModel

    from circuitdrift.training.sharding import gathered

    own = _adapter_tensors(model) if isinstance(model, PeftModel) else _full_tensors(model, dtype)
    tensors = gathered(own, processes)

    def write(temporary: Path) -> None:
        if isinstance(model, PeftModel):
            _write_adapters(model, tensors, temporary, provenance)
        else:
            _write_full_model(model, tensors, temporary, dtype, provenance)

    if processes.is_first:
        write_folder(folder, write)


def _write_adapters(model: PeftModel, tensors: dict[str, Tensor], folder: Path, provenance: Provenance) -> None:
    """Write the adapters, and AdaLoRA's ranks, which PEFT's files express only by cutting the tensors.

    Between two allocations AdaLoRA trains cut values on, so cut tensors would compute another function than the model
    in training. All values are kept; values that were cut for good are zeros.
    """
    from circuitdrift.training.adalora import rank_schedule
    from circuitdrift.training.adapters import ADAPTER, config_as_json

    config = config_as_json(model.peft_config[ADAPTER]) | {"inference_mode": True}
    if schedule := rank_schedule(model):
        write_json(folder / RANKS, schedule.ranks())
        config |= {"rank_pattern": None}
    write_json(folder / ADAPTER_CONFIG, config)
    write_tensors(folder / ADAPTER_WEIGHTS, tensors, FORMAT, provenance)


def _adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The adapters' tensors, uncut, under the names of PEFT's files."""
    from peft import AdaLoraConfig, get_peft_model_state_dict

    from circuitdrift.training.adapters import ADAPTER

    config = model.peft_config[ADAPTER]
    kept = config.rank_pattern if isinstance(config, AdaLoraConfig) else None
    if isinstance(config, AdaLoraConfig):
        config.rank_pattern = None
    # The default for embedding layers asks the hub whether the vocabulary has changed; adapters never touch it here.
    tensors = cast(dict[str, Tensor], get_peft_model_state_dict(model, save_embedding_layers=False))
    if isinstance(config, AdaLoraConfig):
        config.rank_pattern = kept
    return tensors


def _write_full_model(
    model: PreTrainedModel, tensors: dict[str, Tensor], folder: Path, dtype: torch.dtype, provenance: Provenance
) -> None:
    config = model.config.to_dict() | {"dtype": str(dtype).removeprefix("torch.")}
    write_json(folder / MODEL_CONFIG, {key: value for key, value in config.items() if key != "_name_or_path"})
    write_tensors(folder / MODEL_WEIGHTS, tensors, FORMAT, provenance)


def _full_tensors(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in model.state_dict().items() if name not in _tied(model)}


def _tied(model: PreTrainedModel) -> set[str]:
    """Names of weights that share another weight's memory (a tied head), which the file holds once."""
    return set(model.all_tied_weights_keys)


def load_checkpoint(manifest: Path, checkpoint: Path | None, device: torch.device) -> PreTrainedModel:
    """Load a checkpoint as a plain Hugging Face model in evaluation mode, its adapters merged into the weights.

    Args:
        manifest: manifest of the base model.
        checkpoint: a checkpoint folder, of a run or of a given checkpoint; None for the base model itself.
        device: device of the model.

    Raises:
        CheckpointError: a file is missing, truncated or of another format, or does not fit the base model.
        ManifestError: the base model, or a checkpoint that was trained elsewhere, cannot be loaded.
    """
    if checkpoint is not None and (checkpoint / MANIFEST).is_file():
        return load_given(manifest, checkpoint / MANIFEST, device)
    model = load_model(manifest, device)
    if checkpoint is None:
        return model
    if (checkpoint / ADAPTER_CONFIG).is_file():
        return _with_merged_adapters(model, checkpoint)
    if (checkpoint / MODEL_CONFIG).is_file():
        return _with_weights(model, checkpoint)
    raise CheckpointError(
        f"{checkpoint}: not a checkpoint, because it has neither {ADAPTER_CONFIG} nor {MODEL_CONFIG}; "
        f"{fix_of_damage(checkpoint)}"
    )


def _with_merged_adapters(model: PreTrainedModel, checkpoint: Path) -> PreTrainedModel:
    from peft import PeftConfig, set_peft_model_state_dict

    from circuitdrift.training.adapters import attach_adapters

    tensors = _read_weights(checkpoint / ADAPTER_WEIGHTS)
    _check_config(checkpoint / ADAPTER_CONFIG)
    adapted = attach_adapters(model, PeftConfig.from_pretrained(str(checkpoint)), seed=0)
    _check_fit(tensors, _adapter_tensors(adapted), checkpoint / ADAPTER_WEIGHTS)
    set_peft_model_state_dict(adapted, tensors)
    merged = cast("PreTrainedModel", adapted.merge_and_unload())
    merged.requires_grad_(True).train(False)
    return merged


def _with_weights(model: PreTrainedModel, checkpoint: Path) -> PreTrainedModel:
    tensors = _read_weights(checkpoint / MODEL_WEIGHTS)
    _check_config(checkpoint / MODEL_CONFIG)
    expected = {name: tensor for name, tensor in model.state_dict().items() if name not in _tied(model)}
    _check_fit(tensors, expected, checkpoint / MODEL_WEIGHTS)
    model.load_state_dict(tensors, strict=False)
    return model


def _check_config(path: Path) -> None:
    """Verify a configuration of a checkpoint before PEFT or Hugging Face read it.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        read_json(path)
    except DamageError as error:
        raise _damage_of_checkpoint(error) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)[0]
    except DamageError as error:
        raise _damage_of_checkpoint(error) from error


def _damage_of_checkpoint(error: DamageError) -> CheckpointError:
    """The same fault with its fix: Snakemake knows the folder and not the files in it, so the folder has to go."""
    return CheckpointError(f"{error.path}: {error.fault}; {fix_of_damage(error.path.parent)}")


def _check_fit(found: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Compare the names and shapes of a file's tensors with the model's."""
    wrong = [
        f"{name} (file: {_shape(found, name)}, model: {_shape(expected, name)})"
        for name in sorted({*found, *expected})
        if _shape(found, name) != _shape(expected, name)
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} tensors do not fit the base model, the first is {wrong[0]}; "
            f"{fix_of_damage(path.parent)}"
        )


def _shape(tensors: dict[str, Tensor], name: str) -> str:
    return str(list(tensors[name].shape)) if name in tensors else "absent"
