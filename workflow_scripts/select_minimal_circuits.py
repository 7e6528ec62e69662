"""Find the smallest circuit of each checkpoint with the wanted faithfulness, as tables of edges and nodes."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.circuit_files import write_circuit
from circuitdrift.circuits.minimal import minimal_circuit
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.score_file import read_scores
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Faithfulness
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table


def main(
    manifest: Path,
    examples: Path,
    scores: list[Path],
    checkpoints: list[Path],
    edges: list[Path],
    nodes: list[Path],
    measure: Faithfulness,
    wanted: float,
    device: str,
    provenance: Provenance,
) -> None:
    """Write the edges and the nodes table of the minimal circuit of each score file, found with its checkpoint."""
    pairs = prompt_pairs(read_table(examples, "examples").head(measure.examples))
    on = resolve_device(device)
    models = checkpoint_anatomies(manifest, checkpoints, measure.precision, on)
    for (name, anatomy), source, edge_path, node_path in zip(models, scores, edges, nodes, strict=True):
        scored = read_scores(source).scores
        circuit = minimal_circuit(anatomy, pairs, scored, wanted, measure)
        origin = provenance.for_checkpoint(name).on(on, anatomy.dtype)
        write_circuit(edge_path, node_path, anatomy.graph, scored, circuit, origin)


if __name__ == "__main__":
    stage.run(main)
