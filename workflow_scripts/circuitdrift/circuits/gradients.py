r"""Gradients of an objective with respect to every reader's input, without gradients of parameters.

Gradients are taken only at the outputs of the q, k and v projections and of the norms before MLP and head. A reader's
input gradient follows through its rows of the projection and the norm's Jacobian, which is written out below. Several
passes over a batch, such as the steps of an integral, run as one. Only the sum over the passes is needed, so it is
taken before gradients are spread over the readers. Formulas: docs/method.md#attribution. Rules can replace derivatives
(:mod:`circuitdrift.circuits.backward_rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuitdrift.circuits.backward_rules import PLAIN_GRADIENTS, BackwardRules
from circuitdrift.decoder.anatomy import Anatomy, Block, Norm
from circuitdrift.decoder.tracing import AfterHook, BeforeHook, Prefix, hooked, logits_after

Loss = Callable[[Float[Tensor, "pass batch answer vocabulary"]], Float[Tensor, "pass batch"]]


@dataclass(frozen=True)
class BlockGradients:
    """The inputs of one block's norms in several passes, and the objective's gradients behind them.

    Attributes:
        attention_input: the residual stream that the heads read, before their norm.
        heads: gradients at the outputs of the projections, in the order of the graph's readers: q of all heads, then
            k, then v.
        projected: the outputs themselves, in the same order.
        mlp_input: the residual stream that the MLP reads, before its norm.
        mlp: gradient at the output of the MLP norm, or at the MLP's input without a norm, through the MLP alone.
    """

    attention_input: Float[Tensor, "pass batch position d_model"]
    heads: Float[Tensor, "pass batch position reader d_head"]
    projected: Float[Tensor, "pass batch position reader d_head"]
    mlp_input: Float[Tensor, "pass batch position d_model"]
    mlp: Float[Tensor, "pass batch position d_model"]


@dataclass(frozen=True)
class PassGradients:
    """Gradients of several passes.

    Attributes:
        blocks: gradients of each block.
        final_input: input of the final norm at the positions to which the head is applied.
        final: gradients at its output; at all other positions they are zero.
        norms_are_frozen: whether they go on through norms whose scale counts as a constant.
    """

    blocks: tuple[BlockGradients, ...]
    final_input: Float[Tensor, "pass batch answer d_model"]
    final: Float[Tensor, "pass batch answer d_model"]
    norms_are_frozen: bool = False

    def of_pass(self, k: int) -> PassGradients:
        """The gradients of the k-th pass alone."""
        one = slice(k, k + 1)
        blocks = tuple(
            BlockGradients(
                attention_input=block.attention_input[one],
                heads=block.heads[one],
                projected=block.projected[one],
                mlp_input=block.mlp_input[one],
                mlp=block.mlp[one],
            )
            for block in self.blocks
        )
        return PassGradients(blocks, self.final_input[one], self.final[one], self.norms_are_frozen)


@dataclass(frozen=True)
class Intervention:
    """Hooks on the inputs and on the outputs of modules, which change a pass or watch it."""

    before: Sequence[tuple[nn.Module, BeforeHook]] = ()
    after: Sequence[tuple[nn.Module, AfterHook]] = ()


def pass_gradients(
    anatomy: Anatomy,
    embeddings: Float[Tensor, "pass batch position d_model"],
    prefix: Prefix,
    n_answer: int,
    loss: Loss,
    intervention: Intervention,
    rules: BackwardRules = PLAIN_GRADIENTS,
) -> PassGradients:
    """Run all passes as one batch and take the gradients of their objectives; rows of a batch do not interact.

    Args:
        anatomy: the model.
        embeddings: token embeddings of the passes, after the prefix.
        prefix: the tokens before them, which all passes share.
        n_answer: number of last positions to which the head is applied.
        loss: the objective of each example in each pass, from the logits at these positions.
        intervention: changes to the passes; no gradient flows through a value that it sets.
        rules: changes to the derivatives.
    """
    read: dict[nn.Module, Tensor] = {}
    watched: dict[nn.Module, Tensor] = {}
    readers = [anatomy.final_norm.module]
    outputs = [anatomy.final_norm.module]
    inputs: list[nn.Module] = []
    changed_in_place: set[nn.Module] = set()
    for block in anatomy.blocks:
        readers += [block.attention_input, block.mlp_input]
        outputs += block.projections_by_module
        if block.in_place:
            changed_in_place.update(block.projections_by_module)
        if block.reads_apart is None:
            outputs.append(block.mlp_input)
        else:
            inputs.append(block.reads_apart)
    shape = embeddings.shape

    def watch_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # A tensor of its own: the gradient at the stream or at the norm's output would include other ways than the MLP.
        watched[module] = args[0].view_as(args[0])
        return (watched[module], *args[1:])

    def watch_output(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        watched[module] = output
        return output.clone() if module in changed_in_place else None

    with (
        torch.enable_grad(),
        hooked(intervention.before, intervention.after),
        hooked(rules.before, rules.after),
        hooked(
            before=[
                *((module, lambda module, args: read.update({module: args[0].detach()})) for module in readers),
                *((module, watch_input) for module in inputs),
            ],
            after=[(module, watch_output) for module in outputs],
        ),
        hooked(after=rules.after_readers),
        rules.in_attention(anatomy),
    ):
        logits = logits_after(anatomy, prefix, embeddings.flatten(0, 1).detach().requires_grad_(True), n_answer)
        objective = loss(logits.unflatten(0, shape[:2])).sum()
        found = torch.autograd.grad(objective, list(watched.values()), materialize_grads=True)
        gradients = dict(zip(watched, found, strict=True))

    def streams(tensor: Tensor) -> Tensor:
        return tensor.reshape(*shape[:3], tensor.shape[-1])

    blocks = []
    for block in anatomy.blocks:
        projections_of_block = block.projections.values()
        heads, projected = (
            torch.cat([projection.by_head(found[projection.module]) for projection in projections_of_block], dim=-2)
            for found in (gradients, watched)
        )
        blocks.append(
            BlockGradients(
                attention_input=streams(read[block.attention_input]),
                heads=heads.unflatten(0, shape[:2]),
                projected=projected.detach().unflatten(0, shape[:2]),
                mlp_input=streams(read[block.mlp_input]),
                mlp=streams(gradients[block.reads_apart or block.mlp_input]),
            )
        )
    final = anatomy.final_norm.module
    last = slice(-n_answer, None)
    return PassGradients(
        tuple(blocks),
        streams(read[final])[:, :, last],
        streams(gradients[final])[:, :, last],
        rules.norms_are_frozen,
    )


def reader_gradients(
    anatomy: Anatomy, gradients: PassGradients
) -> Iterator[tuple[slice, int, Float[Tensor, "reader batch position d_model"]]]:
    """Input gradients of all readers, summed over the passes.

    Yields:
        Indices of some readers, the number of writers before them, and their gradients. ``logits`` reads the last
        positions only, and its gradient has no others.
    """
    graph, dtype = anatomy.graph, anatomy.accumulation_dtype
    through = through_frozen_norm if gradients.norms_are_frozen else through_norm
    for layer, (block, behind) in enumerate(zip(anatomy.blocks, gradients.blocks, strict=True)):
        heads = _input_gradients_of_heads(anatomy, block, behind, gradients.norms_are_frozen)
        yield graph.head_readers(layer), graph.n_writers_before_heads(layer), heads
        mlp = through(block.mlp_norm, behind.mlp_input.to(dtype), behind.mlp.to(dtype))
        reader = graph.mlp_reader(layer)
        yield slice(reader, reader + 1), graph.n_writers_before_mlp(layer), mlp[None]
    logits = through(anatomy.final_norm, gradients.final_input.to(dtype), gradients.final.to(dtype))
    yield slice(graph.n_readers - 1, graph.n_readers), graph.n_writers, logits[None]


def _input_gradients_of_heads(
    anatomy: Anatomy, block: Block, behind: BlockGradients, norms_are_frozen: bool
) -> Float[Tensor, "reader batch position d_model"]:
    dtype, norm = anatomy.accumulation_dtype, block.attention_norm
    weight = torch.cat([projection.weight() for projection in block.projections.values()])
    x, gradient = behind.attention_input.to(dtype), behind.heads.to(dtype)
    if norm is None:
        return through_projection(weight, gradient)
    if norms_are_frozen:
        return through_projection_and_frozen_norm(norm, weight, x, gradient)
    if anatomy.dtype == dtype:
        projected = behind.projected - constants_of_projections(block, weight)
    else:  # the outputs are rounded, and a large constant would leave little of them
        projected = project_standardised(norm, weight, x)
    return through_projection_and_norm(norm, weight, x, gradient, projected)


@torch.no_grad()
def through_norm(
    norm: Norm | None,
    x: Float[Tensor, "pass batch position d_model"],
    gradient: Float[Tensor, "pass batch position d_model"],
) -> Float[Tensor, "batch position d_model"]:
    r"""Push a gradient at a norm's output back to its input, at the input of each pass, and sum over the passes.

    With the standardised input s = (x - mean) r (RMSNorm: no mean), output w s + b and g' = w g:
    dL/dx = r (g' - mean(g') - s mean(s g')), the means over d_model, mean(g') for LayerNorm only. Without a norm it
    is g itself.
    """
    if norm is None:
        return gradient.sum(dim=0)
    standard, reciprocal = norm.standardise(x)
    scaled = gradient * norm.gain.to(gradient.dtype)
    along = (standard * scaled).mean(dim=-1, keepdim=True)
    return _centred(norm, (reciprocal * (scaled - standard * along)).sum(dim=0))


@torch.no_grad()
def through_projection(
    weight: Float[Tensor, "reader d_head d_model"], gradient: Float[Tensor, "pass batch position reader d_head"]
) -> Float[Tensor, "reader batch position d_model"]:
    """W^T g of each reader, summed over the passes."""
    summed = gradient.sum(dim=0).movedim(-2, 0).flatten(1, 2)
    return torch.bmm(summed, weight.to(summed.dtype)).unflatten(1, gradient.shape[1:3])


@torch.no_grad()
def through_projection_and_norm(
    norm: Norm,
    weight: Float[Tensor, "reader d_head d_model"],
    x: Float[Tensor, "pass batch position d_model"],
    gradient: Float[Tensor, "pass batch position reader d_head"],
    projected: Float[Tensor, "pass batch position reader d_head"],
) -> Float[Tensor, "reader batch position d_model"]:
    r"""As :func:`through_norm`, from gradients at the outputs of linear maps that read the norm's output.

    A reader's g is W^T g_out. Both terms of the Jacobian are summed over the passes before they are spread over
    d_model: sum_k W^T (r_k g_k), and sum_k s_k c_k with the scalar c_k = r_k g_k . W (w s_k) / d_model, in which
    ``projected`` is W (w s_k).
    """
    standard, reciprocal = norm.standardise(x)
    scaled = gradient * reciprocal[..., None]
    along = (scaled * projected).sum(dim=-1) / x.shape[-1]
    radial = torch.einsum("sbpr,sbpd->rbpd", along, standard)
    gained = weight.to(scaled.dtype) * norm.gain.to(scaled.dtype)
    return _centred(norm, through_projection(gained, scaled) - radial)


@torch.no_grad()
def through_frozen_norm(
    norm: Norm | None,
    x: Float[Tensor, "pass batch position d_model"],
    gradient: Float[Tensor, "pass batch position d_model"],
) -> Float[Tensor, "batch position d_model"]:
    r"""As :func:`through_norm`, with the norm's scale as a constant: dL/dx = r (g' - mean(g'))."""
    if norm is None:
        return gradient.sum(dim=0)
    _, reciprocal = norm.standardise(x)
    return _centred(norm, (reciprocal * gradient * norm.gain.to(gradient.dtype)).sum(dim=0))


@torch.no_grad()
def through_projection_and_frozen_norm(
    norm: Norm,
    weight: Float[Tensor, "reader d_head d_model"],
    x: Float[Tensor, "pass batch position d_model"],
    gradient: Float[Tensor, "pass batch position reader d_head"],
) -> Float[Tensor, "reader batch position d_model"]:
    """As :func:`through_projection_and_norm`, with the norm's scale as a constant."""
    _, reciprocal = norm.standardise(x)
    gained = weight.to(x.dtype) * norm.gain.to(x.dtype)
    return _centred(norm, through_projection(gained, gradient * reciprocal[..., None]))


@torch.no_grad()
def project_standardised(
    norm: Norm, weight: Float[Tensor, "reader d_head d_model"], x: Float[Tensor, "pass batch position d_model"]
) -> Float[Tensor, "pass batch position reader d_head"]:
    """W (w s): what linear maps make of the standardised input with its gain, without any bias."""
    gained = weight.to(x.dtype) * norm.gain.to(x.dtype)
    return (norm.standardise(x)[0] @ gained.flatten(0, 1).T).unflatten(-1, gained.shape[:2])


@torch.no_grad()
def constants_of_projections(
    block: Block, weight: Float[Tensor, "reader d_head d_model"]
) -> Float[Tensor, "reader d_head"]:
    """What the biases of norm and projections add to the outputs: W b and the projections' own."""
    constants = torch.cat(
        [
            torch.zeros_like(projection.rows, dtype=weight.dtype) if bias is None else bias
            for projection in block.projections.values()
            for bias in [projection.bias()]
        ]
    )
    of_norm = None if block.attention_norm is None else getattr(block.attention_norm.module, "bias", None)
    return constants if of_norm is None else constants + weight @ of_norm


def _centred(norm: Norm, gradient: Tensor) -> Tensor:
    return gradient - gradient.mean(dim=-1, keepdim=True) if norm.centred else gradient
