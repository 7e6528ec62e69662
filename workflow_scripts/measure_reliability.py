"""Stage ``measure_reliability``: a run's drift measured against the noise of its circuits, from scores by fold."""

from circuitdrift import stage

import logging
from pathlib import Path

import pandas as pd

from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import determined_by_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.fold_circuits import comparable_fold_scores, features_of_circuits
from circuitdrift.drift.nodes_and_edges import tabulate_nodes_and_edges
from circuitdrift.drift.reliability_table import Resampling, compare_checkpoints, tabulate_reliability
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table

logger = logging.getLogger(__name__)


def main(
    scores: list[Path],
    reliability: Path,
    nodes_and_edges: Path,
    choice: Selection,
    half_splits: int,
    exchanges: int,
    provenance: Provenance,
) -> None:
    """Compare a run's checkpoints on disjoint halves of the prompts.

    Args:
        scores: score files of the run's checkpoints in order, the base model's first.
        reliability: output, the drift and the noise of nodes and of edges.
        nodes_and_edges: output, the drift of edges against that of nodes.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction``.
        half_splits: random half-splits that a similarity is averaged over.
        exchanges: exchanges of before and after behind a p-value.
        provenance: origin of the output.

    Raises:
        DriftError: the files are of different graphs, or of different prompts.
    """
    files = [read_scores(path) for path in scores]
    checkpoints = comparable_fold_scores(files)
    describe = features_of_circuits(files[0].graph, determined_by_scores(choice))
    comparisons = compare_checkpoints(checkpoints, describe, Resampling(half_splits, exchanges))
    table = tabulate_reliability(comparisons)
    _warn_of_too_few_prompts(table)
    write_table(reliability, table, "reliability", provenance)
    write_table(nodes_and_edges, tabulate_nodes_and_edges(comparisons, describe), "nodes_and_edges", provenance)


def _warn_of_too_few_prompts(table: pd.DataFrame) -> None:
    """Name the comparisons of edges whose scores reach a reliability of .8 with more prompts alone."""
    prompts = 2 * int(table["examples"].max())
    largest = table[(table["examples"] == table["examples"].max()) & (table["measure"] == "pearson")]
    for row in largest[(largest["level"] == "edge") & (largest["prompts_for_80"] > prompts)].to_dict("records"):
        logger.warning(
            "checkpoints %s and %s: a reliability of .8 of their edges' scores needs %.0f prompts, the task has %d; "
            "raise its circuit examples, or take no conclusion from single edges",
            row["from_checkpoint"],
            row["to_checkpoint"],
            row["prompts_for_80"],
            prompts,
        )


if __name__ == "__main__":
    stage.run(main)
