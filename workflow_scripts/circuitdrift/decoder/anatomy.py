"""The anatomy of a decoder: the parts that the circuit engine hooks into.

The engine runs the unmodified Hugging Face model. It needs the embedding, and for each block the norms, the
projections to queries, keys and values with the rows of each head, the output projection and the MLP; then the final
norm and the unembedding. :mod:`circuitdrift.decoder.architectures` declares where each architecture keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from circuitdrift.decoder.architectures import ARCHITECTURES, Architecture, Fused, why_unsupported
from circuitdrift.decoder.graph import Graph
from circuitdrift.errors import CircuitDriftError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AnatomyError(CircuitDriftError):
    """A model that the circuit engine does not support; the message names the architecture and the reason."""


@dataclass(frozen=True)
class Norm:
    """A LayerNorm (centred, perhaps with a bias) or an RMSNorm (neither).

    Attributes:
        module: the model's own module.
        centred: whether the mean over d_model is subtracted.
        epsilon: constant added to the variance (or mean square) before the root.
    """

    module: nn.Module
    centred: bool
    epsilon: float

    @property
    def gain(self) -> Float[Tensor, " d_model"] | Float[Tensor, ""]:
        """The factor of each dimension; the number 1 for a norm without factors."""
        weight = cast(Tensor | None, self.module.weight)
        return torch.ones(()) if weight is None else weight

    def standardise(
        self, x: Float[Tensor, "*rows d_model"]
    ) -> tuple[Float[Tensor, "*rows d_model"], Float[Tensor, "*rows 1"]]:
        """The standardised input, before gain and bias, and the reciprocal of its scale."""
        if self.centred:
            x = x - x.mean(dim=-1, keepdim=True)
        reciprocal = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.epsilon)
        return x * reciprocal, reciprocal


def oriented_weight(module: nn.Linear | Conv1D) -> Float[Tensor, "d_out d_in"]:
    """The weight of a linear map; GPT-2's ``Conv1D`` stores it as [d_in, d_out]."""
    weight: Tensor = module.weight.T if isinstance(module, Conv1D) else module.weight
    return weight


@dataclass(frozen=True)
class Projection:
    """The map to queries, keys or values in one block.

    Attributes:
        module: the linear layer; GPT-NeoX and GPT-2 have one layer for all three.
        rows: rows of its weight [d_out, d_in] that produce each query head's vector. With grouped-query attention,
            heads of one group have the same rows in the key and value projections.
        first: first column of the first head's vector in the input of attention, after keys and values are repeated
            for each query head (:func:`circuitdrift.decoder.tracing.one_key_per_query_head`).
        step: columns from one head's vector to the next one's.
        shared: whether several heads share rows, so that the output must be repeated.
    """

    module: nn.Linear | Conv1D
    rows: Int[Tensor, "head d_head"]
    first: int
    step: int
    shared: bool

    def by_head(self, attention_input: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows head d_head"]:
        """Each head's vector in the input of attention, or in a gradient at it: a view, for reading and writing."""
        n_heads, d_head = self.rows.shape
        last = self.first + (n_heads - 1) * self.step + d_head
        vectors: Tensor = attention_input[..., self.first : last].unfold(-1, d_head, self.step)
        return vectors

    def weight(self) -> Float[Tensor, "head d_head d_model"]:
        """Each head's slice of the weight."""
        return oriented_weight(self.module)[self.rows]

    def bias(self) -> Float[Tensor, "head d_head"] | None:
        """Each head's slice of the bias; None without a bias."""
        return None if self.module.bias is None else self.module.bias[self.rows]


@dataclass(frozen=True)
class Block:
    """One layer: attention norm, attention with its projections, MLP norm, MLP.

    ``mlp`` is the module whose output the MLP writes to the residual stream: OPT, which has no module for the whole
    MLP, has its last linear map here.
    """

    attention_norm: Norm
    attention: nn.Module
    query: Projection
    key: Projection
    value: Projection
    output: nn.Linear | Conv1D
    mlp_norm: Norm
    mlp: nn.Module

    @property
    def projections(self) -> dict[str, Projection]:
        """The projections by the name of the head's input that they read."""
        return {"q": self.query, "k": self.key, "v": self.value}

    def output_weight(self) -> Float[Tensor, "d_model d_attention"]:
        """The weight of the output projection."""
        return oriented_weight(self.output)


@dataclass(frozen=True)
class Anatomy:
    """A decoder taken apart; every part is the model's own module."""

    model: PreTrainedModel
    backbone: nn.Module
    embedding: nn.Embedding
    blocks: tuple[Block, ...]
    final_norm: Norm
    unembedding: nn.Module
    graph: Graph
    d_head: int

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights and of the passes."""
        return self.embedding.weight.dtype

    def norms(self) -> tuple[Norm, ...]:
        """Every norm of the model, each once; those inside attention, as of queries and keys, are among them."""
        kinds = {type(norm.module) for block in self.blocks for norm in (block.attention_norm, block.mlp_norm)}
        kinds.add(type(self.final_norm.module))
        return tuple(_norm(module) for module in self.backbone.modules() if type(module) in kinds)

    @property
    def accumulation_dtype(self) -> torch.dtype:
        """Dtype of differences, gradients and their products: that of the weights, but at least float32."""
        return torch.promote_types(self.dtype, torch.float32)


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """Find the parts of a model.

    Raises:
        AnatomyError: the architecture or one of its options is not supported, or the model is in training mode.
    """
    name = f"{type(model).__name__} (model_type '{model.config.model_type}')"
    if reason := why_unsupported(type(model).__name__, model.config.to_dict()):
        raise AnatomyError(f"{name}: {reason}")
    if model.training:
        raise AnatomyError(f"{name} is in training mode, where dropout changes each pass; call .eval()")
    return _take_apart(model, ARCHITECTURES[type(model).__name__])


def _take_apart(model: PreTrainedModel, architecture: Architecture) -> Anatomy:
    n_heads = model.config.num_attention_heads
    backbone = model.get_submodule(architecture.backbone)
    layers = cast(nn.ModuleList, backbone.get_submodule(architecture.blocks))
    blocks = tuple(_block(layer, architecture, n_heads) for layer in layers)
    return Anatomy(
        model=model,
        backbone=backbone,
        embedding=cast(nn.Embedding, backbone.get_submodule(architecture.embedding)),
        blocks=blocks,
        final_norm=_norm(backbone.get_submodule(architecture.final_norm)),
        unembedding=model.get_output_embeddings(),
        graph=Graph(len(blocks), n_heads, parallel=architecture.parallel(model.config.to_dict())),
        d_head=blocks[0].query.rows.shape[1],
    )


def _block(layer: nn.Module, architecture: Architecture, n_heads: int) -> Block:
    attention = layer.get_submodule(architecture.attention)
    if isinstance(architecture.projections, Fused):
        query, key, value = _fused_projections(attention, architecture.projections, n_heads)
    else:
        query, key, value = _separate_projections(attention, architecture.projections, n_heads)
    return Block(
        attention_norm=_norm(layer.get_submodule(architecture.attention_norm)),
        attention=attention,
        query=query,
        key=key,
        value=value,
        output=cast(nn.Linear, attention.get_submodule(architecture.output)),
        mlp_norm=_norm(layer.get_submodule(architecture.mlp_norm)),
        mlp=layer.get_submodule(architecture.mlp),
    )


def _fused_projections(attention: nn.Module, fused: Fused, n_heads: int) -> list[Projection]:
    """The projections to q, k and v from one linear map, which has no groups."""
    module = cast(nn.Linear, attention.get_submodule(fused.path))
    d_out = len(oriented_weight(module))
    sizes = {"projection": 3, "head": n_heads, "d_head": d_out // (3 * n_heads)}
    rows = torch.arange(d_out, device=module.weight.device).view([sizes[axis] for axis in fused.axes])
    by_projection = rows.permute([fused.axes.index(axis) for axis in sizes])
    # On the meta device rows hold no numbers, so the places of the heads come from the axes.
    strides = {axis: int(stride) for axis, stride in zip(fused.axes, rows.stride(), strict=True)}
    return [
        Projection(module, of_heads, which * strides["projection"], strides["head"], shared=False)
        for which, of_heads in enumerate(by_projection)
    ]


def _separate_projections(attention: nn.Module, paths: tuple[str, str, str], n_heads: int) -> list[Projection]:
    """The projections to q, k and v from three linear maps; query heads may share keys and values in groups."""
    query, key, value = (cast(nn.Linear, attention.get_submodule(path)) for path in paths)
    columns = torch.arange(len(query.weight), device=query.weight.device).view(n_heads, -1)
    projections = []
    for module in (query, key, value):
        n_groups = len(module.weight) // columns.shape[1]
        rows = columns[:n_groups].repeat_interleave(n_heads // n_groups, dim=0)
        projections.append(Projection(module, rows, 0, columns.shape[1], shared=n_groups < n_heads))
    return projections


def _norm(module: nn.Module) -> Norm:
    """A torch LayerNorm, or an RMSNorm in the form that all other supported architectures have."""
    if isinstance(module, nn.LayerNorm):
        return Norm(module, centred=True, epsilon=module.eps)
    return Norm(module, centred=False, epsilon=float(cast(float, module.variance_epsilon)))
