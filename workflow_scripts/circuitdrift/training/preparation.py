"""From a method's configuration to a model in which just what the method trains is trainable."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, PeftConfig, PeftModel
from transformers import PreTrainedModel

from circuitdrift.allocation.ranks import RankPatterns, rank_patterns, ranks_by_layer
from circuitdrift.config.methods import (
    AdaLoraMethod,
    DoraMethod,
    EvaLoraMethod,
    FullMethod,
    GrpoMethod,
    Ia3Method,
    LoraMethod,
    MethodConfig,
    RsLoraMethod,
)
from circuitdrift.decoder.linears import block_linears
from circuitdrift.training.adalora import adalora_config
from circuitdrift.training.adapters import AdapterError, attach_adapters, lora_config, train_all_weights
from circuitdrift.training.checkpoints import read_config
from circuitdrift.training.eva import start_from_activations
from circuitdrift.training.examples import Examples
from circuitdrift.training.ia3 import ia3_config


def prepare_model(
    base: PreTrainedModel,
    base_model: tuple[str, str | None],
    method: MethodConfig,
    alpha_per_rank: float,
    adapter_config: Path | None,
    examples: Examples,
    steps: int,
    seed: int,
) -> PreTrainedModel | PeftModel:
    """The model with what the method trains made trainable, and nothing else.

    Args:
        base: the base model, which is changed.
        base_model: its name and revision.
        method: the method.
        alpha_per_rank: alpha as a multiple of the rank.
        adapter_config: the allocated ranks, for the methods that have any.
        examples: the train split, for a method that looks at it before the first step.
        steps: steps of the run.
        seed: seed of the adapters' first values.

    Raises:
        AdapterError: the adapters cannot be made, or are not what was asked for.
    """
    if isinstance(method, FullMethod):
        return train_all_weights(base)
    if adapter_config is None:
        config = adapter_config_of(method, base, alpha_per_rank, steps, base_model)
    else:
        read_config(adapter_config)
        config = LoraConfig.from_pretrained(str(adapter_config.parent))
    adapted = attach_adapters(base, config, seed)
    if isinstance(method, EvaLoraMethod):
        start_from_activations(adapted, examples)
    return adapted


def adapter_config_of(
    method: MethodConfig, model: PreTrainedModel, alpha_per_rank: float, steps: int, base_model: tuple[str, str | None]
) -> PeftConfig:
    """PEFT's configuration of a method whose adapters follow from the config alone.

    Args:
        method: the method.
        model: the base model; on the meta device is enough.
        alpha_per_rank: alpha as a multiple of the rank.
        steps: steps of the run.
        base_model: name and revision of the base model.

    Raises:
        AdapterError: the method's ranks come from an allocation, it trains all weights, or the run is too short.
    """
    linears = block_linears(model)

    def uniform(rank: int, scale: float) -> RankPatterns:
        return rank_patterns(ranks_by_layer(linears, rank, rank, ()), rank, scale)

    match method:
        case LoraMethod() | EvaLoraMethod() | GrpoMethod():
            return lora_config(model, linears, uniform(method.rank, alpha_per_rank), base_model)
        case DoraMethod():
            return lora_config(model, linears, uniform(method.rank, alpha_per_rank), base_model, use_dora=True)
        case RsLoraMethod():
            patterns = uniform(method.rank, method.alpha / method.rank)
            return lora_config(model, linears, patterns, base_model, use_rslora=True)
        case AdaLoraMethod():
            return adalora_config(model, linears, method, alpha_per_rank, steps, base_model)
        case Ia3Method():
            return ia3_config(model, linears, base_model)
        case _:
            raise AdapterError(f"method of kind {method.kind} needs the adapter_config.json of its rank allocation")
