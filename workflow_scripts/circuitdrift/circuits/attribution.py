r"""Attribution scores of every edge of a model's graph (docs/method.md#attribution).

For an edge from writer u to reader v the gradient methods give

    score(u, v) = mean over examples of  sum over positions of  (z_u corrupted - z_u clean) . G_v,

where G_v is the mean of dL/d(input of v) over some forward passes, and L an objective of
:mod:`circuitdrift.circuits.objectives`. For each batch of prompt pairs:

1. Run the tokens that all pairs share once, and keep their keys and values: all differences are zero there.
2. Run the clean and the corrupted prompts on from there, and keep what each writer wrote.
3. Run all passes of the method as one batch, and take the gradients of L at every reader's input, summed over the
   passes (``ceap``: pass by pass).
4. Multiply each writer's difference, corrupted less clean, with the gradient of every later reader, example by
   example, and sum over positions and over the examples of each fold.

====================  ===============================================================================================
eap-ig-inputs         passes on the embeddings x_corrupted + a_k (x_clean - x_corrupted); quadrature ``right`` has
                      a_k = k/m for k = 1..m (the paper), ``left`` k = 0..m-1, ``midpoint`` (k - 1/2)/m;
                      ``gauss-legendre`` has its own points, whose gradients have unequal weights in the mean
eap                   the clean pass (Syed et al. 2023)
clean-corrupted       the clean and the corrupted pass (Hanna et al. 2024)
ceap                  those of eap-ig-inputs; each pass's gradient is multiplied with the difference of its own step
                      of the path, and not the mean with the whole difference (conductance, Wu et al. 2026)
relp                  the clean pass, with the rules of relevance patching in place of derivatives (Rezaei Jafari et
                      al. 2025)
gim                   the clean pass, with gradient interaction modifications (Edin et al. 2025); both:
                      :mod:`circuitdrift.circuits.backward_rules`
eap-ig-activations    passes on the clean prompt in which one layer's heads, one MLP or the embedding write
                      z_corrupted + (k/m) (z_clean - z_corrupted), for each of them and k = 1..m (Hanna et al. 2024)
====================  ===============================================================================================

``exact`` gives what these methods approximate: L of the clean pass with the edge alone carrying its corrupted
activation, less L of the clean pass. ``random`` draws from the normal distribution.

Sign: to first order the score is the change of L when the edge alone carries the corrupted in place of the clean
activation. Positive: corrupting the edge drives the output away from the clean output, so the edge supports the
model's behaviour. Negative: corrupting the edge brings the output closer, so the edge works against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdrift.circuits.ablation import circuit_logits
from circuitdrift.circuits.backward_rules import (
    PLAIN_GRADIENTS,
    BackwardRules,
    interaction_rules,
    relevance_rules,
)
from circuitdrift.circuits.gradients import Intervention, Loss, PassGradients, pass_gradients, reader_gradients
from circuitdrift.circuits.memory import FittingBatches
from circuitdrift.circuits.objectives import Objective
from circuitdrift.circuits.path_outputs import OutputWatch, ends_of_steps
from circuitdrift.circuits.prompts import PairBatch, PromptPairs, pair_batches
from circuitdrift.circuits.traced_pairs import TracedPair, trace_pair, writer_differences
from circuitdrift.compute import progress
from circuitdrift.config.circuits import Attribution, Quadrature
from circuitdrift.decoder.anatomy import Anatomy, Block
from circuitdrift.decoder.graph import Graph
from circuitdrift.decoder.tracing import AfterHook, BeforeHook, one_key_per_query_head, without_parameter_gradients
from circuitdrift.errors import CircuitDriftError

Sums = Float[Tensor, "fold writers readers"]
"""Scores summed over a batch's examples of each fold."""


@dataclass(frozen=True)
class EdgeScores:
    """Signed scores in nats or logits, float32.

    Attributes:
        scores: mean over all examples.
        by_fold: mean over the examples of each fold; of n folds, example i belongs to fold i mod n, and n is
            ``recipe.folds``, or the number of examples if that is smaller.
        fold_sizes: examples of each fold.
    """

    scores: Float[Tensor, "writers readers"]
    by_fold: Float[Tensor, "fold writers readers"]
    fold_sizes: tuple[int, ...]


def score_edges(
    anatomy: Anatomy, pairs: PromptPairs, recipe: Attribution, batch_size: int, draw: str = ""
) -> EdgeScores:
    """Score every edge; definitions and sign are at the top of this module.

    Args:
        anatomy: the model.
        pairs: the examples.
        recipe: method, objective, number of steps, quadrature, number of folds.
        batch_size: examples in one batch; fewer once memory runs out.
        draw: name of the draw of random scores; draws of two names are independent.

    Raises:
        CircuitDriftError: an example lacks the corrupted answer that the objective needs.
        MemoryLimitError: memory ran out with a single example at once.
    """
    _check_examples(pairs, recipe)
    n_folds = min(recipe.folds, len(pairs))
    sizes = torch.bincount(torch.arange(len(pairs)) % n_folds)
    if recipe.attribution == "random":
        return _random_scores(anatomy.graph, sizes, f"{recipe.seed} {draw}")
    method = _METHODS[recipe.attribution]
    batches = pair_batches(pairs, batch_size, anatomy.device)
    # Sums over batches are kept on the CPU, because not every device has float64.
    sums = torch.zeros(n_folds, anatomy.graph.n_writers, anatomy.graph.n_readers, dtype=torch.float64)
    with one_key_per_query_head(anatomy), without_parameter_gradients(anatomy):
        fitting = FittingBatches()
        for batch in progress(batches, "scoring edges, batches", len(batches)):
            for _, found in fitting.run(batch, lambda part: method(anatomy, part, recipe, n_folds)):
                sums += found.to("cpu", torch.float64)
    scores, by_fold = sums.sum(dim=0) / len(pairs), sums / sizes[:, None, None]
    return EdgeScores(scores.float(), by_fold.float(), tuple(sizes.tolist()))


def _check_examples(pairs: PromptPairs, recipe: Attribution) -> None:
    if recipe.objective != "kl" and not pairs.have_answers:
        raise CircuitDriftError(
            f"the task has no answers, which circuit.objective {recipe.objective} needs; use objective kl, or add a "
            "column answer to the task's file"
        )
    if recipe.objective == "logit_difference" and not all(map(len, pairs.corrupted_answers)):
        lacking = next(i for i, answer in enumerate(pairs.corrupted_answers) if not len(answer))
        raise CircuitDriftError(
            f"example {lacking} has no corrupted answer, which circuit.objective logit_difference needs; "
            "add a column corrupted_answer to the task's file, or use objective kl or answer_loss"
        )


# --------------------------------------------------------------------------------------------- gradient methods


def _along_inputs(anatomy: Anatomy, batch: PairBatch, recipe: Attribution, n_folds: int) -> Sums:
    points = clean_weights(recipe.steps, recipe.quadrature)
    shares = gauss_legendre(recipe.steps)[1] if recipe.quadrature == "gauss-legendre" else None
    return _between_inputs(anatomy, batch, recipe, n_folds, points, shares=shares)


def _at_clean(anatomy: Anatomy, batch: PairBatch, recipe: Attribution, n_folds: int) -> Sums:
    return _between_inputs(anatomy, batch, recipe, n_folds, [1.0])


def _at_both_ends(anatomy: Anatomy, batch: PairBatch, recipe: Attribution, n_folds: int) -> Sums:
    return _between_inputs(anatomy, batch, recipe, n_folds, [0.0, 1.0])


def _by_relevance(anatomy: Anatomy, batch: PairBatch, recipe: Attribution, n_folds: int) -> Sums:
    return _between_inputs(anatomy, batch, recipe, n_folds, [1.0], rules=relevance_rules(anatomy))


def _by_interactions(anatomy: Anatomy, batch: PairBatch, recipe: Attribution, n_folds: int) -> Sums:
    return _between_inputs(anatomy, batch, recipe, n_folds, [1.0], rules=interaction_rules(anatomy))


def clean_weights(steps: int, quadrature: Quadrature) -> list[float]:
    """The a_k of a quadrature: the weight of the clean embedding at each step."""
    if quadrature == "gauss-legendre":
        return gauss_legendre(steps)[0]
    offset = {"right": 1.0, "left": 0.0, "midpoint": 0.5}[quadrature]
    return [(k + offset) / steps for k in range(steps)]


def gauss_legendre(steps: int) -> tuple[list[float], list[float]]:
    """Points between 0 and 1 and their shares in the mean, by which polynomials of degree 2 steps - 1 are exact."""
    points, shares = np.polynomial.legendre.leggauss(steps)
    return ((points + 1) / 2).tolist(), (shares / 2).tolist()


def _between_inputs(
    anatomy: Anatomy,
    batch: PairBatch,
    recipe: Attribution,
    n_folds: int,
    weights: Sequence[float],
    shares: Sequence[float] | None = None,
    rules: BackwardRules = PLAIN_GRADIENTS,
) -> Sums:
    """Gradients at embeddings between the corrupted (weight 0) and the clean embeddings (weight 1).

    ``shares`` are those of the passes in the mean of the gradients; without them all passes share equally.
    """
    pair = trace_pair(anatomy, batch)
    objective = Objective(recipe.objective, pair.clean.logits, batch)
    embeddings = _embeddings_with_gradient(pair, weights, objective)
    differences, prefix = writer_differences(anatomy, pair.corrupted, pair.clean), pair.prefix
    del pair  # its traces would be the larger part of the memory held during the backward pass
    loss = objective if shares is None else _shared_out(objective, shares)
    gradients = pass_gradients(anatomy, embeddings, prefix, batch.n_answer, loss, Intervention(), rules)
    return _products(anatomy, differences, gradients, batch, n_folds) / len(weights)


def _shared_out(objective: Objective, shares: Sequence[float]) -> Loss:
    """The objective of each pass times its share and the number of passes, so that their mean has these shares."""

    def loss(logits: Float[Tensor, "pass batch answer vocabulary"]) -> Float[Tensor, "pass batch"]:
        values = objective(logits)
        return values * values.new_tensor(shares)[:, None] * len(shares)

    return loss


def _by_conductance(anatomy: Anatomy, batch: PairBatch, recipe: Attribution, n_folds: int) -> Sums:
    """Step by step of the path, the writers' differences of the step times the gradients of its pass."""
    pair = trace_pair(anatomy, batch)
    objective = Objective(recipe.objective, pair.clean.logits, batch)
    weights = clean_weights(recipe.steps, recipe.quadrature)
    embeddings = _embeddings_with_gradient(pair, weights, objective)
    watch = OutputWatch(anatomy)
    gradients = pass_gradients(anatomy, embeddings, pair.prefix, batch.n_answer, objective, watch.hooks)
    ends = ends_of_steps(watch.points(gradients), pair.corrupted, pair.clean, recipe.quadrature)
    dtype, device = anatomy.accumulation_dtype, anatomy.device
    sums = torch.zeros(n_folds, anatomy.graph.n_writers, anatomy.graph.n_readers, dtype=dtype, device=device)
    for k, (nearer_corrupted, nearer_clean) in enumerate(pairwise(ends)):
        differences = writer_differences(anatomy, nearer_corrupted, nearer_clean)
        sums += _products(anatomy, differences, gradients.of_pass(k), batch, n_folds)
    return sums


def _embeddings_with_gradient(
    pair: TracedPair, weights: Sequence[float], objective: Objective
) -> Float[Tensor, "pass batch position d_model"]:
    """The points of a path at which the objective has a gradient, by their weights of the clean embedding."""
    with_gradient = [weight for weight in weights if not (weight == 1.0 and objective.is_least_at_clean)]
    return torch.stack(
        [torch.lerp(pair.corrupted_embeddings, pair.clean_embeddings, weight) for weight in with_gradient]
    )


def _along_activations(anatomy: Anatomy, batch: PairBatch, recipe: Attribution, n_folds: int) -> Sums:
    """Gradients of passes in which the writers of one place interpolate, place after place."""
    graph = anatomy.graph
    pair = trace_pair(anatomy, batch)
    objective = Objective(recipe.objective, pair.clean.logits, batch)
    differences = writer_differences(anatomy, pair.corrupted, pair.clean)
    weights = clean_weights(recipe.steps, "right")
    dtype, device = anatomy.accumulation_dtype, anatomy.device
    sums = torch.zeros(n_folds, graph.n_writers, graph.n_readers, dtype=dtype, device=device)
    for embeddings, intervention in _interpolations(anatomy, pair, weights):
        gradients = pass_gradients(anatomy, embeddings, pair.prefix, batch.n_answer, objective, intervention)
        sums += _products(anatomy, differences, gradients, batch, n_folds)
    n_places = 1 + 2 * graph.n_layers
    return sums / (len(weights) * n_places)


def _interpolations(
    anatomy: Anatomy, pair: TracedPair, weights: Sequence[float]
) -> Iterator[tuple[Float[Tensor, "pass batch position d_model"], Intervention]]:
    """Embeddings of the passes and the change to them: for the embedding, then for each layer's heads and its MLP."""

    def interpolated(corrupted: Tensor, clean: Tensor) -> Tensor:
        return torch.stack([torch.lerp(corrupted, clean, weight) for weight in weights])

    yield interpolated(pair.corrupted_embeddings, pair.clean_embeddings), Intervention()
    clean_embeddings = pair.clean_embeddings.expand(len(weights), *pair.clean_embeddings.shape)
    for layer, block in enumerate(anatomy.blocks):
        heads = interpolated(pair.corrupted.head_values[layer], pair.clean.head_values[layer]).flatten(0, 1)
        yield clean_embeddings, _writing_heads(block, heads)
        mlp = interpolated(pair.corrupted.mlp_outputs[layer], pair.clean.mlp_outputs[layer]).flatten(0, 1)
        yield clean_embeddings, Intervention(after=[(block.mlp, _writing(mlp / block.multiplier))])


def _reading(value: Tensor) -> BeforeHook:
    return lambda module, args: (value,)


def _writing(value: Tensor) -> AfterHook:
    return lambda module, args, output: value.view_as(output).to(output.dtype)


def _writing_heads(block: Block, head_values: Float[Tensor, "rows position d_attention"]) -> Intervention:
    """The change to passes in which the heads of a layer write what these values give."""
    if block.post_norm is None:
        return Intervention(before=[(block.output, _reading(head_values))])
    written = head_values @ block.output_weight().to(head_values.dtype).T
    return Intervention(after=[(block.post_norm.module, _writing(written))])


def _products(
    anatomy: Anatomy,
    differences: Float[Tensor, "writer batch position d_model"],
    gradients: PassGradients,
    batch: PairBatch,
    n_folds: int,
) -> Sums:
    """Each writer's difference times each later reader's gradient: for each layer one product for each example.

    One example's product is as fast as its part of a product over the batch, so that folds cost nothing.
    """
    folds = _folds_of(batch, n_folds)
    sums = differences.new_zeros(n_folds, anatomy.graph.n_writers, anatomy.graph.n_readers)
    for readers, n_writers, gradient in reader_gradients(anatomy, gradients):
        written = differences[:n_writers, :, -gradient.shape[2] :].transpose(0, 1).flatten(2)
        scores = torch.bmm(written, gradient.permute(1, 2, 3, 0).flatten(1, 2))
        sums[:, :n_writers, readers].index_add_(0, folds, scores)
    return sums


def _folds_of(batch: PairBatch, n_folds: int) -> Int[Tensor, " batch"]:
    """The fold of each example."""
    return torch.tensor(batch.indices, device=batch.clean.device) % n_folds


# ---------------------------------------------------------------------------------------- exact and random


def _by_patching(anatomy: Anatomy, batch: PairBatch, recipe: Attribution, n_folds: int) -> Sums:
    """Patch every edge by itself, a few hundred rows at a time: circuits of all edges but one."""
    pair = trace_pair(anatomy, batch)
    objective = Objective(recipe.objective, pair.clean.logits, batch)
    mask = anatomy.graph.edge_mask
    folds = _folds_of(batch, n_folds)
    sums = torch.zeros(n_folds, *mask.shape, dtype=anatomy.accumulation_dtype, device=anatomy.device)
    with torch.no_grad():
        unpatched = objective(pair.clean.logits[None])
    for edges in mask.nonzero().split(max(1, _ROWS_AT_A_TIME // len(batch.indices))):
        circuits = mask.repeat(len(edges), 1, 1)
        circuits[torch.arange(len(edges)), edges[:, 0], edges[:, 1]] = False
        with torch.no_grad():
            changes = objective(circuit_logits(anatomy, pair, pair.corrupted, circuits)) - unpatched
        by_fold = changes.new_zeros(n_folds, len(edges)).index_add_(0, folds, changes.T)
        sums[:, edges[:, 0], edges[:, 1]] = by_fold.to(sums.dtype)
    return sums


_ROWS_AT_A_TIME = 256


def _random_scores(graph: Graph, fold_sizes: Int[Tensor, " fold"], draw: str) -> EdgeScores:
    """Independent scores for each fold, normal with the variance of a mean over its examples."""
    seed = int.from_bytes(hashlib.sha256(draw.encode()).digest()[:7])
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(fold_sizes), *graph.edge_mask.shape, generator=generator) * graph.edge_mask
    by_fold = drawn / fold_sizes[:, None, None].sqrt()
    scores = (by_fold * fold_sizes[:, None, None]).sum(dim=0) / fold_sizes.sum()
    return EdgeScores(scores, by_fold, tuple(fold_sizes.tolist()))


_METHODS: dict[str, Callable[[Anatomy, PairBatch, Attribution, int], Sums]] = {
    "eap-ig-inputs": _along_inputs,
    "eap": _at_clean,
    "clean-corrupted": _at_both_ends,
    "ceap": _by_conductance,
    "relp": _by_relevance,
    "gim": _by_interactions,
    "eap-ig-activations": _along_activations,
    "exact": _by_patching,
}
