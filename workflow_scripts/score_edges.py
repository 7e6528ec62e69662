"""Score every edge of a model's graph at each checkpoint of a fine-tuning.

For each checkpoint, or for the base model:

1. Load the model, its adapters merged into the weights, and take it apart.
2. Check on a prompt that the parts sum to the residual stream.
3. Choose the batch size that the free memory allows.
4. Score the edges from the circuit split, and from each half of it (``circuitdrift.circuits.attribution``).
5. Write the three scores of each edge to the score file.
"""

import logging
import time
from pathlib import Path

import torch

from circuitdrift import stage
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.memory import bytes_to_score, examples_at_once, largest_pair
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.tracing import check_anatomy
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table

logger = logging.getLogger(__name__)


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
    on = resolve_device(device)
    models = checkpoint_anatomies(manifest, checkpoints, recipe.precision, on)
    for (name, anatomy), path in zip(models, scores, strict=True):
        started = time.monotonic()
        check_anatomy(anatomy, torch.tensor([pairs.clean[0]], device=on))
        needed = bytes_to_score(anatomy, largest_pair(anatomy, pairs), recipe)
        batch_size = examples_at_once(anatomy, recipe.batch_size, needed)
        found = score_edges(anatomy, pairs, recipe, batch_size, draw=f"{provenance.wildcards} {name}")
        origin = provenance.for_checkpoint(name).on(on, anatomy.dtype)
        file = ScoreFile(path, anatomy.graph, origin, found.scores, found.by_fold, found.fold_sizes)
        write_scores(file, recipe)
        seconds = time.monotonic() - started
        logger.info("checkpoint %s: %d edges scored in %.1f s", name, anatomy.graph.n_edges, seconds)


if __name__ == "__main__":
    stage.run(main)
