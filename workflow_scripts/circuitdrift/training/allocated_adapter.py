"""The LoRA configuration of ranks that differ between layers or modules, in PEFT's file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdrift.allocation.allocate import allocate
from circuitdrift.allocation.ranks import adapter_parameters, matched_uniform_rank, rank_patterns
from circuitdrift.config.methods import CircuitLoraMethod, RandomLoraMethod, Training
from circuitdrift.decoder.linears import block_linears, group_by_layer
from circuitdrift.storage import write_json
from circuitdrift.training.adapters import config_as_json, lora_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from peft import LoraConfig
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def write_allocated_adapter(
    adapter_config: Path,
    model: PreTrainedModel,
    base_model: tuple[str | None, str | None],
    method: CircuitLoraMethod | RandomLoraMethod,
    critical_layers: pd.DataFrame,
    module_changes: pd.DataFrame | None,
    training: Training,
) -> None:
    """Write the ranks that a method's allocation gives, and one scale for all of them.

    Args:
        adapter_config: file to write.
        model: the base model; the meta device is enough.
        base_model: name and revision of the base model.
        method: the ranks, the number of critical layers, the policy and the allocation.
        critical_layers: the table that says which layers are critical.
        module_changes: the changes credited to single modules, which allocation ``per_module`` alone needs.
        training: holds alpha as a multiple of the rank.

    Raises:
        AllocationError: a table does not fit the model or the method.
    """
    linears = block_linears(model)
    ranks, budget = allocate(model, method, critical_layers, module_changes)
    write_adapter_of_ranks(adapter_config, model, base_model, ranks, method.rank, training.lora_alpha_per_rank)
    logger.info(
        "ranks by layer: %s; %d parameters of a budget of %d; the uniform rank of exactly that size is %s",
        {layer: [ranks[linear.name] for linear in own] for layer, own in group_by_layer(linears).items()},
        adapter_parameters(linears, ranks),
        budget,
        matched_uniform_rank(linears, ranks) or "none",
    )


def write_adapter_of_ranks(
    adapter_config: Path,
    model: PreTrainedModel,
    base_model: tuple[str | None, str | None],
    ranks: Mapping[str, int],
    rank: int,
    alpha_per_rank: float,
) -> None:
    """Write LoRA of given ranks with one scale for all of them.

    Args:
        adapter_config: file to write.
        model: the base model; the meta device is enough.
        base_model: name and revision of the base model.
        ranks: the rank of every block linear; one of rank 0 gets no adapter.
        rank: the rank that needs no pattern.
        alpha_per_rank: alpha as a multiple of the rank.
    """
    adapted = [linear for linear in block_linears(model) if ranks[linear.name] > 0]
    patterns = rank_patterns({linear.name: ranks[linear.name] for linear in adapted}, rank, alpha_per_rank)
    config = lora_config(model, adapted, patterns, base_model)
    config.exclude_modules = sorted(name for name in ranks if not ranks[name] and _is_target(name, config)) or None
    write_json(adapter_config, config_as_json(config))


def _is_target(name: str, config: LoraConfig) -> bool:
    """Whether PEFT would adapt a module by the last part of its name."""
    return name.rsplit(".", 1)[-1] in (config.target_modules or ())
