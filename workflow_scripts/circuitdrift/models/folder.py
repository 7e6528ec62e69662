"""Whether a local folder holds a model that this workflow can use. No torch: it is checked before any job starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuitdrift.decoder.architectures import MODEL_TYPES, why_unsupported

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
LARGEST_JSON = 100 * 2**20
"""A config, index or safetensors header of more bytes is not read."""


def problem_of_folder(folder: Path) -> str | None:
    """The first problem of a folder in the Hugging Face layout, with its fix; None for a usable one.

    The config is read, the weights' headers are, the weights and the tokenizer are not.
    """
    return problem_of_weights_folder(folder) or _problem_of_tokenizer(folder)


def problem_of_weights_folder(folder: Path) -> str | None:
    """The same of a folder that needs no tokenizer."""
    if not folder.is_dir():
        hint = "write ~ out" if "~" in folder.parts else "it is relative to the config file"
        return f"{folder}: no such folder; correct the key path of the local model ({hint})"
    config = folder / "config.json"
    if not config.is_file():
        return _why_no_config(folder)
    settings = read_object(config)
    if settings is None:
        return f"{config}: is not readable as JSON with keys; save the model again with save_pretrained"
    return _problem_of_settings(config, settings) or _problem_of_weights(folder)


def settings_of_folder(folder: Path) -> Mapping[str, Any]:
    """The entries of a folder's config.json; none where it cannot be read."""
    return read_object(folder / "config.json") or {}


def _why_no_config(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return (
            f"{folder}: holds an adapter (adapter_config.json), not a model; merge it into its base model "
            "(PEFT: merge_and_unload) and save the result with save_pretrained"
        )
    inside = sorted(found.parent.name for found in folder.glob("*/config.json"))
    fix = f"did you mean its folder '{inside[0]}'?" if inside else "path must name a folder in the Hugging Face layout"
    return f"{folder}: has no config.json; {fix}"


def _problem_of_settings(config: Path, settings: Mapping[str, Any]) -> str | None:
    model_type = settings.get("model_type")
    if not isinstance(model_type, str):
        return f"{config}: has no model_type; save the model again with save_pretrained"
    if reason := why_unsupported(MODEL_TYPES.get(model_type), settings):
        return f"{config}: model_type '{model_type}': {reason}"
    if "quantization_config" in settings:
        return f"{config}: the weights are quantised (quantization_config); use the model's unquantised weights"
    return None


def _problem_of_weights(folder: Path) -> str | None:
    weights = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = (read_object(index) or {}).get("weight_map")
        if not isinstance(shards, dict):
            return f"{index}: is not readable as an index of weights; copy it again"
        if missing := sorted({str(name) for name in shards.values()} - {path.name for path in weights}):
            return f"{folder}: lacks {missing[0]}, which its index names; copy the missing weights"
    if not weights:
        if any(any(folder.glob(pattern)) for pattern in PICKLED):
            return (
                f"{folder}: has pickled weights but no *.safetensors; pickled weights are refused because they can run "
                "code; load the model and save it with save_pretrained"
            )
        return f"{folder}: has no *.safetensors, so no weights; save the model with save_pretrained"
    return next((f"{path}: {problem}; copy it again" for path in weights if (problem := damage_of_weights(path))), None)


def _problem_of_tokenizer(folder: Path) -> str | None:
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    return f"{folder}: has none of {', '.join(TOKENIZER_FILES)}; save the tokenizer there too"


def modules_of_weights(folder: Path) -> set[str]:
    """Names of the modules that the weights of a folder belong to, as the headers of its safetensors files give them.

    Headers that cannot be read give none.
    """
    names: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        if damage_of_weights(path) is None:
            with path.open("rb") as opened:
                header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
            names |= {name.rpartition(".")[0] for name in header if name != "__metadata__"}
    return names


def damage_of_weights(weights: Path) -> str | None:
    """What is wrong with a safetensors file as its header and size show it."""
    size = weights.stat().st_size
    with weights.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_JSON):
            return "is cut off or is no safetensors file"
        try:
            header = json.loads(opened.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return "has no readable header of safetensors"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"has {size:,} bytes, its header says {expected:,}"


def read_object(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file that is an object; None of any other file."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
