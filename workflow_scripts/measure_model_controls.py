"""Measure how far circuits lie apart by another wording of the prompts, and those of untrained models."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import determined_by_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.fold_circuits import check_one_graph, features_of_circuits, fold_scores
from circuitdrift.drift.model_controls import tabulate_model_controls
from circuitdrift.drift.reliability_table import Resampling
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table


def main(
    base_scores: Path,
    reworded_scores: Path | None,
    untrained_scores: list[Path],
    model_controls: Path,
    choice: Selection,
    half_splits: int,
    exchanges: int,
    provenance: Provenance,
) -> None:
    """Compare the base model with itself in the second wording and with untrained models, and these with one another.

    Args:
        base_scores: scores of the base model.
        reworded_scores: its scores on the same examples in the second wording; None for a task without one.
        untrained_scores: scores of the untrained models of seeds 0, 1 and so on.
        model_controls: output.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction``.
        half_splits: random half-splits that a similarity is averaged over.
        exchanges: exchanges of the two sides behind a p-value.
        provenance: origin of the output.

    Raises:
        DriftError: the files are of different graphs, or of different prompts.
    """
    base = read_scores(base_scores)
    reworded = read_scores(reworded_scores) if reworded_scores else None
    untrained = [read_scores(path) for path in untrained_scores]
    check_one_graph([base, *([reworded] if reworded else []), *untrained])
    table = tabulate_model_controls(
        fold_scores(base),
        fold_scores(reworded) if reworded else None,
        [fold_scores(file) for file in untrained],
        features_of_circuits(base.graph, determined_by_scores(choice)),
        Resampling(half_splits, exchanges),
    )
    write_table(model_controls, table, "model_controls", provenance)


if __name__ == "__main__":
    stage.run(main)
