"""Turn imported circuits into critical layers and a LoRA configuration that plain PEFT reads, without their model."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.allocation.architectures import base_architecture, shape_of_architecture
from circuitdrift.circuits.exchange.eap_json import graph_of_table
from circuitdrift.config.imports import ImportedCircuits
from circuitdrift.config.methods import Training
from circuitdrift.drift.critical_layers import critical_layers_by_change
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.allocated_adapter import write_allocated_adapter


def main(
    *,
    edges: Path,
    layers: Path,
    critical_layers: Path,
    adapter_config: Path,
    imported: ImportedCircuits,
    training: Training,
    provenance: Provenance,
) -> None:
    """Mark the critical layers; write ``critical_rank`` for them and ``rank`` elsewhere, with one scale for all.

    Args:
        edges: the edges table of one of the circuits, for the shape of their graph.
        layers: changes layer by layer between the imported circuits.
        critical_layers: output, every layer once for each policy.
        adapter_config: output, the LoRA configuration.
        imported: the ranks, the number of critical layers, the policy, and the known facts of the base model.
        training: holds alpha as a multiple of the rank.
        provenance: origin of the table.

    Raises:
        DriftError: there are fewer layers than are to be marked.
        AllocationError: the base model's architecture is not known, or too few layers changed.
    """
    method = imported.as_method("imported")
    ordered = critical_layers_by_change(layers, method)
    write_table(critical_layers, ordered, "critical_layers", provenance)
    graph = graph_of_table(read_table(edges, "edges"), edges)
    model = shape_of_architecture(base_architecture(imported.architecture, graph.parallel), graph.n_layers)
    write_allocated_adapter(adapter_config, model, (imported.model, None), method, ordered, None, training)


if __name__ == "__main__":
    stage.run(main)
