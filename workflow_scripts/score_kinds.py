"""Score the edges of the base model from each kind of prompt alone: from sums alone, from differences alone ..."""

import logging
import time
from pathlib import Path

from circuitdrift import stage
from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.kinds import write_scores_by_kind
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.score_file import ScoreFile
from circuitdrift.circuits.scoring import score_prompts
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Attribution
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table

logger = logging.getLogger(__name__)


def main(
    manifest: Path, examples: Path, scores: Path, recipe: Attribution, device: str, provenance: Provenance
) -> None:
    """Score each kind of the circuit split's prompts as if it were the whole task.

    Args:
        manifest: manifest of the base model.
        examples: the circuit split, whose column ``kind`` names the kinds.
        scores: output.
        recipe: the recipe of the scoring; folds are dealt within each kind.
        device: where to compute.
        provenance: origin of the output.
    """
    table = read_table(examples, "examples")
    on = resolve_device(device)
    [(name, anatomy)] = checkpoint_anatomies(manifest, [], recipe.precision, on)
    origin = provenance.for_checkpoint(name).on(on, anatomy.dtype)
    kinds = {}
    for kind, rows in table.groupby("kind", sort=True):
        started = time.monotonic()
        pairs = prompt_pairs(rows)
        found = score_prompts(anatomy, pairs, recipe, draw=f"{provenance.wildcards} {kind}")
        kinds[str(kind)] = ScoreFile(scores, anatomy.graph, origin, found.scores, found.by_fold, found.fold_sizes)
        logger.info("kind %s: %d prompts scored in %.1f s", kind, len(pairs), time.monotonic() - started)
    write_scores_by_kind(kinds, recipe)


if __name__ == "__main__":
    stage.run(main)
