"""Turn imported circuits into a LoRA configuration that plain PEFT reads, without their model."""

import logging
from pathlib import Path

from circuitdrift import stage
from circuitdrift.allocation.allocate import allocate
from circuitdrift.allocation.architectures import base_architecture, shape_of_architecture
from circuitdrift.allocation.ranks import rank_patterns
from circuitdrift.circuits.exchange.eap_json import graph_of_table
from circuitdrift.config.imports import ImportedCircuits
from circuitdrift.config.methods import Training
from circuitdrift.decoder.linears import block_linears, group_by_layer
from circuitdrift.storage import read_table, write_json
from circuitdrift.training.adapters import config_as_json, lora_config

logger = logging.getLogger(__name__)


def main(
    *,
    edges: Path,
    critical_layers: Path,
    adapter_config: Path,
    imported: ImportedCircuits,
    training: Training,
) -> None:
    """Write ``adapter_config.json``: ``critical_rank`` in the critical layers, ``rank`` elsewhere, one scale for all.

    Args:
        edges: the edges table of one of the circuits, for the shape of their graph.
        critical_layers: the table that says which layers are critical.
        adapter_config: file to write.
        imported: the ranks, the number of critical layers, the policy, and the known facts of the base model.
        training: holds alpha as a multiple of the rank.

    Raises:
        AllocationError: the base model's architecture is not known, or the table of critical layers does not fit.
    """
    graph = graph_of_table(read_table(edges, "edges"), edges)
    architecture = base_architecture(imported.architecture, graph.parallel)
    model = shape_of_architecture(architecture, graph.n_layers)
    linears = block_linears(model)
    method = imported.as_method("imported")
    ranks, _ = allocate(model, method, read_table(critical_layers, "critical_layers"))
    patterns = rank_patterns(ranks, method.rank, training.lora_alpha_per_rank)
    write_json(adapter_config, config_as_json(lora_config(model, linears, patterns, (imported.model, None))))
    by_layer = {layer: [ranks[linear.name] for linear in own] for layer, own in group_by_layer(linears).items()}
    logger.info("%s: ranks by layer: %s", architecture, by_layer)


if __name__ == "__main__":
    stage.run(main)
