r"""The change of each layer from scores by fold: beyond noise, and how it varies over resampled folds.

**Excess** (docs/method.md#critical-layers). Each fold's scores, the q, k and v inputs of a head merged, are scaled to
unit mass. With d_f the difference of an edge's scaled scores between two checkpoints on the prompts of fold f,

    excess of an edge = mean over pairs of folds f != g of  d_f d_g,

and a layer's excess is the sum over the edges credited to it. The noise of two folds is independent, so the product of
their differences estimates the square of the true difference without bias: its expectation is 0 where nothing drifts,
and single values can be negative (crossnobis distances, Walther et al. 2016). All edges of the graph count: which
edges a circuit holds depends on the noise itself, and a sum over selected edges would select among the products too.

**Resamples.** Folds are drawn with replacement, the same draw for both checkpoints. From the mean scores of each draw
circuits are selected as the study does it, and their changes credited to layers. A fold that is drawn twice shares
its noise with itself, so the excess of a draw takes products of different folds alone, weighted by how often both are
drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdrift.allocation.policies import EXCESS
from circuitdrift.circuits.selection import select_circuit
from circuitdrift.config.circuits import Selection
from circuitdrift.config.methods import Credit
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.fold_circuits import rows_of_scores
from circuitdrift.drift.places import is_top
from circuitdrift.drift.reliability import FoldScores
from circuitdrift.intervals import CONFIDENCE

NUMBERS_AT_ONCE = 2**24
"""Scores of resamples that are in memory at once, about 128 MB in float64 for each of a few copies."""


@dataclass(frozen=True)
class LayerResamples:
    """The changes of each layer over resampled folds.

    Attributes:
        excess: the excess of each layer from all folds, in squares of unit mass; None for credit ``counts``.
        by_policy: for each policy, the layers' changes in each resample.
    """

    excess: Float[np.ndarray, " layers"] | None
    by_policy: dict[str, Float[np.ndarray, "resample layers"]]


def resample_layers(
    graph: Graph,
    before: FoldScores,
    after: FoldScores,
    choice: Selection,
    credit: Credit,
    resamples: int,
    seed: int = 0,
) -> LayerResamples:
    """Credit changes to layers by every policy, over resampled folds.

    Args:
        graph: the model's graph, in whose order the edges stand.
        before: scores of the first checkpoint.
        after: scores of the last checkpoint, on the same prompts.
        choice: the study's selection, one that scores determine.
        credit: the layer to which an edge's change counts.
        resamples: how many draws.
        seed: seed of the draws.
    """
    drawn = draw_folds(before.n_folds, resamples, seed)
    rows = max(1, NUMBERS_AT_ONCE // graph.edge_mask.numel())
    chunks = [
        _changes_of_circuits(
            graph, before.means(drawn[first : first + rows]), after.means(drawn[first : first + rows]), choice, credit
        )
        for first in range(0, resamples, rows)
    ]
    by_policy = {policy: np.concatenate([chunk[policy] for chunk in chunks]) for policy in chunks[0]}
    if credit == "counts":
        return LayerResamples(None, by_policy)
    products = fold_products(graph, before, after, credit)
    once = excess_by_layer(products, before.sizes[None])[0]
    return LayerResamples(once, by_policy | {EXCESS: excess_by_layer(products, drawn * before.sizes)})


def draw_folds(n_folds: int, resamples: int, seed: int) -> Int[np.ndarray, "resample fold"]:
    """How often each fold is drawn, with replacement, as many draws as folds; at least two different folds each."""
    generator = np.random.default_rng(seed)
    drawn: list[Int[np.ndarray, " fold"]] = []
    while len(drawn) < resamples:
        counts = np.bincount(generator.integers(n_folds, size=n_folds), minlength=n_folds)
        if (counts > 0).sum() > 1:
            drawn.append(counts)
    return np.stack(drawn)


def credit_to_layers(
    graph: Graph, changes: Float[Tensor, "*rows writers nodes"], credit: Credit
) -> Float[np.ndarray, "*rows layers"]:
    """Sum the changes of merged edges by layer.

    Edges from ``input`` count for layer 0 at their source. Edges to ``logits`` count for no layer at their target: no
    adapter of a layer changes how they are read.
    """
    at_source = changes.new_zeros(*changes.shape[:-2], graph.n_layers)
    at_source.index_add_(-1, graph.layer_of_node[: graph.n_writers], changes.sum(dim=-1))
    at_target = changes.new_zeros(*changes.shape[:-2], graph.n_layers + 1)
    at_target.index_add_(-1, graph.layer_of_node, changes.sum(dim=-2))
    at_target = at_target[..., : graph.n_layers]
    credited = {"source": at_source, "counts": at_source, "target": at_target, "both": (at_source + at_target) / 2}
    return credited[credit].numpy()


def _changes_of_circuits(
    graph: Graph,
    before: Float[np.ndarray, "row edge"],
    after: Float[np.ndarray, "row edge"],
    choice: Selection,
    credit: Credit,
) -> dict[str, Float[np.ndarray, "row layers"]]:
    """The layers' changes between the circuits that are selected from rows of scores."""
    scores = [rows_of_scores(graph, rows) for rows in (before, after)]
    circuits = [select_circuit(graph, rows, choice) for rows in scores]
    if credit == "counts":
        held = [merged_inputs(graph, circuit.double()) > 0 for circuit in circuits]
        return {"score_change": credit_to_layers(graph, (held[0] ^ held[1]).double(), credit)}
    kept = [merged_inputs(graph, rows * circuit) for rows, circuit in zip(scores, circuits, strict=True)]
    scaled = [of_unit_mass(rows) for rows in kept]
    return {
        "score_change": credit_to_layers(graph, (kept[1] - kept[0]).abs(), credit),
        "score_change_normalised": credit_to_layers(graph, (scaled[1] - scaled[0]).abs(), credit),
    }


def merged_inputs(graph: Graph, scores: Float[Tensor, "row writers readers"]) -> Float[Tensor, "row writers nodes"]:
    """Scores summed over the q, k and v inputs of each head (docs/method.md#merged-edges)."""
    return scores.new_zeros(*scores.shape[:-1], len(graph.nodes)).index_add_(-1, graph.node_of_reader, scores)


def of_unit_mass(rows: Float[Tensor, "row writers nodes"]) -> Float[Tensor, "row writers nodes"]:
    """Each row divided by the sum of its absolute values; a row of zeros stays."""
    mass = rows.abs().sum(dim=(-2, -1), keepdim=True)
    return rows / torch.where(mass > 0, mass, torch.ones_like(mass))


def fold_products(
    graph: Graph, before: FoldScores, after: FoldScores, credit: Credit
) -> Float[np.ndarray, "layers fold fold"]:
    """For each layer and pair of folds, the product of their differences, summed over the edges credited to the layer.

    Products are bilinear in the folds, so these few numbers give the excess of every resample.
    """
    merged = [of_unit_mass(merged_inputs(graph, rows_of_scores(graph, found.scores))) for found in (before, after)]
    difference = merged[1] - merged[0]
    layers = range(graph.n_layers)
    writers = graph.layer_of_node[: graph.n_writers]
    at_source = [difference[:, writers == layer].flatten(1) for layer in layers]
    at_target = [difference[:, :, graph.layer_of_node == layer].flatten(1) for layer in layers]
    source, target = (torch.stack([rows @ rows.T for rows in ends]) for ends in (at_source, at_target))
    return {"source": source, "target": target, "both": (source + target) / 2}[credit].numpy()


def excess_by_layer(
    products: Float[np.ndarray, "layers fold fold"], weights: Int[np.ndarray, "row fold"]
) -> Float[np.ndarray, "row layers"]:
    """The weighted mean of the products of different folds.

    Args:
        products: from :func:`fold_products`.
        weights: prompts that each fold stands for; at least two folds of each row have some.
    """
    squares = weights.astype("float64") ** 2
    total = np.einsum("rf,lfg,rg->rl", weights, products, weights)
    same = np.einsum("rf,lff->rl", squares, products)
    pairs = weights.sum(axis=1) ** 2 - squares.sum(axis=1)
    return (total - same) / pairs[:, None]


def top_shares(resampled: Float[np.ndarray, "resample layers"], top: int) -> Float[np.ndarray, " layers"]:
    """The share of resamples in which each layer is among the top."""
    return is_top(resampled, top).mean(axis=0)


def intervals_of(
    resampled: Float[np.ndarray, "resample layers"],
) -> tuple[Float[np.ndarray, " layers"], Float[np.ndarray, " layers"]]:
    """The bounds within which the middle 95 % of the resamples lie."""
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.quantile(resampled, (tail, 1 - tail), axis=0)
    return lower, upper
