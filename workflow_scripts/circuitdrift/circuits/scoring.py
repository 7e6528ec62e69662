"""Scores of one model's edges, from its anatomy to its score file."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from circuitdrift.circuits.attribution import EdgeScores, score_edges
from circuitdrift.circuits.memory import bytes_to_score, examples_at_once, largest_pair
from circuitdrift.circuits.prompts import PromptPairs
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.anatomy import Anatomy
from circuitdrift.decoder.tracing import check_anatomy
from circuitdrift.provenance import Provenance

logger = logging.getLogger(__name__)


def score_prompts(anatomy: Anatomy, pairs: PromptPairs, recipe: Attribution, draw: str = "") -> EdgeScores:
    """Check a model's anatomy on a prompt, choose the batch size by the free memory, and score.

    Args:
        anatomy: the model, taken apart.
        pairs: the prompts.
        recipe: how edges are scored.
        draw: names the model and the prompts, for random scores.

    Raises:
        AnatomyError: the parts do not sum to the residual stream.
    """
    check_anatomy(anatomy, torch.tensor([pairs.clean[0]], device=anatomy.device))
    needed = bytes_to_score(anatomy, largest_pair(anatomy, pairs), recipe)
    return score_edges(anatomy, pairs, recipe, examples_at_once(anatomy, recipe.batch_size, needed), draw=draw)


def score_model(
    anatomy: Anatomy, pairs: PromptPairs, recipe: Attribution, path: Path, origin: Provenance, draw: str
) -> None:
    """Score the edges of a model, and write the file.

    Args:
        anatomy: the model, taken apart.
        pairs: the circuit split.
        recipe: how edges are scored.
        path: the score file to write.
        origin: its provenance, without device and dtype.
        draw: names the model, for random scores.

    Raises:
        AnatomyError: the parts do not sum to the residual stream.
    """
    started = time.monotonic()
    found = score_prompts(anatomy, pairs, recipe, draw)
    placed = origin.on(anatomy.device, anatomy.dtype)
    write_scores(ScoreFile(path, anatomy.graph, placed, found.scores, found.by_fold, found.fold_sizes), recipe)
    name, seconds = origin.wildcards["checkpoint"], time.monotonic() - started
    logger.info("checkpoint %s: %d edges scored in %.1f s", name, anatomy.graph.n_edges, seconds)
