"""Score every edge of untrained models: the architecture of a model with random weights, a control."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.circuits.checkpoints import untrained_anatomies
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.scoring import score_model
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Attribution
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table

CHECKPOINT = "untrained"


def main(
    manifest: Path,
    examples: Path,
    scores: list[Path],
    seeds: list[int],
    recipe: Attribution,
    device: str,
    provenance: Provenance,
) -> None:
    """Score an untrained model for each seed into the score file at the same position."""
    pairs = prompt_pairs(read_table(examples, "examples"))
    models = untrained_anatomies(manifest, seeds, recipe.precision, resolve_device(device))
    for seed, anatomy, path in zip(seeds, models, scores, strict=True):
        origin = provenance.for_checkpoint(CHECKPOINT).with_seed(seed)
        score_model(anatomy, pairs, recipe, path, origin, draw=f"{provenance.wildcards} {CHECKPOINT} {seed}")


if __name__ == "__main__":
    stage.run(main)
