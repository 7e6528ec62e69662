r"""Edge attribution patching with integrated gradients over the inputs (EAP-IG; PAPER section 4.1).

For an edge from writer u to reader v,

    score(u, v) = mean over examples of  sum over positions of  (z_u corrupted - z_u clean) . G_v,
    G_v = 1/m  sum over k of  dL/d(input of v)  at the embeddings  x_corrupted + a_k (x_clean - x_corrupted),

with L = KL(clean model || run) at the last position, in nats, summed over the vocabulary. Quadrature ``right`` has
a_k = k/m for k = 1..m (the paper), ``left`` k = 0..m-1 and ``midpoint`` (k - 1/2)/m.

Sign: to first order the score is the change of L when the edge alone carries the corrupted in place of the clean
activation. Positive: corrupting it drives the output away from the clean one, so the edge supports the model's
behaviour. Negative: corrupting it brings the output closer, so the edge works against it.

How it is computed, each step exact. Only activations get gradients, at the outputs of the q, k and v projections and
of the norms before MLP and head; a reader's input gradient follows through its rows of the projection and the norm's
Jacobian, which is written out below. All steps run as one batch. Before the first token in which a pair differs all
differences are zero, so those tokens are run once for their keys and values, and the rest alone is taken further.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from circuitdrift.circuits.graph import Graph
from circuitdrift.circuits.prompts import PairBatch, pair_batches
from circuitdrift.config.circuits import Attribution
from circuitdrift.models.anatomy import Anatomy, Norm
from circuitdrift.models.tracing import (
    Prefix,
    Trace,
    hooked,
    last_logits,
    one_key_per_query_head,
    run_prefix,
    trace,
    without_parameter_gradients,
    written_by_heads,
)

Quadrature = Literal["right", "left", "midpoint"]


@dataclass(frozen=True)
class EdgeScores:
    """Signed scores [writers, readers] in nats, float32: the mean over all examples, and over two disjoint halves.

    ``half_a`` is the mean over the examples 0, 2, 4 ..., ``half_b`` over 1, 3, 5 ...: how far the two differ is the
    noise floor of a data split.
    """

    scores: Float[Tensor, "writers readers"]
    half_a: Float[Tensor, "writers readers"]
    half_b: Float[Tensor, "writers readers"]


def score_edges(
    anatomy: Anatomy, clean: Sequence[Sequence[int]], corrupted: Sequence[Sequence[int]], recipe: Attribution
) -> EdgeScores:
    """Score every edge by EAP-IG; definition and sign are those at the top of this module.

    Args:
        anatomy: the model.
        clean: token ids of the clean prompts, at least two.
        corrupted: token ids of the corrupted prompts, each as long as its clean one.
        recipe: number of steps, quadrature, batch size.

    Raises:
        ValueError: prompts that do not pair up, fewer than two of them, or a recipe whose scores are all zero.
    """
    if len(clean) < 2:
        raise ValueError(f"{len(clean)} example(s) to score; at least 2 are needed, one for each half")
    weights = clean_weights(recipe.steps, recipe.quadrature)
    batches = pair_batches(clean, corrupted, recipe.batch_size, anatomy.device)
    # Sums over batches are kept on the CPU in float64, which not every device has.
    sums = torch.zeros(2, anatomy.graph.n_writers, anatomy.graph.n_readers, dtype=torch.float64)
    with one_key_per_query_head(anatomy), without_parameter_gradients(anatomy):
        for batch in batches:
            sums += _batch_sums(anatomy, batch, weights, recipe.steps).to("cpu", torch.float64)
    n_odd = len(clean) // 2
    return EdgeScores(
        scores=(sums.sum(dim=0) / len(clean)).float(),
        half_a=(sums[0] / (len(clean) - n_odd)).float(),
        half_b=(sums[1] / n_odd).float(),
    )


def clean_weights(steps: int, quadrature: Quadrature) -> list[float]:
    """The steps' a_k, the weight of the clean embedding, less a step at the clean embedding itself.

    There the run is the clean model, where the KL divergence has its minimum and a gradient of exactly zero.

    Raises:
        ValueError: no step is left.
    """
    offset = {"right": 1.0, "left": 0.0, "midpoint": 0.5}[quadrature]
    weights = [(k + offset) / steps for k in range(steps)]
    weights = [weight for weight in weights if weight != 1.0]
    if not weights:
        raise ValueError(
            "circuit.steps: one step with quadrature 'right' is the clean run itself, where every gradient of the "
            "KL objective is zero; use more steps, or quadrature 'left' or 'midpoint'"
        )
    return weights


def _batch_sums(
    anatomy: Anatomy, batch: PairBatch, weights: Sequence[float], steps: int
) -> Float[Tensor, "half writers readers"]:
    """Scores of one batch, summed over its even and over its odd examples."""
    prefix = run_prefix(anatomy, batch.clean[:, : batch.n_shared])
    with torch.no_grad():
        both = anatomy.embedding(torch.cat([batch.clean, batch.corrupted])[:, batch.n_shared :])
    traced = trace(anatomy, both, prefix)
    clean, corrupted = traced.rows(slice(0, len(batch.indices))), traced.rows(slice(len(batch.indices), None))
    del traced
    differences = writer_differences(anatomy, corrupted, clean)
    token_clean, token_corrupted = both.chunk(2)
    embeddings = torch.cat([torch.lerp(token_corrupted, token_clean, weight) for weight in weights])
    gradients = run_gradients(anatomy, embeddings, prefix, clean.logits, len(weights))

    sums = differences.new_zeros(2, anatomy.graph.n_writers, anatomy.graph.n_readers)
    for readers, n_sources, gradient in reader_gradients(anatomy, gradients):
        for half, members in enumerate((slice(0, batch.n_even), slice(batch.n_even, None))):
            positions = slice(differences.shape[2] - gradient.shape[2], None)
            written = differences[:n_sources, members, positions].flatten(1)
            sums[half, :n_sources, readers] = written @ gradient[:, members].flatten(1).T / steps
    return sums


def writer_differences(anatomy: Anatomy, run: Trace, base: Trace) -> Float[Tensor, "writer batch position d_model"]:
    """What each writer wrote in one run less what it wrote in another. Constant biases cancel."""
    graph, dtype = anatomy.graph, anatomy.accumulation_dtype
    batch, position, d_model = run.embeddings.shape
    differences = torch.empty(graph.n_writers, batch, position, d_model, dtype=dtype, device=anatomy.device)
    differences[0] = run.embeddings.to(dtype) - base.embeddings.to(dtype)
    for layer, block in enumerate(anatomy.blocks):
        values = run.head_values[layer].to(dtype) - base.head_values[layer].to(dtype)
        differences[graph.heads(layer)] = written_by_heads(block, values, graph.n_heads)
        differences[graph.mlp(layer)] = run.mlp_outputs[layer].to(dtype) - base.mlp_outputs[layer].to(dtype)
    return differences


# ------------------------------------------------------------------------------------------------ gradients


@dataclass(frozen=True)
class BlockGradients:
    """Of one block in the interpolated runs: what its norms read, and the objective's gradients behind them.

    ``heads`` are the gradients at the outputs of the projections, in the order of the graph's readers: q of all
    heads, then k, then v. ``mlp`` is the gradient at the output of the MLP norm.
    """

    attention_input: Float[Tensor, "step batch position d_model"]
    heads: Float[Tensor, "step batch position reader d_head"]
    mlp_input: Float[Tensor, "step batch position d_model"]
    mlp: Float[Tensor, "step batch position d_model"]


@dataclass(frozen=True)
class RunGradients:
    """Gradients of the interpolated runs; those of the final norm at the last position, elsewhere they are zero."""

    blocks: tuple[BlockGradients, ...]
    final_input: Float[Tensor, "step batch 1 d_model"]
    final: Float[Tensor, "step batch 1 d_model"]


def kl_divergence(
    reference: Float[Tensor, "*rows vocabulary"], logits: Float[Tensor, "*rows vocabulary"]
) -> Float[Tensor, "*rows"]:
    """KL(reference || run) in nats, from the logits of both, in float32 or the logits' wider dtype."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    expected = functional.log_softmax(reference.to(dtype), dim=-1)
    found = functional.log_softmax(logits.to(dtype), dim=-1)
    return (expected.exp() * (expected - found)).sum(dim=-1)


def run_gradients(
    anatomy: Anatomy,
    embeddings: Float[Tensor, "rows position d_model"],
    prefix: Prefix,
    clean_logits: Float[Tensor, "batch vocabulary"],
    n_steps: int,
) -> RunGradients:
    """Run all steps as one batch (rows = step times batch, steps outermost) and take the gradients of the objective.

    The objective is the sum over rows of KL(clean || run); rows do not interact, so each gets its own gradient.
    """
    read: dict[nn.Module, Tensor] = {}
    watched: dict[nn.Module, Tensor] = {}
    norms = [anatomy.final_norm.module]
    projections: list[nn.Module] = []
    for block in anatomy.blocks:
        norms += [block.attention_norm.module, block.mlp_norm.module]
        projections += dict.fromkeys(projection.module for projection in block.projections.values())
    outputs = [anatomy.final_norm.module, *(block.mlp_norm.module for block in anatomy.blocks), *projections]
    with (
        torch.enable_grad(),
        hooked(
            before=[(module, lambda module, args: read.update({module: args[0].detach()})) for module in norms],
            after=[(module, lambda module, args, output: watched.update({module: output})) for module in outputs],
        ),
    ):
        logits = last_logits(anatomy, embeddings.detach().requires_grad_(True), prefix)
        objective = kl_divergence(clean_logits.repeat(n_steps, 1), logits).sum()
        gradients = dict(zip(watched, torch.autograd.grad(objective, list(watched.values())), strict=True))

    def by_step(tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (n_steps, -1)).to(anatomy.accumulation_dtype)

    def stream(tensor: Tensor) -> Tensor:
        # OPT's MLP norm has rows and positions in one dimension.
        return tensor.view(embeddings.shape)

    blocks = []
    for block in anatomy.blocks:
        heads = [gradients[projection.module][..., projection.columns] for projection in block.projections.values()]
        blocks.append(
            BlockGradients(
                attention_input=by_step(read[block.attention_norm.module]),
                heads=by_step(torch.cat(heads, dim=-2)),
                mlp_input=by_step(stream(read[block.mlp_norm.module])),
                mlp=by_step(stream(gradients[block.mlp_norm.module])),
            )
        )
    final = anatomy.final_norm.module
    return RunGradients(tuple(blocks), by_step(read[final][:, -1:]), by_step(gradients[final][:, -1:]))


def reader_gradients(
    anatomy: Anatomy, gradients: RunGradients
) -> Iterator[tuple[slice, int, Float[Tensor, "reader batch position d_model"]]]:
    """Input gradients, summed over the steps, of all readers: which readers, how many writers they read, gradients."""
    graph: Graph = anatomy.graph
    for layer, (block, behind) in enumerate(zip(anatomy.blocks, gradients.blocks, strict=True)):
        weight = torch.cat([projection.weight() for projection in block.projections.values()])
        heads = through_projection_and_norm(block.attention_norm, weight, behind.attention_input, behind.heads)
        yield graph.head_readers(layer), graph.n_sources_of_heads(layer), heads
        mlp = through_norm(block.mlp_norm, behind.mlp_input, behind.mlp)
        reader = graph.mlp_reader(layer)
        yield slice(reader, reader + 1), graph.n_sources_of_mlp(layer), mlp[None]
    logits = through_norm(anatomy.final_norm, gradients.final_input, gradients.final)
    yield slice(graph.n_readers - 1, graph.n_readers), graph.n_writers, logits[None]


@torch.no_grad()
def through_norm(
    norm: Norm, x: Float[Tensor, "step batch position d_model"], gradient: Float[Tensor, "step batch position d_model"]
) -> Float[Tensor, "batch position d_model"]:
    r"""Push a gradient at a norm's output back to its input, at each step's own input, and sum over the steps.

    With the standardised input s = (x - mean) r (RMSNorm: no mean), output w s + b and g' = w g:
    dL/dx = r (g' - mean(g') - s mean(s g')), the means over d_model, the first for LayerNorm only.
    """
    standard, reciprocal = norm.standardise(x)
    scaled = gradient * norm.gain.to(gradient.dtype)
    along = (standard * scaled).mean(dim=-1, keepdim=True)
    return _centred(norm, (reciprocal * (scaled - standard * along)).sum(dim=0))


@torch.no_grad()
def through_projection_and_norm(
    norm: Norm,
    weight: Float[Tensor, "reader d_head d_model"],
    x: Float[Tensor, "step batch position d_model"],
    gradient: Float[Tensor, "step batch position reader d_head"],
) -> Float[Tensor, "reader batch position d_model"]:
    r"""As :func:`through_norm`, from gradients at the outputs of linear maps that read the norm's output.

    A reader's g is W^T g_out. The two terms of the Jacobian are summed over the steps before they are spread over
    d_model: sum_k W^T (r_k g_k), and sum_k s_k c_k with the scalar c_k = r_k g_k . W (w s_k) / d_model.
    """
    _, batch, position, d_model = x.shape
    standard, reciprocal = norm.standardise(x)
    gained = weight.to(x.dtype) * norm.gain.to(x.dtype)
    scaled = gradient * reciprocal[..., None]
    projected = (standard @ gained.flatten(0, 1).T).view(scaled.shape)
    along = (scaled * projected).sum(dim=-1) / d_model
    radial = torch.einsum("sbpr,sbpd->rbpd", along, standard)
    summed = scaled.sum(dim=0).movedim(-2, 0).flatten(1, 2)
    direct = torch.bmm(summed, gained).unflatten(1, (batch, position))
    return _centred(norm, direct - radial)


def _centred(norm: Norm, gradient: Tensor) -> Tensor:
    return gradient - gradient.mean(dim=-1, keepdim=True) if norm.centred else gradient
