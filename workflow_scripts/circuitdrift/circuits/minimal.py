"""The smallest circuit of a given faithfulness (docs/method.md#selection)."""

from __future__ import annotations

import logging
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdrift.circuits.metrics import faithfulness, measure_circuits
from circuitdrift.circuits.prompts import PromptPairs
from circuitdrift.circuits.selection import prune, strongest_edges
from circuitdrift.config.circuits import Faithfulness
from circuitdrift.decoder.anatomy import Anatomy
from circuitdrift.errors import CircuitDriftError

logger = logging.getLogger(__name__)

METRIC = "kl_model_circuit"

PRECISION = 0.02
"""The search ends when the gap between the largest failure and the smallest success is this share of the latter."""

SECTIONS = 8
"""Number of parts into which that gap is divided; the sizes in between run in one pass over the data."""


def minimal_circuit(
    anatomy: Anatomy,
    pairs: PromptPairs,
    scores: Float[Tensor, "writers readers"],
    wanted: float,
    measure: Faithfulness,
) -> Bool[Tensor, "writers readers"]:
    """The smallest top circuit whose faithfulness, 1 - KL(model || circuit) / KL(model || corrupted), is ``wanted``.

    The search tries all powers of two as numbers of edges, then sizes between the smallest success and the largest
    failure below it, to within :data:`PRECISION`. Faithfulness need not grow with every edge, so the search may miss
    a smaller circuit that succeeds by chance.

    Raises:
        CircuitDriftError: the model's output is the same on clean and corrupted prompts, so faithfulness is undefined.
    """
    graph = anatomy.graph

    def top(n: int) -> Bool[Tensor, "writers readers"]:
        circuit: Bool[Tensor, "writers readers"] = prune(graph, strongest_edges(graph, scores, n))
        return circuit

    fails, found = 0, graph.n_edges
    sizes = [1 << power for power in range((graph.n_edges - 1).bit_length())]
    while sizes:
        outcomes = measure_circuits(anatomy, pairs, torch.stack([top(n) for n in sizes]), measure)
        values = [float(faithfulness(METRIC, outcome[METRIC].mean(axis=0))) for outcome in outcomes]
        if any(map(math.isnan, values)):
            raise CircuitDriftError(
                "circuit.selection minimal: the model's output is the same on clean and on corrupted prompts, so no "
                "circuit is more faithful than another; choose other corruptions, or selection top"
            )
        logger.info("faithfulness by number of edges: %s", {n: round(v, 3) for n, v in zip(sizes, values, strict=True)})
        found = min((n for n, value in zip(sizes, values, strict=True) if value >= wanted), default=found)
        fails = max((n for n in sizes if n < found), default=fails)
        sizes = _between(fails, found)
    return top(found)


def _between(fails: int, found: int) -> list[int]:
    """The sizes that divide a gap into sections; none if the gap is narrow enough."""
    gap = found - fails
    if gap <= max(1, PRECISION * found):
        return []
    return sorted({fails + gap * part // SECTIONS for part in range(1, SECTIONS)} - {fails})
