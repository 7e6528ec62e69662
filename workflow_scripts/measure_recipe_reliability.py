"""Stage ``measure_recipe_reliability``: how alike circuits from disjoint halves of the prompts are, by recipe."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.circuits.score_file import read_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.drift.fold_circuits import features_of_circuits, fold_scores
from circuitdrift.drift.recipes import tabulate_recipe_reliability
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table


def main(
    scores: list[Path],
    recipes: list[str],
    reliability: Path,
    choice: Selection,
    half_splits: int,
    provenance: Provenance,
) -> None:
    """Compare the recipes on the same half-splits.

    Args:
        scores: score files of one model on one task, the study's own first.
        recipes: the name of each file's recipe.
        reliability: output.
        choice: the study's selection.
        half_splits: random half-splits that a similarity is averaged over.
        provenance: origin of the output.
    """
    files = [read_scores(path) for path in scores]
    compared = {name: fold_scores(file) for name, file in zip(recipes, files, strict=True)}
    describe = features_of_circuits(files[0].graph, choice)
    table = tabulate_recipe_reliability(compared, describe, half_splits)
    write_table(reliability, table, "recipe_reliability", provenance)


if __name__ == "__main__":
    stage.run(main)
