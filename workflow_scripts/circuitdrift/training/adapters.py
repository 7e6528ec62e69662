"""What is trained: all weights, or adapters (through peft) on the linears of the decoder blocks.

The linears are found in the model itself, so nothing here names an architecture's modules. After injection every
adapter is compared with what was asked for: the rank and the scale of LoRA's, the side of IA3's.
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

ADAPTER = "default"
"""The name that peft gives to the only adapter of a model."""


class AdapterError(ValueError):
    """Adapters that are not what was asked for; the message names the module, what was wanted and what was found."""


@dataclass(frozen=True)
class AdapterSize:
    """Rank of one adapter, and the scale by which its matrices' product is multiplied."""

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
    """What PEFT's configurations of all kinds of adapters share: the base model and the modules to adapt.

    Args:
        model: the base model; on the meta device is enough.
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
        model: the base model; on the meta device is enough.
        linears: its block linears.
        patterns: ranks and alphas.
        base_model: name and revision of the base model, None where not known.
        variant: further settings of PEFT's, such as ``use_dora``.
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
    """A PEFT configuration as JSON that ``from_pretrained`` reads; sets become sorted lists, so bytes are the same."""
    values = config.to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}


def train_all_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Make every weight trainable, in float32.

    A bfloat16 weight cannot take up the small steps of full fine-tuning: it has 8 significant bits, so an update of
    less than about 1/256 of the weight is rounded away.
    """
    model.float().requires_grad_(True)
    return model


def attach_adapters(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """Inject adapters, what is random in their first values drawn from ``seed``, and verify each.

    Raises:
        AdapterError: an adapter is missing, stands where none was wanted, or has another rank, scale or side.
    """
    wanted = wanted_adapters(config, block_linears(model))
    model.name_or_path = config.base_model_name_or_path  # peft records this name, which was a path of this machine
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft's own use
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    verify_adapters(adapted, wanted)
    return cast(PeftModel, adapted)


def wanted_adapters(config: PeftConfig, linears: Sequence[BlockLinear]) -> dict[str, AdapterSize | ScaledSide]:
    """What every block linear's adapter should be, by full module name.

    Raises:
        AdapterError: the configuration holds a pattern that belongs to no linear of the model, or is of a kind that
            is not known here.
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
    raise AdapterError(f"adapters of PEFT type {config.peft_type} are not supported here; use LoRA, AdaLoRA or IA3")


def _wanted_lora(config: LoraConfig, linears: Sequence[BlockLinear]) -> dict[str, AdapterSize]:
    """Rank and scale of every block linear by an exact look-up of its own pattern, without regular expressions."""
    by_pattern = {pattern_of_module(linear.name): linear.name for linear in linears}
    rank_pattern, alpha_pattern = config.rank_pattern or {}, config.alpha_pattern or {}
    if unknown := sorted({*rank_pattern, *alpha_pattern} - set(by_pattern)):
        raise AdapterError(
            f"the adapter configuration has patterns for modules that the model does not have: {unknown}; "
            "allocate the ranks for this model again"
        )
    wanted = {}
    for pattern, name in by_pattern.items():
        rank = rank_pattern.get(pattern, config.r)
        divisor = math.sqrt(rank) if config.use_rslora else rank
        wanted[name] = AdapterSize(rank, alpha_pattern.get(pattern, config.lora_alpha) / divisor)
    return wanted


def verify_adapters(adapted: PeftModel, wanted: Mapping[str, AdapterSize | ScaledSide]) -> None:
    """Compare every injected adapter with what was wanted.

    Args:
        adapted: the model with its adapters.
        wanted: what the adapters should be, by module name in the base model.

    Raises:
        AdapterError: the first module whose adapter is missing, superfluous, or of another rank, scale or side.
    """
    found = found_adapters(adapted)
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise AdapterError(
                f"module {name}: wanted {wanted.get(name) or 'no adapter'}, found {found.get(name) or 'no adapter'}; "
                "the adapter configuration's patterns do not select the modules that they name"
            )


def found_adapters(adapted: PeftModel) -> dict[str, AdapterSize | ScaledSide]:
    """What every injected adapter is, by its module's name in the base model."""
    return {
        name: _found_adapter(module)
        for name, module in adapted.get_base_model().named_modules()
        if isinstance(module, LoraLayer | IA3Layer)
    }


def _found_adapter(module: LoraLayer | IA3Layer) -> AdapterSize | ScaledSide:
    if isinstance(module, IA3Layer):
        return ScaledSide("input" if module.is_feedforward else "output")
    scale = module.scaling[ADAPTER]
    if isinstance(module, AdaLoraLayer):  # its attribute is alpha alone, which each pass divides by the first rank
        scale = scale / module.r[ADAPTER]
    return AdapterSize(module.r[ADAPTER], scale)


def causal_lm(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The Hugging Face model to run: of an adapted model the one with the adapters inside, without peft's wrapper."""
    return cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model


def parameter_counts(model: PreTrainedModel | PeftModel) -> tuple[int, int]:
    """Number of trainable parameters, and of all parameters that the model holds; tied ones count once."""
    parameters = list(model.parameters())
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return trainable, sum(parameter.numel() for parameter in parameters)
