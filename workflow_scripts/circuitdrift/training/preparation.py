"""From a method's configuration to a model in which exactly the method's parameters are trainable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftConfig, PeftModel
from transformers import PreTrainedModel

from circuitdrift.allocation.ranks import rank_patterns, ranks_by_layer
from circuitdrift.config.methods import (
    AdaLoraMethod,
    DoraMethod,
    EvaLoraMethod,
    FullMethod,
    GrpoMethod,
    Ia3Method,
    LoraMethod,
    Method,
    MethodConfig,
    RsLoraMethod,
    UniformRankMethod,
)
from circuitdrift.decoder.linears import BlockLinear, block_linears
from circuitdrift.storage import read_json
from circuitdrift.training.adalora import adalora_config
from circuitdrift.training.adapters import AdapterError, attach_adapters, lora_config, train_all_weights
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
    """The model in which the method's parameters are trainable and no others.

    Args:
        base: the base model, which is changed.
        base_model: its name and revision.
        method: the method.
        alpha_per_rank: alpha as a multiple of the rank.
        adapter_config: the allocated ranks, for a method with allocated ranks.
        examples: the train split, for a method that reads it before the first step.
        steps: steps of the run.
        seed: seed of the adapters' initial values.

    Raises:
        AdapterError: the adapters cannot be made, or differ from the request.
        DamageError: ``adapter_config`` is missing or damaged.
    """
    if isinstance(method, FullMethod):
        return train_all_weights(base)
    if adapter_config is None:
        config = adapter_config_of(method, base, alpha_per_rank, steps, base_model)
    else:
        read_json(adapter_config)  # verifies the file that PEFT reads next
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
        model: the base model; the meta device is enough.
        alpha_per_rank: alpha as a multiple of the rank.
        steps: steps of the run.
        base_model: name and revision of the base model.

    Raises:
        AdapterError: the method's ranks come from an allocation, it trains all weights, or the run is too short.
    """
    build = BUILDERS.get(type(method))
    if build is None:
        raise AdapterError(f"method of kind {method.kind} needs the adapter_config.json of its rank allocation")
    return build(method, AdapterSetting(model, block_linears(model), alpha_per_rank, steps, base_model))


@dataclass(frozen=True)
class AdapterSetting:
    """Everything but the method that adapters depend on; the attributes are arguments of :func:`adapter_config_of`."""

    model: PreTrainedModel
    linears: tuple[BlockLinear, ...]
    alpha_per_rank: float
    steps: int
    base_model: tuple[str, str | None]


def _lora(method: UniformRankMethod, setting: AdapterSetting, **variant: Any) -> LoraConfig:
    return _uniform_lora(method.rank, setting.alpha_per_rank, setting, **variant)


def _rslora(method: RsLoraMethod, setting: AdapterSetting) -> LoraConfig:
    return _uniform_lora(method.rank, method.alpha / method.rank, setting, use_rslora=True)


def _uniform_lora(rank: int, alpha_per_rank: float, setting: AdapterSetting, **variant: Any) -> LoraConfig:
    """LoRA of one rank in every linear; ``variant`` holds further settings of PEFT."""
    patterns = rank_patterns(ranks_by_layer(setting.linears, rank, rank, ()), rank, alpha_per_rank)
    return lora_config(setting.model, setting.linears, patterns, setting.base_model, **variant)


def _adalora(method: AdaLoraMethod, setting: AdapterSetting) -> AdaLoraConfig:
    return adalora_config(
        setting.model, setting.linears, method, setting.alpha_per_rank, setting.steps, setting.base_model
    )


def _ia3(method: Ia3Method, setting: AdapterSetting) -> IA3Config:
    return ia3_config(setting.model, setting.linears, setting.base_model)


BUILDERS: Mapping[type[Method], Callable[[Any, AdapterSetting], PeftConfig]] = {
    LoraMethod: _lora,
    EvaLoraMethod: _lora,
    GrpoMethod: _lora,
    DoraMethod: partial(_lora, use_dora=True),
    RsLoraMethod: _rslora,
    AdaLoraMethod: _adalora,
    Ia3Method: _ia3,
}
"""Builders of PEFT's configuration, for each method whose adapters follow from the config alone.

Full fine-tuning has no adapters, and other stages allocate the ranks of the kinds of method that are not listed.
"""
