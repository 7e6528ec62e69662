r"""Attribution scores of every edge of a model's graph (docs/method.md#attribution).

For an edge from writer u to reader v the gradient methods give

    score(u, v) = mean over examples of  sum over positions of  (z_u corrupted - z_u clean) . G_v,

where G_v is the mean of dL/d(input of v) over some forward passes, and L an objective of
:mod:`circuitdrift.circuits.objectives`. For each batch of prompt pairs:

1. Run the tokens that all pairs share once, and keep their keys and values: all differences are zero there.
2. Run the clean and the corrupted prompts on from there, and keep what each writer wrote.
3. Run all passes of the method as one batch, and take the gradients of L at every reader's input, summed over the
   passes.
4. Multiply each writer's difference, corrupted less clean, with the gradient of every later reader, and sum over
   positions and over the batch's even and odd examples.

====================  ===============================================================================================
eap-ig-inputs         passes on the embeddings x_corrupted + a_k (x_clean - x_corrupted); quadrature ``right`` has
                      a_k = k/m for k = 1..m (the paper), ``left`` k = 0..m-1, ``midpoint`` (k - 1/2)/m
eap                   the clean pass (Syed et al. 2023)
clean-corrupted       the clean and the corrupted pass (Hanna et al. 2024)
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

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdrift.circuits.ablation import circuit_logits
from circuitdrift.circuits.gradients import Intervention, PassGradients, pass_gradients, reader_gradients
from circuitdrift.circuits.objectives import Objective
from circuitdrift.circuits.prompts import PairBatch, PromptPairs, pair_batches
from circuitdrift.circuits.traced_pairs import TracedPair, trace_pair, writer_differences
from circuitdrift.compute import progress
from circuitdrift.config.circuits import Attribution, Quadrature
from circuitdrift.decoder.anatomy import Anatomy
from circuitdrift.decoder.graph import Graph
from circuitdrift.decoder.tracing import AfterHook, BeforeHook, one_key_per_query_head, without_parameter_gradients

Sums = Float[Tensor, "half writers readers"]
"""Scores summed over a batch's even and over its odd examples."""


@dataclass(frozen=True)
class EdgeScores:
    """Signed scores [writers, readers] in nats or logits, float32: over all examples, and over two disjoint halves.

    ``half_a`` is the mean over the examples 0, 2, 4 ..., ``half_b`` over 1, 3, 5 ...: the difference between the two
    is the noise floor of a data split.
    """

    scores: Float[Tensor, "writers readers"]
    half_a: Float[Tensor, "writers readers"]
    half_b: Float[Tensor, "writers readers"]


def score_edges(
    anatomy: Anatomy, pairs: PromptPairs, recipe: Attribution, batch_size: int, draw: str = ""
) -> EdgeScores:
    """Score every edge; definitions and sign are at the top of this module.

    Args:
        anatomy: the model.
        pairs: the examples, at least two.
        recipe: method, objective, number of steps, quadrature.
        batch_size: examples in one batch.
        draw: name of the draw of random scores; draws of two names are independent.

    Raises:
        ValueError: there are fewer than two examples, or one lacks the corrupted answer that the objective needs.
    """
    _check_examples(pairs, recipe)
    if recipe.attribution == "random":
        return _random_scores(anatomy.graph, f"{recipe.seed} {draw}")
    method = _METHODS[recipe.attribution]
    batches = pair_batches(pairs, batch_size, anatomy.device)
    # Sums over batches are kept on the CPU, because not every device has float64.
    sums = torch.zeros(2, anatomy.graph.n_writers, anatomy.graph.n_readers, dtype=torch.float64)
    with one_key_per_query_head(anatomy), without_parameter_gradients(anatomy):
        for batch in progress(batches, "scoring edges, batches", len(batches)):
            sums += method(anatomy, batch, recipe).to("cpu", torch.float64)
    n_odd = len(pairs) // 2
    return EdgeScores(
        scores=(sums.sum(dim=0) / len(pairs)).float(),
        half_a=(sums[0] / (len(pairs) - n_odd)).float(),
        half_b=(sums[1] / n_odd).float(),
    )


def _check_examples(pairs: PromptPairs, recipe: Attribution) -> None:
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} example(s) to score, but each of the two halves needs one; give at least 2")
    if recipe.objective == "logit_difference" and not all(map(len, pairs.corrupted_answers)):
        lacking = next(i for i, answer in enumerate(pairs.corrupted_answers) if not len(answer))
        raise ValueError(
            f"example {lacking} has no corrupted answer, which circuit.objective logit_difference needs; "
            "add a column corrupted_answer to the task's file, or use objective kl or answer_loss"
        )


# --------------------------------------------------------------------------------------------- gradient methods


def _along_inputs(anatomy: Anatomy, batch: PairBatch, recipe: Attribution) -> Sums:
    return _between_inputs(anatomy, batch, recipe, clean_weights(recipe.steps, recipe.quadrature))


def _at_clean(anatomy: Anatomy, batch: PairBatch, recipe: Attribution) -> Sums:
    return _between_inputs(anatomy, batch, recipe, [1.0])


def _at_both_ends(anatomy: Anatomy, batch: PairBatch, recipe: Attribution) -> Sums:
    return _between_inputs(anatomy, batch, recipe, [0.0, 1.0])


def clean_weights(steps: int, quadrature: Quadrature) -> list[float]:
    """The a_k of a quadrature: the weight of the clean embedding at each step."""
    offset = {"right": 1.0, "left": 0.0, "midpoint": 0.5}[quadrature]
    return [(k + offset) / steps for k in range(steps)]


def _between_inputs(anatomy: Anatomy, batch: PairBatch, recipe: Attribution, weights: Sequence[float]) -> Sums:
    """Gradients at embeddings between the corrupted (weight 0) and the clean embeddings (weight 1)."""
    pair = trace_pair(anatomy, batch)
    objective = Objective(recipe.objective, pair.clean.logits, batch)
    with_gradient = [weight for weight in weights if not (weight == 1.0 and objective.is_least_at_clean)]
    embeddings = torch.stack(
        [torch.lerp(pair.corrupted_embeddings, pair.clean_embeddings, weight) for weight in with_gradient]
    )
    differences, prefix = _differences_by_half(anatomy, batch, pair), pair.prefix
    del pair  # its traces would be the larger part of the memory held during the backward pass
    gradients = pass_gradients(anatomy, embeddings, prefix, batch.n_answer, objective, Intervention())
    return _products(anatomy, differences, gradients, batch) / len(weights)


def _along_activations(anatomy: Anatomy, batch: PairBatch, recipe: Attribution) -> Sums:
    """Gradients of passes in which the writers of one place interpolate, place after place."""
    graph = anatomy.graph
    pair = trace_pair(anatomy, batch)
    objective = Objective(recipe.objective, pair.clean.logits, batch)
    differences = _differences_by_half(anatomy, batch, pair)
    weights = clean_weights(recipe.steps, "right")
    dtype, device = anatomy.accumulation_dtype, anatomy.device
    sums = torch.zeros(2, graph.n_writers, graph.n_readers, dtype=dtype, device=device)
    for embeddings, intervention in _interpolations(anatomy, pair, weights):
        gradients = pass_gradients(anatomy, embeddings, pair.prefix, batch.n_answer, objective, intervention)
        sums += _products(anatomy, differences, gradients, batch)
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
        yield clean_embeddings, Intervention(before=[(block.output, _reading(heads))])
        mlp = interpolated(pair.corrupted.mlp_outputs[layer], pair.clean.mlp_outputs[layer]).flatten(0, 1)
        yield clean_embeddings, Intervention(after=[(block.mlp, _writing(mlp))])


def _reading(value: Tensor) -> BeforeHook:
    return lambda module, args: (value,)


def _writing(value: Tensor) -> AfterHook:
    return lambda module, args, output: value.view_as(output)


def _differences_by_half(
    anatomy: Anatomy, batch: PairBatch, pair: TracedPair
) -> tuple[Float[Tensor, "writer half_batch position d_model"], ...]:
    return tuple(writer_differences(anatomy, pair.corrupted.rows(half), pair.clean.rows(half)) for half in batch.halves)


def _products(
    anatomy: Anatomy,
    differences: tuple[Float[Tensor, "writer half_batch position d_model"], ...],
    gradients: PassGradients,
    batch: PairBatch,
) -> Sums:
    """Each writer's difference times each later reader's gradient, one matrix product for each layer and half."""
    sums = differences[0].new_zeros(2, anatomy.graph.n_writers, anatomy.graph.n_readers)
    for readers, n_writers, gradient in reader_gradients(anatomy, gradients):
        for half, (members, written) in enumerate(zip(batch.halves, differences, strict=True)):
            read = written[:n_writers, :, -gradient.shape[2] :].flatten(1)
            sums[half, :n_writers, readers] = read @ gradient[:, members].flatten(1).T
    return sums


# ---------------------------------------------------------------------------------------- exact and random


def _by_patching(anatomy: Anatomy, batch: PairBatch, recipe: Attribution) -> Sums:
    """Patch every edge by itself, a few hundred rows at a time: circuits of all edges but one."""
    pair = trace_pair(anatomy, batch)
    objective = Objective(recipe.objective, pair.clean.logits, batch)
    mask = anatomy.graph.edge_mask
    sums = torch.zeros(2, *mask.shape, dtype=anatomy.accumulation_dtype, device=anatomy.device)
    with torch.no_grad():
        unpatched = objective(pair.clean.logits[None])
    for edges in mask.nonzero().split(max(1, _ROWS_AT_A_TIME // len(batch.indices))):
        circuits = mask.repeat(len(edges), 1, 1)
        circuits[torch.arange(len(edges)), edges[:, 0], edges[:, 1]] = False
        with torch.no_grad():
            changes = objective(circuit_logits(anatomy, pair, pair.corrupted, circuits)) - unpatched
        for half, members in enumerate(batch.halves):
            sums[half, edges[:, 0], edges[:, 1]] = changes[:, members].sum(dim=1).to(sums.dtype)
    return sums


_ROWS_AT_A_TIME = 256


def _random_scores(graph: Graph, draw: str) -> EdgeScores:
    """Standard normal scores, independent in the two halves; ``scores`` is their mean."""
    seed = int.from_bytes(hashlib.sha256(draw.encode()).digest()[:7])
    halves = torch.randn(2, *graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed)) * graph.edge_mask
    return EdgeScores(halves.mean(dim=0), halves[0], halves[1])


_METHODS: dict[str, Callable[[Anatomy, PairBatch, Attribution], Sums]] = {
    "eap-ig-inputs": _along_inputs,
    "eap": _at_clean,
    "clean-corrupted": _at_both_ends,
    "eap-ig-activations": _along_activations,
    "exact": _by_patching,
}
