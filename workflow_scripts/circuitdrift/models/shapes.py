"""The shape of a model, from its config alone: no weights are read, and nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitdrift.config.models import HubModel, LocalModel, ModelConfig, PackageModel, ScratchModel
from circuitdrift.decoder.architecture import Settings
from circuitdrift.decoder.architectures import ARCHITECTURES, MODEL_TYPES
from circuitdrift.decoder.size import number_of_edges
from circuitdrift.models.caches import package_folder
from circuitdrift.models.folder import settings_of_folder
from circuitdrift.models.published_sizes import PUBLISHED_SETTINGS

GATED = (
    "cohere",
    "gemma",
    "gemma2",
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "olmo",
    "olmo2",
    "olmo3",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
    "stablelm",
)
"""Model types whose MLP has three matrices."""

# The names that architectures give to one size in config.json.
WIDTH = ("hidden_size", "n_embd", "n_embed", "d_model")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
GROUPS = ("num_key_value_heads", "num_kv_heads")
MLP_WIDTH = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that checks and estimates need.

    Attributes:
        parameters: number of weights, biases and norms left out.
        layers: number of blocks.
        heads: query heads in a block.
        width: of the residual stream.
        parallel: whether attention and MLP of a block both read the block's input.
    """

    parameters: int
    layers: int
    heads: int
    width: int
    parallel: bool

    @property
    def edges(self) -> int:
        """Number of edges of its graph."""
        return number_of_edges(self.layers, self.heads, self.parallel)


def shape_at_hand(model: ModelConfig) -> ModelShape | None:
    """The shape of a scratch model, of one whose config.json is on this machine, or of one of the paper's models.

    None where it is not known yet.
    """
    if isinstance(model, ScratchModel):
        vocabulary = model.largest_number
        matrices = 4 * model.width**2 + 2 * model.width * model.mlp_width
        parameters = model.layers * matrices + 2 * vocabulary * model.width
        return ModelShape(parameters, model.layers, model.heads, model.width, parallel=True)
    if found := config_file(model):
        return shape_of_settings(settings_of_folder(found.parent))
    published = PUBLISHED_SETTINGS.get(model.id) if isinstance(model, HubModel) else None
    return shape_of_settings(published) if published else None


def config_file(model: HubModel | LocalModel | PackageModel) -> Path | None:
    """The config.json of a model, in its folder or its cache; None if it is not there yet."""
    match model:
        case HubModel():
            from huggingface_hub import try_to_load_from_cache  # takes longer to import than the checks at parsing take

            found = try_to_load_from_cache(model.id, "config.json", revision=model.revision)
            return Path(found) if isinstance(found, str) else None
        case LocalModel():
            path = model.path / "config.json"
        case PackageModel():
            path = package_folder(model.package, model.sha256) / "config.json"
    return path if path.is_file() else None


def shape_of_settings(settings: Settings) -> ModelShape | None:
    """The shape of a supported model with these entries of config.json; None where a size is missing or no number."""
    return shape_if_told(settings) if settings.get("model_type", "") in MODEL_TYPES else None


def shape_if_told(config: Mapping[str, Any]) -> ModelShape | None:
    """As :func:`shape_in`; None where a size is missing or no number."""
    try:
        return shape_in(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def shape_in(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a Hugging Face config.json describes, as if sequential where the architecture is not supported.

    Raises:
        KeyError: the config has none of the names of a number.
    """
    width, layers, heads = (_first(config, names) for names in (WIDTH, LAYERS, HEADS))
    groups = _groups(config, heads)
    head_width = config.get("head_dim") or width // heads
    attention = 2 * width * head_width * (heads + groups)
    mlp_width = next((config[name] for name in MLP_WIDTH if config.get(name)), 4 * width)
    mlp = (3 if config.get("model_type") in GATED else 2) * width * mlp_width
    embeddings = (1 if config.get("tie_word_embeddings", True) else 2) * config["vocab_size"] * width
    return ModelShape(layers * (attention + mlp) + embeddings, layers, heads, width, is_parallel(config))


def is_parallel(config: Mapping[str, Any]) -> bool:
    """Whether attention and MLP of a block both read the block's input; False where the architecture is unsupported."""
    architecture = MODEL_TYPES.get(config.get("model_type", ""))
    return architecture is not None and ARCHITECTURES[architecture].parallel(config)


def _groups(config: Mapping[str, Any], heads: int) -> int:
    """Number of heads of keys: one for all query heads, one for each group, or one for each head."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    return next((int(config[name]) for name in GROUPS if config.get(name)), heads)


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        if config.get(name):
            return int(config[name])
    raise KeyError(f"config.json has none of {', '.join(names)}")
