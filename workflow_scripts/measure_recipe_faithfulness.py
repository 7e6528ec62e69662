"""Stage ``measure_recipe_faithfulness``: the circuits of all recipes run on the same prompts."""

from circuitdrift import stage

from pathlib import Path

import torch

from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.metrics import measure_circuits, tabulate_recipe_areas, tabulate_recipe_faithfulness
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import resized, select_circuit
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Faithfulness, Selection
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table


def main(
    manifest: Path,
    examples: Path,
    scores: list[Path],
    recipes: list[str],
    faithfulness: Path,
    areas: Path,
    measure: Faithfulness,
    choice: Selection,
    device: str,
    provenance: Provenance,
) -> None:
    """Measure the base model's circuit by each recipe, and its circuits of several sizes.

    Args:
        manifest: the model.
        examples: prompts that chose none of the edges.
        scores: score files of the base model on one task, the study's own first.
        recipes: the name of each file's recipe.
        faithfulness: output, of the circuits that the study selects.
        areas: output, CPR and CMD over the sizes.
        measure: how faithfulness is measured, and on how many of the prompts.
        choice: the study's selection.
        device: device of the model.
        provenance: origin of the output.
    """
    pairs = prompt_pairs(read_table(examples, "examples").head(measure.examples))
    on = resolve_device(device)
    ((name, anatomy),) = checkpoint_anatomies(manifest, [], measure.precision, on)
    graph, sizes = anatomy.graph, sorted(measure.size_fractions)
    choices = [choice, *(resized(choice, size) for size in sizes)]
    circuits = torch.stack([select_circuit(graph, read_scores(path).scores, c) for path in scores for c in choices])
    measured = iter(measure_circuits(anatomy, pairs, circuits, measure))
    outcomes = {recipe: [next(measured) for _ in choices] for recipe in recipes}
    selected = {recipe: of_recipe[0] for recipe, of_recipe in outcomes.items()}
    curves = {recipe: of_recipe[1:] for recipe, of_recipe in outcomes.items()}
    origin = provenance.for_checkpoint(name).on(on, anatomy.dtype)
    table = tabulate_recipe_faithfulness(selected, circuits[:: len(choices)], measure.bootstrap)
    write_table(faithfulness, table, "recipe_faithfulness", origin)
    write_table(areas, tabulate_recipe_areas(curves, sizes, measure.bootstrap), "recipe_areas", origin)


if __name__ == "__main__":
    stage.run(main)
