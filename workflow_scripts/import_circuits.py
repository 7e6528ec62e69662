"""Convert circuits that another tool made to the tables that every later stage reads."""

from circuitdrift import stage

import logging
from pathlib import Path

from circuitdrift.circuits.exchange.reading import read_circuits
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table

logger = logging.getLogger(__name__)


def main(files: list[Path], edges: list[Path], nodes: list[Path], labels: list[str], provenance: Provenance) -> None:
    """Write the edge and the node table of each file.

    Args:
        files: circuits of one fine-tuning in EAP-IG's JSON, in the order of its checkpoints.
        edges: output, one edges table for each file.
        nodes: output, one nodes table for each file.
        labels: names of the checkpoints.
        provenance: origin of the outputs.

    Raises:
        ExchangeError: a file cannot be read, or two files are of different graphs.
    """
    circuits = read_circuits(files)
    for circuit, label, edge_path, node_path in zip(circuits, labels, edges, nodes, strict=True):
        origin = provenance.for_checkpoint(label)
        write_table(edge_path, circuit.edges, "edges", origin)
        write_table(node_path, circuit.nodes, "nodes", origin)
        kept_nodes, kept_edges = int(circuit.nodes["in_circuit"].sum()), int(circuit.edges["in_circuit"].sum())
        logger.info("checkpoint %s: %d nodes and %d edges kept, %s", label, kept_nodes, kept_edges, circuit.graph)


if __name__ == "__main__":
    stage.run(main)
