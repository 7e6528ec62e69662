"""Turn critical layers into a LoRA configuration that plain PEFT reads, with a rank and an alpha for every module."""

import logging
from pathlib import Path

import pandas as pd

from circuitdrift import stage
from circuitdrift.allocation import policies
from circuitdrift.allocation.modules import module_weights
from circuitdrift.allocation.ranks import (
    AllocationError,
    adapter_parameters,
    matched_uniform_rank,
    rank_patterns,
    ranks_by_layer,
    ranks_under_budget,
)
from circuitdrift.config.methods import CircuitLoraMethod, RandomLoraMethod, Training
from circuitdrift.decoder.linears import block_linears, group_by_layer, group_by_module
from circuitdrift.models.loading import load_shape
from circuitdrift.models.manifest import base_model_name
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_json
from circuitdrift.training.adapters import config_as_json, lora_config

logger = logging.getLogger(__name__)


def main(
    *,
    manifest: Path,
    critical_layers: Path,
    module_changes: Path | None,
    adapter_config: Path,
    method: CircuitLoraMethod | RandomLoraMethod,
    training: Training,
    provenance: Provenance,
) -> None:
    """Write ``adapter_config.json``: ``rank`` everywhere, more where the method's allocation says, one scale.

    The budget is that of ``critical_rank`` in ``critical_layers`` layers and ``rank`` elsewhere.

    Args:
        manifest: the base model.
        critical_layers: the table that says which layers are critical.
        module_changes: the changes credited to single modules, for the allocation by module alone.
        adapter_config: file to write.
        method: the ranks, the number of critical layers, the policy and the allocation.
        training: holds alpha as a multiple of the rank.
        provenance: unused by the file, whose format is PEFT's; every stage takes it.
    """
    table = read_table(critical_layers, "critical_layers")
    model = load_shape(manifest)
    linears = block_linears(model)
    policy = method.policy if isinstance(method, CircuitLoraMethod) else policies.RANDOM
    layers = policies.critical_layers(table, policy, method.critical_layers)
    ranks = ranks_by_layer(linears, method.rank, method.critical_rank, layers)
    budget = adapter_parameters(linears, ranks)
    if isinstance(method, CircuitLoraMethod) and method.allocation == "per_module":
        groups = group_by_module(model, linears)
        weights = module_weights(_read_changes(module_changes), policy, groups)
        ranks = ranks_under_budget(groups, method.rank, weights, budget)
    elif isinstance(method, CircuitLoraMethod) and method.allocation != "top":
        by_layer = policies.layer_weights(table, policy, method.allocation, method.critical_layers)
        ranks = ranks_under_budget(group_by_layer(linears), method.rank, by_layer, budget)
    patterns = rank_patterns(ranks, method.rank, training.lora_alpha_per_rank)
    write_json(adapter_config, config_as_json(lora_config(model, linears, patterns, base_model_name(manifest))))
    logger.info(
        "ranks by layer: %s; %d parameters of a budget of %d; the uniform rank of exactly that size is %s",
        {layer: [ranks[linear.name] for linear in own] for layer, own in group_by_layer(linears).items()},
        adapter_parameters(linears, ranks),
        budget,
        matched_uniform_rank(linears, ranks) or "none",
    )


def _read_changes(module_changes: Path | None) -> pd.DataFrame:
    if module_changes is None:
        raise AllocationError("allocation 'per_module' needs the table of module changes; the rule gives none")
    return read_table(module_changes, "module_changes")


if __name__ == "__main__":
    stage.run(main)
