"""Score every edge of a model's graph at each checkpoint of a fine-tuning.

For each checkpoint, or for the base model:

1. Load the model, its adapters merged into the weights, and take it apart.
2. Check on a prompt that the parts sum to the residual stream.
3. Choose the batch size that the free memory allows.
4. Score the edges from the circuit split, and from each fold of it (``circuitdrift.circuits.attribution``).
5. Write the scores of each edge to the score file.
"""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.scoring import score_model
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Attribution
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table


def main(
    manifest: Path,
    examples: Path,
    checkpoints: list[Path],
    scores: list[Path],
    recipe: Attribution,
    device: str,
    provenance: Provenance,
) -> None:
    """Score each checkpoint, or the base model if there are none, into the score file at the same position."""
    pairs = prompt_pairs(read_table(examples, "examples"))
    models = checkpoint_anatomies(manifest, checkpoints, recipe.precision, resolve_device(device))
    for (name, anatomy), path in zip(models, scores, strict=True):
        origin = provenance.for_checkpoint(name)
        score_model(anatomy, pairs, recipe, path, origin, draw=f"{provenance.wildcards} {name}")


if __name__ == "__main__":
    stage.run(main)
