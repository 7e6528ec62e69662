"""The smallest circuit that is as faithful as wanted."""

from __future__ import annotations

import logging
import math

from jaxtyping import Bool, Float
from torch import Tensor

from circuitdrift.circuits.metrics import faithfulness, measure_circuits
from circuitdrift.circuits.prompts import PromptPairs
from circuitdrift.circuits.selection import prune, strongest_edges
from circuitdrift.config.circuits import Faithfulness
from circuitdrift.models.anatomy import Anatomy

logger = logging.getLogger(__name__)

METRIC = "kl_model_circuit"

PRECISION = 0.02
"""The search ends when the largest circuit seen to fail is smaller than the one found by at most this share of it."""


def minimal_circuit(
    anatomy: Anatomy,
    pairs: PromptPairs,
    scores: Float[Tensor, "writers readers"],
    wanted: float,
    measure: Faithfulness,
) -> Bool[Tensor, "writers readers"]:
    """The smallest top circuit whose faithfulness, 1 - KL(model || circuit) / KL(model || corrupted), is ``wanted``.

    Numbers of edges are doubled until one reaches it, then the last two are bisected to within :data:`PRECISION`.
    Faithfulness need not grow with every edge, so a smaller circuit that reaches it by chance may be passed over.

    Raises:
        ValueError: clean and corrupted prompts make no difference to the model, so that faithfulness is undefined.
    """

    def reaches(n: int) -> bool:
        circuit = prune(anatomy.graph, strongest_edges(anatomy.graph, scores, n))
        (outcome,) = measure_circuits(anatomy, pairs, circuit[None], measure)
        value = float(faithfulness(METRIC, outcome[METRIC].mean(axis=0)))
        if math.isnan(value):
            raise ValueError(
                "circuit.selection minimal: the model writes the same on clean and on corrupted prompts, so no circuit "
                "is more faithful than another; choose other corruptions, or selection top"
            )
        logger.info("%d of %d edges: faithfulness %.3f, wanted %.3f", n, anatomy.graph.n_edges, value, wanted)
        return value >= wanted

    fails, found = 0, 1
    while found < anatomy.graph.n_edges and not reaches(found):
        fails, found = found, min(2 * found, anatomy.graph.n_edges)
    while found - fails > max(1, PRECISION * found):
        middle = (fails + found) // 2
        fails, found = (fails, middle) if reaches(middle) else (middle, found)
    circuit: Bool[Tensor, "writers readers"] = prune(anatomy.graph, strongest_edges(anatomy.graph, scores, found))
    return circuit
