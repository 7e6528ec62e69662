"""Select the circuits of a run from their edge scores, and compare them: from checkpoint to checkpoint, and in all."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.circuits.circuit_files import select_from_file
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.comparison import compare_circuit_files
from circuitdrift.provenance import Provenance


def main(
    *,
    base_edges: Path,
    base_nodes: Path,
    scores: list[Path],
    edges: list[Path],
    nodes: list[Path],
    transitions: Path,
    summary: Path,
    layers: Path,
    choice: Selection,
    provenance: Provenance,
) -> None:
    """Write the tables of each circuit after the base model's, and those of the changes between all of them.

    Args:
        base_edges: edges table of the base model.
        base_nodes: nodes table of the base model.
        scores: score files of the run's checkpoints, in order.
        edges: output, the edges table of each score file.
        nodes: output, the nodes table of each score file.
        transitions: output, changes from each checkpoint to the next.
        summary: output, single numbers for the whole run.
        layers: output, changes layer by layer, from each checkpoint to the next and from the first to the last.
        choice: the study's selection.
        provenance: origin of the outputs.

    Raises:
        CircuitDriftError: the selection is ``minimal``, which needs the model (rule select_minimal_circuits).
        DriftError: the circuits cannot be compared.
    """
    for files in zip(scores, edges, nodes, strict=True):
        select_from_file(*files, choice, provenance)
    compare_circuit_files([base_edges, *edges], [base_nodes, *nodes], transitions, summary, layers, provenance)


if __name__ == "__main__":
    stage.run(main)
