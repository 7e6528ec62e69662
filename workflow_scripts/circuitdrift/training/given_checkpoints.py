"""Checkpoints that were trained elsewhere: checked against their base model, then loaded as plain Hugging Face models.

Their weights stay where they are. The folder of a given checkpoint holds a manifest of them, as a model's does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from circuitdrift.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MERGE_IT, absent_targets
from circuitdrift.models.files import model_folder, model_folder_without_weights
from circuitdrift.models.folder import read_object
from circuitdrift.models.likeness import difference_of_models, difference_of_tokens
from circuitdrift.models.loading import check_architecture, load_config, load_model, load_shape
from circuitdrift.models.manifest import ManifestError, read_manifest

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

# peft is imported where an adapter is at hand, as in training/checkpoints.py.

MANIFEST = "manifest.json"
ADAPTER = "default"


def load_given(base: Path, manifest: Path, device: torch.device) -> PreTrainedModel:
    """A given checkpoint in evaluation mode, in the base model's dtype, an adapter merged into the base's weights.

    Args:
        base: manifest of the base model.
        manifest: manifest of the checkpoint.
        device: device of the model.

    Raises:
        ManifestError: a file of either is missing or was changed, or the checkpoint does not fit the base model.
    """
    if not read_manifest(manifest).is_adapter:
        return load_model(manifest, device)
    from peft import set_peft_model_state_dict

    folder = model_folder(manifest)
    file = folder / ADAPTER_WEIGHTS
    tensors = load_file(file)
    model = load_model(base, device)
    _untie_adapted_embeddings(model, tensors)
    with _quiet():
        adapted = _with_adapter(model, folder)
        _check_names({name: tuple(tensor.shape) for name, tensor in tensors.items()}, adapted, file)
        set_peft_model_state_dict(adapted, tensors, ADAPTER)
        merged = cast("PreTrainedModel", adapted.merge_and_unload())
    merged.requires_grad_(True).train(False)
    return merged


def check_given_model(base: Path, folder: Path) -> None:
    """Check that a model has the graph and the tokens of the base model, without loading any weights.

    Raises:
        AnatomyError: the circuit engine does not support the model.
        ManifestError: it differs from the base model, or does not load.
    """
    settings, own = check_architecture(folder).to_dict(), load_config(base).to_dict()
    if difference := difference_of_models(own, settings):
        raise ManifestError(
            f"{folder}: has {difference}, so its circuits cannot be compared with the base model's; give checkpoints "
            "of one architecture and size, and models of another size entries of their own"
        )
    if difference := difference_of_tokens(model_folder_without_weights(base), folder):
        raise ManifestError(
            f"{folder}: its tokenizer has {difference}; prompts are tokenised by the base model's tokenizer, so give "
            "checkpoints of one tokenizer"
        )


def check_given_adapter(base: Path, folder: Path) -> None:
    """Check that an adapter's tensors are those that its configuration makes on the base model; no weights are loaded.

    Raises:
        ManifestError: the base model lacks modules that the adapter is for, or the names or shapes of tensors differ.
    """
    model, file = load_shape(base), folder / ADAPTER_WEIGHTS
    modules = [name for name, _ in model.named_modules()]
    if absent := absent_targets(read_object(folder / ADAPTER_CONFIG) or {}, modules):
        raise ManifestError(
            f"{folder / ADAPTER_CONFIG}: target module '{absent[0]}' is no module of the base model; give the model "
            "that the adapter was trained on as the base"
        )
    try:
        with torch.device("meta"), _quiet():
            adapted = _with_adapter(model, folder)
    except Exception as error:  # whatever impossible values make peft raise
        line = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ManifestError(f"{folder}: PEFT cannot put it on the base model ({line}); {MERGE_IT}") from None
    with safe_open(file, framework="pt") as opened:
        found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    _check_names(found, adapted, file)


def _untie_adapted_embeddings(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Give a tied head weights of its own where an adapter changes embedding or head, since merging would change both.

    Args:
        model: the base model.
        names: names of the adapter's tensors.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head.weight is embedding.weight:
        modules = [name for name, module in model.named_modules() if module in (embedding, head)]
        if any(f".{module}." in name for module in modules for name in names):
            head.weight = torch.nn.Parameter(head.weight.detach().clone())


def _with_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A model with the adapter of a folder's configuration, whose values are not read yet."""
    from peft import PeftConfig, PeftModelForCausalLM

    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    return PeftModelForCausalLM(model, config, ADAPTER)


def _check_names(found: Mapping[str, tuple[int, ...]], adapted: PeftModel, file: Path) -> None:
    """Compare the tensors of an adapter's file with those that its configuration makes on a model."""
    from peft import get_peft_model_state_dict

    # PEFT saves whole embeddings with adapters on them. Its default asks the hub whether the vocabulary has changed.
    embeddings = any(".base_layer." in name for name in found)
    state = get_peft_model_state_dict(adapted, adapter_name=ADAPTER, save_embedding_layers=embeddings)
    made = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = [name for name in sorted({*found, *made}) if found.get(name) != made.get(name)]
    if wrong:
        in_file, on_model = (str(list(at[wrong[0]])) if wrong[0] in at else "absent" for at in (found, made))
        raise ManifestError(
            f"{file}: {len(wrong)} tensors do not fit the base model, the first is {wrong[0]} (file: {in_file}, model: "
            f"{on_model}); give the model that the adapter was trained on as the base, or {MERGE_IT}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide PEFT's warnings of its own deprecations, and of tied embeddings, which come apart by merging."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", ".*tie_word_embeddings.*", UserWarning)
        yield
