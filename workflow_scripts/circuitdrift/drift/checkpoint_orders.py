"""The order of the layers by their change from the base model to each checkpoint (docs/method.md#early-signal)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitdrift.allocation.policies import EXCESS
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.layer_certainty import excess_by_layer, fold_products
from circuitdrift.drift.layer_order import POLICIES
from circuitdrift.drift.layers import score_changes, unit_mass
from circuitdrift.drift.places import in_order
from circuitdrift.drift.reliability import FoldScores
from circuitdrift.drift.where import MergedCircuit


def tabulate_layer_orders(
    graph: Graph,
    circuits: Mapping[str, MergedCircuit],
    folds: Mapping[str, FoldScores],
    epochs: Mapping[str, float],
) -> pd.DataFrame:
    """Every layer by each policy, at each checkpoint after the base model.

    An edge's change is credited to the layer that writes, the paper's rule; the input counts as layer 0.

    Args:
        graph: the graph of all circuits.
        circuits: by checkpoint, the base model's first.
        folds: scores by fold of the same checkpoints.
        epochs: passes over the train split by checkpoint; checkpoints of which nothing is known are absent.

    Returns:
        Columns of the ``layer_orders`` schema. rank_order 1 is the largest change; of equal changes the lower layer
        comes first.
    """
    base, *later = circuits
    frames = []
    for checkpoint in later:
        changes = _changes(graph, circuits[base], circuits[checkpoint])
        products = fold_products(graph, folds[base], folds[checkpoint], "source")
        changes[EXCESS] = excess_by_layer(products, folds[base].sizes[None])[0]
        for policy, values in changes.items():
            frames.append(
                pd.DataFrame(
                    {
                        "checkpoint": checkpoint,
                        "epoch": epochs.get(checkpoint, np.nan),
                        "policy": policy,
                        "layer": np.arange(graph.n_layers),
                        "value": values,
                        "rank_order": in_order(values[None])[0] + 1,
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def epochs_of_checkpoints(accuracy: pd.DataFrame, training_log: pd.DataFrame) -> dict[str, float]:
    """How often a run had gone over its train split at each checkpoint after the base model."""
    steps = accuracy.groupby("checkpoint")["step"].first()
    by_step = training_log.set_index("step")["epoch"]
    return {str(name): float(by_step[step]) for name, step in steps.items() if step in by_step.index}


def _changes(graph: Graph, before: MergedCircuit, after: MergedCircuit) -> dict[str, Float[np.ndarray, " layers"]]:
    """The change of each layer by the policies that need one circuit before and one after."""
    pairs = ((before.scores, after.scores), (unit_mass(before.scores), unit_mass(after.scores)))
    layer = graph.layer_of_node[: graph.n_writers].numpy()
    return {
        policy: np.bincount(layer, weights=score_changes(*pair).sum(axis=1), minlength=graph.n_layers)
        for policy, pair in zip(POLICIES, pairs, strict=True)
    }
