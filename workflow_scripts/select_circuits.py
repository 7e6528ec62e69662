"""Select the circuit of each checkpoint from its edge scores, as tables of edges and nodes."""

import logging
from pathlib import Path

from circuitdrift import stage
from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import edge_table, node_table, select_circuit
from circuitdrift.config.circuits import Selection
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table

logger = logging.getLogger(__name__)


def main(scores: list[Path], edges: list[Path], nodes: list[Path], choice: Selection, provenance: Provenance) -> None:
    """Write the edges and the nodes table of each score file.

    Raises:
        CircuitDriftError: the selection is ``minimal``, which needs the model (rule select_minimal_circuits).
    """
    for source, edge_path, node_path in zip(scores, edges, nodes, strict=True):
        scored = read_scores(source)
        circuit = select_circuit(scored.graph, scored.scores, choice)
        origin = provenance.for_checkpoint(scored.checkpoint)
        write_table(edge_path, edge_table(scored.graph, scored.scores, circuit), "edges", origin)
        write_table(node_path, node_table(scored.graph, circuit), "nodes", origin)
        logger.info("checkpoint %s: %d of %d edges kept", scored.checkpoint, int(circuit.sum()), scored.graph.n_edges)


if __name__ == "__main__":
    stage.run(main)
