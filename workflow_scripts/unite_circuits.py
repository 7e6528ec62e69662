"""Unite the circuits of a compositional task's two sub-tasks at each checkpoint, and compare these unions."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.circuits.circuit_files import graph_of_table, write_circuit
from circuitdrift.circuits.selection import tensors_of_table
from circuitdrift.composition.unions import Scale, ScoredCircuit, intersect, unite
from circuitdrift.drift.comparison import compare_circuit_files
from circuitdrift.provenance import Provenance
from circuitdrift.storage import provenance_of, read_table


def main(
    *,
    edges: list[Path],
    sub_task_edges: list[Path],
    union_edges: list[Path],
    union_nodes: list[Path],
    intersection_edges: list[Path],
    intersection_nodes: list[Path],
    transitions: Path,
    summary: Path,
    layers: Path,
    scale: Scale,
    provenance: Provenance,
) -> None:
    """Write the union and the intersection at each checkpoint, and the changes of the union.

    Args:
        edges: edges tables of a run on the compositional task, one for each checkpoint, the base model's first.
        sub_task_edges: those of the same run on the first sub-task, then those on the second.
        union_edges: output, edges tables of the unions, each cut to the size of the compositional circuit.
        union_nodes: output, nodes tables of the unions.
        intersection_edges: output, edges tables of the intersections, cut likewise.
        intersection_nodes: output, nodes tables of the intersections.
        transitions: output, changes of the union from each checkpoint to the next.
        summary: output, single numbers for the whole run.
        layers: output, changes of the union layer by layer.
        scale: how scores of two tasks are put on one scale.
        provenance: origin of the outputs.

    Raises:
        CircuitDriftError: the tables are of different graphs.
    """
    graph = graph_of_table(read_table(edges[0], "edges"))

    def circuit_in(path: Path) -> ScoredCircuit:
        return ScoredCircuit(*tensors_of_table(graph, read_table(path, "edges")))

    for place, own in enumerate(edges):
        origin = provenance.for_checkpoint(provenance_of(own).wildcards["checkpoint"])
        sub_tasks = [circuit_in(path) for path in sub_task_edges[place :: len(edges)]]
        size = circuit_in(own).size
        union, intersection = (make(graph, sub_tasks, size, scale) for make in (unite, intersect))
        write_circuit(union_edges[place], union_nodes[place], graph, union.scores, union.edges, origin)
        files = intersection_edges[place], intersection_nodes[place]
        write_circuit(*files, graph, intersection.scores, intersection.edges, origin)
    compare_circuit_files(union_edges, union_nodes, transitions, summary, layers, provenance)


if __name__ == "__main__":
    stage.run(main)
