"""Select the circuit of the base model from its edge scores, as tables of edges and nodes."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.circuits.circuit_files import select_from_file
from circuitdrift.config.circuits import Selection
from circuitdrift.provenance import Provenance


def main(scores: Path, edges: Path, nodes: Path, choice: Selection, provenance: Provenance) -> None:
    """Write the edges and the nodes table of the circuit that all methods and seeds start from."""
    select_from_file(scores, edges, nodes, choice, provenance)


if __name__ == "__main__":
    stage.run(main)
