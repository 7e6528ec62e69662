"""From a method's configuration to a model in which just what the method trains is trainable."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from circuitdrift.allocation.ranks import rank_patterns, ranks_by_layer
from circuitdrift.config.methods import FullMethod, LoraMethod, MethodConfig, Training
from circuitdrift.training.adapters import (
    AdapterError,
    attach_lora,
    base_model_name,
    block_linears,
    lora_config,
    train_all_weights,
)
from circuitdrift.training.checkpoints import read_config


def prepare_model(
    base: PreTrainedModel,
    manifest: Path,
    method: MethodConfig,
    training: Training,
    adapter_config: Path | None,
    seed: int,
) -> PreTrainedModel | PeftModel:
    """The model with what the method trains made trainable, and nothing else."""
    if isinstance(method, FullMethod):
        return train_all_weights(base)
    if isinstance(method, LoraMethod):
        linears = block_linears(base)
        ranks = ranks_by_layer(linears, method.rank, method.rank, ())
        patterns = rank_patterns(ranks, method.rank, training.lora_alpha_per_rank)
        return attach_lora(base, lora_config(base, linears, patterns, base_model_name(manifest)), seed)
    if adapter_config is None:
        raise AdapterError(f"method of kind {method.kind} needs the adapter_config.json of its rank allocation")
    read_config(adapter_config)
    return attach_lora(base, LoraConfig.from_pretrained(str(adapter_config.parent)), seed)
