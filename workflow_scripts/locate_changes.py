"""Locate the changes of a run's circuits: by layer, at nodes that come or go, and in the order of the layers."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.circuits.score_file import read_scores
from circuitdrift.drift.checkpoint_orders import epochs_of_checkpoints, tabulate_layer_orders
from circuitdrift.drift.fold_circuits import comparable_fold_scores
from circuitdrift.drift.where import merged_circuit, tabulate_node_induced, tabulate_where
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table


def main(
    *,
    edges: list[Path],
    scores: list[Path],
    accuracy: Path | None,
    training_log: Path | None,
    where: Path,
    node_induced: Path,
    layer_orders: Path,
    random_circuits: int,
    provenance: Provenance,
) -> None:
    """Write the three tables of a run.

    Args:
        edges: edges tables of the run's circuits, the base model's first.
        scores: score files of the same checkpoints.
        accuracy: the run's accuracy table, which has the step of each checkpoint; None of given checkpoints.
        training_log: the run's log, which has the epoch of each step; None of given checkpoints.
        where: output, the changes between the first and the last circuit by layer.
        node_induced: output, those of edges that touch a changed node.
        layer_orders: output, the layers in the order of their change at each checkpoint.
        random_circuits: pairs of circuits of the same degrees that ``node_induced`` is compared with.
        provenance: origin of the outputs.

    Raises:
        DriftError: the score files are of different graphs, or of different prompts.
        CircuitDriftError: an edges table is not of the graph of the scores.
    """
    files = [read_scores(path) for path in scores]
    graph, folds = files[0].graph, comparable_fold_scores(files)
    circuits = {
        file.checkpoint: merged_circuit(graph, read_table(table, "edges"))
        for file, table in zip(files, edges, strict=True)
    }
    before, after = circuits[files[0].checkpoint], circuits[files[-1].checkpoint]
    write_table(where, tabulate_where(graph, before, after), "where", provenance)
    induced = tabulate_node_induced(graph, before, after, random_circuits)
    write_table(node_induced, induced, "node_induced", provenance)
    epochs = {}
    if accuracy is not None and training_log is not None:
        epochs = epochs_of_checkpoints(read_table(accuracy, "accuracy"), read_table(training_log, "training_log"))
    orders = tabulate_layer_orders(graph, circuits, folds, epochs)
    write_table(layer_orders, orders, "layer_orders", provenance)


if __name__ == "__main__":
    stage.run(main)
