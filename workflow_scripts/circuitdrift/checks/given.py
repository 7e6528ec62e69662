"""Whether checkpoints that were trained elsewhere fit their base model, as far as files on this machine tell.

The job ``fetch_checkpoint`` checks the rest: checkpoints on the hub, and base models that are not here yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from circuitdrift.config.given import GivenCheckpoint
from circuitdrift.config.models import HubModel, LocalModel, ModelConfig, PackageModel, ScratchModel
from circuitdrift.models.adapter_folder import ADAPTER_CONFIG, absent_targets, foreign_base, problem_of_adapter
from circuitdrift.models.folder import modules_of_weights, problem_of_weights_folder, read_object, settings_of_folder
from circuitdrift.models.likeness import difference_of_models, difference_of_tokens
from circuitdrift.models.shapes import config_file
from circuitdrift.study import Study


def problems_of_given(study: Study) -> list[str]:
    """One line for each given checkpoint in a folder that cannot be used: the key, the problem and the fix."""
    return [
        f"{key}: {problem}"
        for key, model, given in _given_folders(study)
        if (problem := _problem_of_adapter(model, given) if given.is_adapter else _problem_of_model(model, given))
    ]


def warnings_of_given(study: Study) -> list[str]:
    """One line for each adapter that names another base model than the one that it is given for."""
    return [
        f"{key}: was trained on {base}, which is none of the names of model '{name}' ({', '.join(sorted(names))}); its "
        "circuits mean something only on the weights that it was trained on"
        for key, model, given in _given_folders(study)
        if given.adapter is not None
        for name in [key.split(".")[1]]
        if (names := _names_of(name, model)) and (base := foreign_base(_settings_of(given.adapter), names))
    ]


def _given_folders(study: Study) -> Iterator[tuple[str, ModelConfig, GivenCheckpoint]]:
    """The key of each given checkpoint in a folder, its base model, and itself."""
    for name, model in study.config.models.items():
        for number, given in enumerate(model.checkpoints):
            if given.folder is not None:
                yield f"models.{name}.checkpoints.{number}.{'adapter' if given.is_adapter else 'path'}", model, given


def _problem_of_model(model: ModelConfig, given: GivenCheckpoint) -> str | None:
    folder = Path(str(given.path))
    if problem := problem_of_weights_folder(folder):
        return problem
    own, base = _settings_at_hand(model), _folder_at_hand(model)
    if own and (difference := difference_of_models(own, settings_of_folder(folder))):
        return f"{folder}: has {difference}, so its circuits cannot be compared with the base model's; remove it"
    if base and (difference := difference_of_tokens(base, folder)):
        return (
            f"{folder}: its tokenizer has {difference}; prompts are tokenised by the base model's, so give checkpoints "
            "of one tokenizer"
        )
    return None


def _problem_of_adapter(model: ModelConfig, given: GivenCheckpoint) -> str | None:
    folder = Path(str(given.adapter))
    if problem := problem_of_adapter(folder):
        return problem
    modules = modules_of_weights(base) if (base := _folder_at_hand(model)) else set()
    if modules and (absent := absent_targets(_settings_of(folder), modules)):
        return (
            f"{folder / ADAPTER_CONFIG}: target module '{absent[0]}' is no module of the base model; give the model "
            "that the adapter was trained on as the base"
        )
    return None


def _settings_at_hand(model: ModelConfig) -> Mapping[str, object]:
    """The entries of a base model's config.json as far as they are known before any job."""
    if isinstance(model, ScratchModel):
        sizes = {"num_hidden_layers": model.layers, "num_attention_heads": model.heads}
        return {**sizes, "hidden_size": model.width, "intermediate_size": model.mlp_width, "model_type": "gpt_neox"}
    folder = _folder_at_hand(model)
    return settings_of_folder(folder) if folder else {}


def _folder_at_hand(model: ModelConfig) -> Path | None:
    """The folder of a base model that is on this machine; None of one that has to be made or fetched."""
    if isinstance(model, ScratchModel):
        return None
    found = config_file(model)
    return found.parent if found else None


def _settings_of(adapter: Path) -> Mapping[str, object]:
    return read_object(adapter / ADAPTER_CONFIG) or {}


def _names_of(name: str, model: ModelConfig) -> set[str]:
    """The names that an adapter may call a base model by; none of a package, whose model has another name elsewhere."""
    match model:
        case HubModel():
            return {model.id}
        case LocalModel():
            return {name, model.path.name}
        case PackageModel():
            return set()
        case _:
            return {name}
