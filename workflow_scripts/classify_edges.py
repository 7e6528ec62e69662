"""Stage ``classify_edges``: which edges of a run's circuit changed for certain, from the base model to the end."""

from circuitdrift import stage

import logging
from pathlib import Path

from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import determined_by_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.edge_changes import STABLE, classify_edges
from circuitdrift.drift.fold_circuits import check_one_graph, fold_scores, selection_of_circuits
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table

logger = logging.getLogger(__name__)


def main(
    before: Path,
    after: Path,
    edges_changed: Path,
    edge_counts: Path,
    choice: Selection,
    resamples: int,
    provenance: Provenance,
) -> None:
    """Test and classify every edge.

    Args:
        before: score file of the run's first checkpoint, the base model's.
        after: score file of its last checkpoint.
        edges_changed: output, every edge of the graph.
        edge_counts: output, how many edges there are of each class, and how stable the circuits are.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction``.
        resamples: resamples of the folds.
        provenance: origin of the outputs.

    Raises:
        DriftError: the files are of different graphs, or cannot be compared.
    """
    first, last = read_scores(before), read_scores(after)
    check_one_graph([first, last])
    selection = selection_of_circuits(first.graph, determined_by_scores(choice))
    changes = classify_edges(fold_scores(first), fold_scores(last), selection, resamples)
    counts = changes.counts.assign(from_checkpoint=first.checkpoint, to_checkpoint=last.checkpoint)
    for checkpoint, column in ((first.checkpoint, "jaccard_before"), (last.checkpoint, "jaccard_after")):
        if not (jaccard := float(counts[column].iloc[0])) >= STABLE:
            logger.warning(
                "checkpoint %s: circuits of resampled prompts have a mean Jaccard index of %.2f, below %.1f; raise the "
                "task's circuit examples, or take no conclusion from undecided edges",
                checkpoint,
                jaccard,
                STABLE,
            )
    write_table(edges_changed, changes.edges, "edges_changed", provenance)
    write_table(edge_counts, counts, "edge_counts", provenance)


if __name__ == "__main__":
    stage.run(main)
