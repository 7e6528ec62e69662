"""Rule select_circuits: the strongest edges of each checkpoint, pruned, as tables of edges and nodes."""

import json
import logging
from pathlib import Path

from circuitdrift import stage
from circuitdrift.circuits.selection import edge_table, node_table, select_circuit
from circuitdrift.config.circuits import Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.provenance import Provenance
from circuitdrift.storage import StorageError, read_tensors, write_table

logger = logging.getLogger(__name__)


def main(scores: list[Path], edges: list[Path], nodes: list[Path], choice: Selection, provenance: Provenance) -> None:
    """Write the edge and the node table of each score file."""
    for source, edge_path, node_path in zip(scores, edges, nodes, strict=True):
        tensors, metadata = read_tensors(source)
        if "graph" not in metadata or "scores" not in tensors:
            raise StorageError(f"{source}: not a file of edge scores; delete it and run again")
        graph = Graph(**json.loads(metadata["graph"]))
        circuit = select_circuit(graph, tensors["scores"], choice)
        checkpoint = Provenance.model_validate_json(metadata["provenance"]).wildcards["checkpoint"]
        origin = provenance.for_checkpoint(checkpoint)
        write_table(edge_path, edge_table(graph, tensors["scores"], circuit), "edges", origin)
        write_table(node_path, node_table(graph, circuit), "nodes", origin)
        logger.info("checkpoint %s: %d of %d edges kept", checkpoint, int(circuit.sum()), graph.n_edges)


if __name__ == "__main__":
    stage.run(main)
