"""Write circuits as files that other tools read."""

from circuitdrift import stage

import logging
from pathlib import Path

from circuitdrift.circuits.exchange.graphml import write_graphml
from circuitdrift.circuits.exchange.writing import write_eap_json, write_merged_eap_json
from circuitdrift.models.sizes import shape_of_model
from circuitdrift.storage import read_table

logger = logging.getLogger(__name__)


def main(
    manifest: Path,
    edges: list[Path],
    nodes: list[Path],
    importances: list[Path],
    merged: list[Path],
    graphml: list[Path],
) -> None:
    """Write each circuit in EAP-IG's JSON and as GraphML.

    Args:
        manifest: manifest of the circuits' model; EAP-IG asks for the model's width.
        edges: edges tables of the circuits.
        nodes: nodes tables of the same circuits.
        importances: output, scores of every edge and membership in the circuit, for EAP-IG and the MIB benchmark.
        merged: output, the same with the q, k and v inputs of a head merged, for tools of EAP-IG's older form.
        graphml: output, the nodes and edges that the circuit keeps.

    Raises:
        ExchangeError: a table is not that of a whole circuit.
    """
    width = shape_of_model(manifest).width
    for edge_path, node_path, json_path, merged_path, graphml_path in zip(
        edges, nodes, importances, merged, graphml, strict=True
    ):
        edge_table, node_table = read_table(edge_path, "edges"), read_table(node_path, "nodes")
        write_eap_json(json_path, edge_table, node_table, width, edge_path)
        write_merged_eap_json(merged_path, edge_table, node_table, edge_path)
        write_graphml(graphml_path, edge_table, node_table)
        logger.info("%s: %d edges of the circuit written", edge_path.parent, int(edge_table["in_circuit"].sum()))


if __name__ == "__main__":
    stage.run(main)
