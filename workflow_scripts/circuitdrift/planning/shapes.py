"""The size of a model, from its config alone: no weights are read, and no torch is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitdrift.config.models import HubModel, LocalModel, ModelConfig, PackageModel, ScratchModel
from circuitdrift.models.caches import package_folder
from circuitdrift.models.sizes import NAMES

GATED = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose MLP has three matrices."""

# The names that architectures give to one size in config.json.
HEADS = ("num_attention_heads", "n_head", "num_heads")
MLP_WIDTH = ("intermediate_size", "ffn_dim", "n_inner")


@dataclass(frozen=True)
class ModelShape:
    """What an estimate needs to know of a model.

    Attributes:
        parameters: number of weights, biases and norms left out.
        layers: number of blocks.
        heads: query heads in a block.
        width: of the residual stream.
    """

    parameters: int
    layers: int
    heads: int
    width: int

    @property
    def edges(self) -> int:
        """About the number of edges of its graph: half of all pairs of a writer and a reader."""
        return (1 + self.layers * (self.heads + 1)) * (1 + self.layers * (3 * self.heads + 1)) // 2


def shape_of(model: ModelConfig) -> ModelShape | None:
    """The shape of a configured model; None while no config.json that describes it is on this machine."""
    if isinstance(model, ScratchModel):
        vocabulary = model.largest_number
        matrices = 4 * model.width**2 + 2 * model.width * model.mlp_width
        parameters = model.layers * matrices + 2 * vocabulary * model.width
        return ModelShape(parameters, model.layers, model.heads, model.width)
    path = config_file(model)
    try:
        return shape_in(json.loads(path.read_text(encoding="utf-8"))) if path else None
    except (KeyError, ValueError):
        return None


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


def shape_in(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a Hugging Face config.json describes.

    Raises:
        KeyError: the config has none of the names of a number.
    """
    width, layers, heads = (
        _first(config, names) for names in (NAMES["hidden_size"], NAMES["num_hidden_layers"], HEADS)
    )
    groups = config.get("num_key_value_heads") or heads
    head_width = config.get("head_dim") or width // heads
    attention = 2 * width * head_width * (heads + groups)
    mlp_width = next((config[name] for name in MLP_WIDTH if config.get(name)), 4 * width)
    mlp = (3 if config.get("model_type") in GATED else 2) * width * mlp_width
    embeddings = (1 if config.get("tie_word_embeddings", True) else 2) * config["vocab_size"] * width
    return ModelShape(layers * (attention + mlp) + embeddings, layers, heads, width)


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        if config.get(name):
            return int(config[name])
    raise KeyError(f"config.json has none of {', '.join(names)}")
