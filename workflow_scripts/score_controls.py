"""Score the edges of the base model for controls: from each kind of prompt alone, and in the task's second wording."""

from circuitdrift import stage

import logging
import time
from pathlib import Path

import pandas as pd

from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.kinds import write_scores_by_kind
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.score_file import ScoreFile
from circuitdrift.circuits.scoring import score_model, score_prompts
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.anatomy import Anatomy
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table

logger = logging.getLogger(__name__)


def main(
    manifest: Path,
    examples: Path,
    examples_reworded: Path | None,
    scores_by_kind: Path,
    scores_reworded: Path | None,
    recipe: Attribution,
    device: str,
    provenance: Provenance,
) -> None:
    """Score each kind of the circuit split's prompts as if it were the whole task, and the reworded split.

    Args:
        manifest: manifest of the base model.
        examples: the circuit split, whose column ``kind`` names the kinds.
        examples_reworded: the circuit split in the second wording of a task that has one; otherwise None.
        scores_by_kind: output.
        scores_reworded: output, the scores from ``examples_reworded``; None without them.
        recipe: the recipe of the scoring; folds are dealt within each kind.
        device: where to compute.
        provenance: origin of the outputs.
    """
    [(name, anatomy)] = checkpoint_anatomies(manifest, [], recipe.precision, resolve_device(device))
    origin = provenance.for_checkpoint(name)
    _score_kinds(anatomy, read_table(examples, "examples"), recipe, scores_by_kind, origin, provenance.wildcards)
    if examples_reworded is not None and scores_reworded is not None:
        pairs = prompt_pairs(read_table(examples_reworded, "examples"))
        score_model(anatomy, pairs, recipe, scores_reworded, origin, draw=f"{provenance.wildcards} {name}")


def _score_kinds(
    anatomy: Anatomy,
    examples: pd.DataFrame,
    recipe: Attribution,
    path: Path,
    origin: Provenance,
    wildcards: dict[str, str],
) -> None:
    """Write the scores from the prompts of each kind."""
    kinds = {}
    for kind, rows in examples.groupby("kind", sort=True):
        started = time.monotonic()
        pairs = prompt_pairs(rows)
        found = score_prompts(anatomy, pairs, recipe, draw=f"{wildcards} {kind}")
        placed = origin.on(anatomy.device, anatomy.dtype)
        kinds[str(kind)] = ScoreFile(path, anatomy.graph, placed, found.scores, found.by_fold, found.fold_sizes)
        logger.info("kind %s: %d prompts scored in %.1f s", kind, len(pairs), time.monotonic() - started)
    write_scores_by_kind(kinds, recipe)


if __name__ == "__main__":
    stage.run(main)
