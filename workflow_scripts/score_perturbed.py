"""Score every edge of a model from the circuit split with each prompt replaced by a fresh one, a control.

The fresh prompts are the first ones of the train split that have the kinds of the circuit split's, fold by fold. Where
there are too few, the score file holds no folds, and the control is left out.
"""

from circuitdrift import stage

import logging
from pathlib import Path

import torch

from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.circuits.scoring import score_model
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.anatomy import Anatomy
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table
from circuitdrift.tasks.perturbed import perturbed_split

logger = logging.getLogger(__name__)


def main(
    manifest: Path,
    train: Path,
    circuit: Path,
    checkpoints: list[Path],
    scores: Path,
    recipe: Attribution,
    device: str,
    provenance: Provenance,
) -> None:
    """Score one checkpoint, or the base model if there is none, from the perturbed circuit split.

    Args:
        manifest: manifest of the base model.
        train: the train split, from which fresh prompts come.
        circuit: the circuit split, whose prompts they replace.
        checkpoints: the checkpoint's folder; none for the base model.
        scores: output; without folds where the train split has too few prompts of a kind.
        recipe: how edges are scored.
        device: where to compute.
        provenance: origin of the output.
    """
    [(name, anatomy)] = checkpoint_anatomies(manifest, checkpoints, recipe.precision, resolve_device(device))
    origin = provenance.for_checkpoint(name)
    prompts = perturbed_split(read_table(train, "examples"), read_table(circuit, "examples"))
    if prompts is None:
        logger.warning(
            "%s has too few prompts of some kind to replace those of %s, so the robustness to perturbed prompts is "
            "left out; raise the task's train examples",
            train,
            circuit,
        )
        _write_no_scores(anatomy, recipe, scores, origin)
        return
    draw = f"{provenance.wildcards} {name} perturbed"
    score_model(anatomy, prompt_pairs(prompts), recipe, scores, origin, draw=draw)


def _write_no_scores(anatomy: Anatomy, recipe: Attribution, path: Path, origin: Provenance) -> None:
    """Write the score file of no prompts."""
    graph = anatomy.graph
    no_scores = torch.zeros(graph.n_writers, graph.n_readers)
    placed = origin.on(anatomy.device, anatomy.dtype)
    write_scores(ScoreFile(path, graph, placed, no_scores, no_scores[None][:0], ()), recipe)


if __name__ == "__main__":
    stage.run(main)
