"""Stage ``measure_recipe_faithfulness``: the circuits of all recipes run on the same prompts."""

from pathlib import Path

import torch

from circuitdrift import stage
from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.metrics import measure_circuits, tabulate_recipe_faithfulness
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import select_circuit
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
    measure: Faithfulness,
    choice: Selection,
    device: str,
    provenance: Provenance,
) -> None:
    """Measure the base model's circuit by each recipe.

    Args:
        manifest: the model.
        examples: prompts that chose none of the edges.
        scores: score files of the base model on one task, the study's own first.
        recipes: the name of each file's recipe.
        faithfulness: output.
        measure: how faithfulness is measured, and on how many of the prompts.
        choice: the study's selection.
        device: device of the model.
        provenance: origin of the output.
    """
    pairs = prompt_pairs(read_table(examples, "examples").head(measure.examples))
    on = resolve_device(device)
    ((name, anatomy),) = checkpoint_anatomies(manifest, [], measure.precision, on)
    circuits = torch.stack([select_circuit(anatomy.graph, read_scores(path).scores, choice) for path in scores])
    outcomes = dict(zip(recipes, measure_circuits(anatomy, pairs, circuits, measure), strict=True))
    table = tabulate_recipe_faithfulness(outcomes, circuits, measure.bootstrap)
    origin = provenance.for_checkpoint(name).on(on, anatomy.dtype)
    write_table(faithfulness, table, "recipe_faithfulness", origin)


if __name__ == "__main__":
    stage.run(main)
