"""Stage ``allocate_imported_ranks``: a LoRA configuration from imported circuits, without their model."""

import logging
from pathlib import Path

from circuitdrift import stage
from circuitdrift.allocation import policies
from circuitdrift.allocation.architectures import base_architecture, shape_of_architecture
from circuitdrift.allocation.ranks import rank_patterns, ranks_by_layer
from circuitdrift.circuits.exchange.eap_json import graph_of_table
from circuitdrift.config.imports import ImportedCircuits
from circuitdrift.config.methods import Training
from circuitdrift.decoder.linears import block_linears
from circuitdrift.provenance import Provenance
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
    provenance: Provenance,
) -> None:
    """Write ``adapter_config.json``: ``critical_rank`` in the critical layers, ``rank`` elsewhere, one scale for all.

    Args:
        edges: the edges table of one of the circuits, for the shape of their graph.
        critical_layers: the table that says which layers are critical.
        adapter_config: file to write.
        imported: the ranks, the number of critical layers, the policy, and what is known of the base model.
        training: holds alpha as a multiple of the rank.
        provenance: unused by the file, whose format is PEFT's; every stage takes it.

    Raises:
        AllocationError: the base model's architecture is not known, or the table of critical layers does not fit.
    """
    table = read_table(critical_layers, "critical_layers")
    layers = policies.critical_layers(table, imported.policy, imported.critical_layers)
    graph = graph_of_table(read_table(edges, "edges"), edges)
    architecture = base_architecture(imported.architecture, graph.parallel)
    model = shape_of_architecture(architecture, graph.n_layers)
    linears = block_linears(model)
    ranks = ranks_by_layer(linears, imported.rank, imported.critical_rank, layers)
    patterns = rank_patterns(ranks, imported.rank, training.lora_alpha_per_rank)
    write_json(adapter_config, config_as_json(lora_config(model, linears, patterns, (imported.model, None))))
    logger.info("%s: rank %d in layers %s, %d elsewhere", architecture, imported.critical_rank, layers, imported.rank)


if __name__ == "__main__":
    stage.run(main)
