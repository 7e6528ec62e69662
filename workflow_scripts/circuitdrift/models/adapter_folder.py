"""Whether a folder holds a PEFT adapter that can be merged into its base model exactly. No torch.

The keys of ``adapter_config.json`` are those of PEFT 0.21. A key that is not known here and is set may mean a
computation that merging does not reproduce, so it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from circuitdrift.models.folder import damage_of_weights, read_object

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)

PEFT_TYPES = ("LORA", "ADALORA", "IA3", "LOHA", "LOKR")
"""Kinds of adapters that change weights alone, so that they merge; LORA includes DoRA and rsLoRA."""

INITIAL_VALUES = ("init_lora_weights", "init_ia3_weights", "init_weights")
HARMLESS_INITIAL_VALUES = (True, False, "gaussian", "eva", "orthogonal")
"""Initial values that leave the base model's weights as they are."""

KNOWN = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision"),
        *("task_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "bias"),
        *("fan_in_fan_out", "modules_to_save", "ensure_weight_tying", "feedforward_modules"),
        *("use_effective_conv2d", "decompose_both", "decompose_factor", "rank_dropout_scale"),
        *("lora_dropout", "rank_dropout", "module_dropout", "runtime_config", "megatron_core", "qalora_group_size"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", *INITIAL_VALUES),
        *("target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"),
    }
)
"""Keys whose effect merging reproduces, and keys that matter in training alone."""

REASONS: Mapping[str, str] = {
    "alora_invocation_tokens": "it acts on some of the tokens alone, which no merged weights do",
    "layer_replication": "it repeats blocks, so that the graph is not the base model's",
    "megatron_config": "it needs Megatron",
    "trainable_token_indices": "it trains the embeddings of single tokens",
}
MERGE_IT = "merge it (PEFT: merge_and_unload), save the result with save_pretrained, and give that folder as a model"


def problem_of_adapter(folder: Path) -> str | None:
    """The first problem of an adapter's folder, with its fix; None for one that can be merged.

    The configuration is read, and the header of the weights is.
    """
    if not folder.is_dir():
        return f"{folder}: no such folder; correct the path of the adapter (it is relative to the config file)"
    config = folder / ADAPTER_CONFIG
    if not config.is_file():
        fix = "give it as path" if (folder / "config.json").is_file() else "name a folder that PEFT saved"
        return f"{folder}: has no {ADAPTER_CONFIG}, so it holds no adapter; {fix}"
    settings = read_object(config)
    if settings is None:
        return f"{config}: is not readable as JSON with keys; save the adapter again with save_pretrained"
    return _problem_of_settings(config, settings) or _problem_of_weights(folder)


def _problem_of_settings(config: Path, settings: Mapping[str, Any]) -> str | None:
    kind, task = settings.get("peft_type"), settings.get("task_type")
    if kind not in PEFT_TYPES:
        return f"{config}: peft_type {kind!r} does not merge into weights as {', '.join(PEFT_TYPES)} do; {MERGE_IT}"
    if task not in {None, "CAUSAL_LM"}:
        return f"{config}: task_type {task!r} is no language model; give an adapter of task_type CAUSAL_LM"
    for key in INITIAL_VALUES:
        if settings.get(key, True) not in HARMLESS_INITIAL_VALUES:
            return (
                f"{config}: {key} {settings[key]!r} also changed the base model's weights; save it as a plain LoRA "
                "(PEFT: save_pretrained with path_initial_model_for_weight_conversion)"
            )
    if unknown := sorted(key for key, value in settings.items() if value and key not in KNOWN):
        reason = REASONS.get(unknown[0], "it is not known to merge exactly")
        return f"{config}: {unknown[0]} is set, and {reason}; if peft merges it, {MERGE_IT}"
    return None


def _problem_of_weights(folder: Path) -> str | None:
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        if (folder / "adapter_model.bin").is_file():
            return (
                f"{folder}: has adapter_model.bin but no {ADAPTER_WEIGHTS}; pickled weights are refused because they "
                "can run code; load the adapter with PEFT and save it with save_pretrained"
            )
        return f"{folder}: has no {ADAPTER_WEIGHTS}; copy it there"
    problem = damage_of_weights(weights)
    return f"{weights}: {problem}; copy it again" if problem else None


def absent_targets(settings: Mapping[str, Any], modules: Collection[str]) -> list[str]:
    """The target modules of an adapter that the base model lacks; none where a pattern names them.

    Args:
        settings: the entries of ``adapter_config.json``.
        modules: full names of the base model's modules, or of those that have weights.
    """
    targets = settings.get("target_modules")
    if not isinstance(targets, list):
        return []
    return sorted(
        target for target in targets if not any(name == target or name.endswith(f".{target}") for name in modules)
    )


def foreign_base(settings: Mapping[str, Any], names: Collection[str]) -> str | None:
    """The base model that an adapter names, if it is none of these names; of a path its last part counts.

    Args:
        settings: the entries of ``adapter_config.json``.
        names: the names that the base model has.
    """
    named = settings.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        return None
    known = {name.lower() for name in names} | {name.rsplit("/", 1)[-1].lower() for name in names}
    return None if {named.lower(), named.rstrip("/").rsplit("/", 1)[-1].lower()} & known else named
