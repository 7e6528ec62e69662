"""The trained parameters: all weights, or adapters (through peft) on the linears of the decoder blocks.

The linears are found in the model itself, so nothing here names an architecture's modules. After injection every
adapter is compared with the request: rank and scale of LoRA, the side of IA3.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from circuitdrift.allocation.ranks import RankPatterns, pattern_of_module
from circuitdrift.decoder.linears import BlockLinear, block_linears
from circuitdrift.errors import CircuitDriftError

ADAPTER = "default"
"""peft's name for the only adapter of a model."""


class AdapterError(CircuitDriftError):
    """Adapters other than requested; the message names the module, the wanted and the found adapter."""


@dataclass(frozen=True)
class AdapterSize:
    """Rank of one adapter, and the scale that multiplies the product of its matrices."""

    rank: int
    scale: float

    def __str__(self) -> str:
        return f"rank {self.rank} and scale {self.scale:g}"


@dataclass(frozen=True)
class ScaledSide:
    """The side of a linear that IA3's factors multiply."""

    side: Literal["input", "output"]

    def __str__(self) -> str:
        return f"factors on the {self.side}"


def common_settings(
    model: PreTrainedModel, linears: Sequence[BlockLinear], base_model: tuple[str | None, str | None]
) -> dict[str, Any]:
    """Settings that PEFT's configurations of all kinds of adapters share: the base model and the modules to adapt.

    Args:
        model: the base model; the meta device is enough.
        linears: its block linears.
        base_model: name and revision of the base model.
    """
    return {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model[0],
        "revision": base_model[1],
        "target_modules": sorted({linear.name.rsplit(".", 1)[-1] for linear in linears}),
        "fan_in_fan_out": any(isinstance(model.get_submodule(linear.name), Conv1D) for linear in linears),
    }


def lora_config(
    model: PreTrainedModel,
    linears: Sequence[BlockLinear],
    patterns: RankPatterns,
    base_model: tuple[str | None, str | None],
    **variant: Any,
) -> LoraConfig:
    """PEFT's configuration of LoRA (dropout 0) on every block linear with the given ranks.

    Args:
        model: the base model; the meta device is enough.
        linears: its block linears.
        patterns: ranks and alphas.
        base_model: name and revision of the base model; None if unknown.
        variant: further settings of PEFT, such as ``use_dora``.
    """
    return LoraConfig(
        **common_settings(model, linears, base_model),
        r=patterns.rank,
        lora_alpha=cast(int, patterns.alpha),
        lora_dropout=0.0,
        rank_pattern=dict(patterns.rank_pattern),
        alpha_pattern=cast(dict[str, int], dict(patterns.alpha_pattern)),
        **variant,
    )


def config_as_json(config: PeftConfig) -> dict[str, Any]:
    """A PEFT configuration as JSON for ``from_pretrained``; sets become sorted lists, so that bytes are the same."""
    values = config.to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}


def train_all_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Make every weight trainable, in float32.

    The small steps of full fine-tuning are lost on a bfloat16 weight: it has 8 significant bits, so an update below
    about 1/256 of the weight is rounded away.
    """
    model.float().requires_grad_(True)
    return model


def attach_adapters(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """Inject adapters with initial values drawn from ``seed``, and verify each adapter.

    Raises:
        AdapterError: an adapter is missing or superfluous, or has another rank, scale or side than requested.
    """
    wanted = wanted_adapters(config, block_linears(model))
    model.name_or_path = config.base_model_name_or_path  # peft records this name, which was a local path
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft's own use
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    verify_adapters(adapted, wanted)
    return cast(PeftModel, adapted)


def wanted_adapters(config: PeftConfig, linears: Sequence[BlockLinear]) -> dict[str, AdapterSize | ScaledSide]:
    """The requested adapter of every block linear that gets one, by full module name.

    Raises:
        AdapterError: the configuration holds a pattern that matches no linear of the model, or is of another kind.
    """
    if isinstance(config, AdaLoraConfig):
        size = AdapterSize(config.init_r, config.lora_alpha / config.init_r)
        return {linear.name: size for linear in linears}
    if isinstance(config, IA3Config):
        feedforward = re.compile(str(config.feedforward_modules))
        return {
            linear.name: ScaledSide("input" if feedforward.fullmatch(linear.name) else "output") for linear in linears
        }
    if isinstance(config, LoraConfig):
        return {**_wanted_lora(config, linears)}
    raise AdapterError(f"adapters of PEFT type {config.peft_type} are not supported; use LoRA, AdaLoRA or IA3")


def _wanted_lora(config: LoraConfig, linears: Sequence[BlockLinear]) -> dict[str, AdapterSize]:
    """Rank and scale of every adapted linear by an exact look-up of its pattern, without regular expressions."""
    by_pattern = {pattern_of_module(linear.name): linear.name for linear in linears}
    rank_pattern, alpha_pattern = config.rank_pattern or {}, config.alpha_pattern or {}
    if unknown := sorted({*rank_pattern, *alpha_pattern} - set(by_pattern)):
        raise AdapterError(
            f"the adapter configuration has patterns for modules that the model lacks: {unknown}; "
            "allocate the ranks for this model again"
        )
    targets, without = set(config.target_modules or ()), set(config.exclude_modules or ())
    wanted = {}
    for pattern, name in by_pattern.items():
        if name.rsplit(".", 1)[-1] not in targets or name in without:
            continue
        rank = rank_pattern.get(pattern, config.r)
        divisor = math.sqrt(rank) if config.use_rslora else rank
        wanted[name] = AdapterSize(rank, alpha_pattern.get(pattern, config.lora_alpha) / divisor)
    return wanted


def verify_adapters(adapted: PeftModel, wanted: Mapping[str, AdapterSize | ScaledSide]) -> None:
    """Compare every injected adapter with the request.

    Args:
        adapted: the model with its adapters.
        wanted: the requested adapters by module name in the base model.

    Raises:
        AdapterError: an adapter is missing or superfluous, or has another rank, scale or side; the message names the
            first such module.
    """
    found = found_adapters(adapted)
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise AdapterError(
                f"module {name}: wanted {wanted.get(name) or 'no adapter'}, found {found.get(name) or 'no adapter'}; "
                "allocate the ranks for this model again, so that each pattern selects the module that it names"
            )


def found_adapters(adapted: PeftModel) -> dict[str, AdapterSize | ScaledSide]:
    """Every injected adapter, by its module's name in the base model."""
    return {
        name: _found_adapter(module)
        for name, module in adapted.get_base_model().named_modules()
        if isinstance(module, LoraLayer | IA3Layer)
    }


def _found_adapter(module: LoraLayer | IA3Layer) -> AdapterSize | ScaledSide:
    if isinstance(module, IA3Layer):
        return ScaledSide("input" if module.is_feedforward else "output")
    scale = module.scaling[ADAPTER]
    if isinstance(module, AdaLoraLayer):  # the attribute is alpha, which each pass divides by the initial rank
        scale = scale / module.r[ADAPTER]
    return AdapterSize(module.r[ADAPTER], scale)


def causal_lm(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The Hugging Face model to run: with any adapters inside, but without peft's wrapper."""
    return cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model


def parameter_counts(model: PreTrainedModel | PeftModel) -> tuple[int, int]:
    """Numbers of trainable parameters and of all parameters of the model; tied parameters count once."""
    parameters = list(model.parameters())
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return trainable, sum(parameter.numel() for parameter in parameters)
