"""Rule score_edges: attribution scores of every edge of a model's graph, at each of a run's checkpoints."""

import json
import logging
import time
from pathlib import Path

import torch

from circuitdrift import stage
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.memory import bytes_to_score, examples_at_once, largest_pair
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.tracing import check_anatomy
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_tensors

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
    """Score each checkpoint, or the base model where there are none, into the score file of the same place."""
    pairs = prompt_pairs(read_table(examples, "examples"))
    on = resolve_device(device)
    models = checkpoint_anatomies(manifest, checkpoints, recipe.precision, on)
    for (name, anatomy), path in zip(models, scores, strict=True):
        started = time.monotonic()
        check_anatomy(anatomy, torch.tensor([pairs.clean[0]], device=on))
        needed = bytes_to_score(anatomy, largest_pair(anatomy, pairs), recipe)
        batch_size = examples_at_once(anatomy, recipe.batch_size, needed)
        found = score_edges(anatomy, pairs, recipe, batch_size, draw=f"{provenance.wildcards} {name}")
        graph = anatomy.graph
        write_tensors(
            path,
            {"scores": found.scores, "scores_half_a": found.half_a, "scores_half_b": found.half_b},
            {
                "writers": json.dumps(graph.writers),
                "readers": json.dumps(graph.readers),
                "graph": json.dumps({"n_layers": graph.n_layers, "n_heads": graph.n_heads, "parallel": graph.parallel}),
                "recipe": recipe.model_dump_json(),
                "examples": str(len(pairs)),
            },
            provenance.for_checkpoint(name).on(on, anatomy.dtype),
        )
        logger.info("checkpoint %s: %d edges scored in %.1f s", name, graph.n_edges, time.monotonic() - started)


if __name__ == "__main__":
    stage.run(main)
