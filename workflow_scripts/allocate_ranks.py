"""Turn critical layers into a LoRA configuration that plain PEFT reads, with a rank and an alpha for every module."""

import logging
from pathlib import Path

from circuitdrift import stage
from circuitdrift.allocation import policies
from circuitdrift.allocation.ranks import adapter_parameters, matched_uniform_rank, rank_patterns, ranks_by_layer
from circuitdrift.config.methods import CircuitLoraMethod, RandomLoraMethod, Training
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_json
from circuitdrift.training.adapters import base_model_name, block_linears, config_as_json, lora_config, shape_of

logger = logging.getLogger(__name__)


def main(
    *,
    manifest: Path,
    critical_layers: Path,
    adapter_config: Path,
    method: CircuitLoraMethod | RandomLoraMethod,
    training: Training,
    provenance: Provenance,
) -> None:
    """Write ``adapter_config.json``: ``critical_rank`` in the critical layers, ``rank`` elsewhere, one scale for all.

    Args:
        manifest: the base model.
        critical_layers: the table that says which layers are critical.
        adapter_config: file to write.
        method: the ranks, the number of critical layers, and the policy.
        training: holds alpha as a multiple of the rank.
        provenance: unused by the file, whose format is PEFT's; every stage takes it.
    """
    policy = method.policy if isinstance(method, CircuitLoraMethod) else policies.RANDOM
    layers = policies.critical_layers(read_table(critical_layers, "critical_layers"), policy, method.critical_layers)
    model = shape_of(manifest)
    linears = block_linears(model)
    ranks = ranks_by_layer(linears, method.rank, method.critical_rank, layers)
    patterns = rank_patterns(ranks, method.rank, training.lora_alpha_per_rank)
    write_json(adapter_config, config_as_json(lora_config(model, linears, patterns, base_model_name(manifest))))
    logger.info(
        "rank %d in layers %s, %d elsewhere: %d parameters; the uniform rank of exactly that size is %s",
        method.critical_rank,
        list(layers),
        method.rank,
        adapter_parameters(linears, ranks),
        matched_uniform_rank(linears, ranks) or "none",
    )


if __name__ == "__main__":
    stage.run(main)
