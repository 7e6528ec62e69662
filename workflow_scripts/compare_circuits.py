"""Compare the circuits of one run: from each checkpoint to the next, and over the whole run."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.drift.comparison import compare_circuit_files
from circuitdrift.provenance import Provenance


def main(
    edges: list[Path],
    nodes: list[Path],
    transitions: Path,
    summary: Path,
    layers: Path,
    provenance: Provenance,
) -> None:
    """Compare circuits that are minimal or come from elsewhere; rule select_circuits compares those that it selects."""
    compare_circuit_files(edges, nodes, transitions, summary, layers, provenance)


if __name__ == "__main__":
    stage.run(main)
