"""Turn critical layers into a LoRA configuration that plain PEFT reads, with a rank and an alpha for every module."""

import logging
from pathlib import Path

from circuitdrift import stage
from circuitdrift.allocation.allocate import allocate
from circuitdrift.allocation.ranks import adapter_parameters, matched_uniform_rank, rank_patterns
from circuitdrift.config.methods import CircuitLoraMethod, RandomLoraMethod, Training
from circuitdrift.decoder.linears import block_linears, group_by_layer
from circuitdrift.models.loading import load_shape
from circuitdrift.models.manifest import base_model_name
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
) -> None:
    """Write ``adapter_config.json``: the ranks that the method's allocation gives, and one scale for all of them.

    Args:
        manifest: the base model.
        critical_layers: the table that says which layers are critical.
        module_changes: the changes credited to single modules, which allocation ``per_module`` alone needs.
        adapter_config: file to write.
        method: the ranks, the number of critical layers, the policy and the allocation.
        training: holds alpha as a multiple of the rank.

    Raises:
        AllocationError: a table does not fit the model or the method.
    """
    model = load_shape(manifest)
    linears = block_linears(model)
    layers = read_table(critical_layers, "critical_layers")
    changes = None if module_changes is None else read_table(module_changes, "module_changes")
    ranks, budget = allocate(model, method, layers, changes)
    patterns = rank_patterns(ranks, method.rank, training.lora_alpha_per_rank)
    write_json(adapter_config, config_as_json(lora_config(model, linears, patterns, base_model_name(manifest))))
    logger.info(
        "ranks by layer: %s; %d parameters of a budget of %d; the uniform rank of exactly that size is %s",
        {layer: [ranks[linear.name] for linear in own] for layer, own in group_by_layer(linears).items()},
        adapter_parameters(linears, ranks),
        budget,
        matched_uniform_rank(linears, ranks) or "none",
    )


if __name__ == "__main__":
    stage.run(main)
