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

from circuitdrift.decoder.architecture import Architecture, Fused, Settings
from circuitdrift.decoder.architectures import architecture_of, why_unsupported
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
        gain_offset: what is added to the module's weight to get the gain.
    """

    module: nn.Module
    centred: bool
    epsilon: float
    gain_offset: float = 0.0

    @property
    def gain(self) -> Float[Tensor, " d_model"] | Float[Tensor, ""]:
        """The factor of each dimension; the number 1 for a norm without factors."""
        weight = cast(Tensor | None, getattr(self.module, "weight", None))
        if weight is None:
            return torch.ones(())
        if not self.gain_offset:
            return weight
        # In bfloat16 the sum would lose bits that the weight has.
        return weight.to(torch.promote_types(weight.dtype, torch.float32)) + self.gain_offset

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
        module: the linear layer; some architectures, such as GPT-2, have one layer for all three.
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

    Attributes:
        attention_norm: norm before the projections; None where they read the residual stream itself.
        attention: the module that holds the projections.
        query: the projection to queries.
        key: the projection to keys.
        value: the projection to values.
        output: the output projection.
        post_norm: RMSNorm of the heads' sum behind the output projection; None where the sum is written as it is.
        joint_key_norm: norm over the keys of all heads together; None where there is none.
        mlp_norm: the norm before the MLP; the attention's where both read one output; None where the MLP reads the
            residual stream itself.
        mlp_input: the module whose input is the stream that the MLP reads: its norm, or the MLP itself without one.
        mlp: the module whose output the MLP writes to the residual stream: its norm where one follows it, and in OPT,
            which has no module for the whole MLP, its last linear map.
        multiplier: what the block multiplies the outputs of heads and MLP by before it adds them to the stream.
        in_place: whether the block changes in place what its projections or its MLP return.
    """

    attention_norm: Norm | None
    attention: nn.Module
    query: Projection
    key: Projection
    value: Projection
    output: nn.Linear | Conv1D
    post_norm: Norm | None
    joint_key_norm: nn.Module | None
    mlp_norm: Norm | None
    mlp_input: nn.Module
    mlp: nn.Module
    multiplier: float = 1.0
    in_place: bool = False

    @property
    def reads_apart(self) -> nn.Module | None:
        """The module whose input the MLP alone reads, where no norm has an output for the MLP alone; None elsewhere."""
        if self.mlp_norm is None:
            return self.mlp_input
        shared = self.attention_norm is not None and self.attention_norm.module is self.mlp_norm.module
        return self.mlp if shared else None

    @property
    def projections(self) -> dict[str, Projection]:
        """The projections by the name of the head's input that they read."""
        return {"q": self.query, "k": self.key, "v": self.value}

    @property
    def attention_input(self) -> nn.Module:
        """The module whose input is the stream that the heads read: their norm, or the map to queries without one."""
        return self.query.module if self.attention_norm is None else self.attention_norm.module

    @property
    def projections_by_module(self) -> dict[nn.Module, dict[str, Projection]]:
        """The projections by the module that computes them: one module for all three, or one for each."""
        modules: dict[nn.Module, dict[str, Projection]] = {}
        for which, projection in self.projections.items():
            modules.setdefault(projection.module, {})[which] = projection
        return modules

    def output_weight(self) -> Float[Tensor, "d_model d_attention"]:
        """What the heads' values are multiplied by on their way to the residual stream.

        That is the output projection, and the gain of the post-norm or the block's multiplier where there is one.
        """
        weight = oriented_weight(self.output)
        if self.post_norm is not None:
            weight = weight * self.post_norm.gain[:, None]
        return weight if self.multiplier == 1 else weight * self.multiplier

    def output_bias(self) -> Float[Tensor, " d_model"] | None:
        """What the attention writes to the residual stream besides its heads; None where this is nothing."""
        bias: Tensor | None = self.output.bias
        return bias if bias is None or self.multiplier == 1 else bias * self.multiplier

    def written_by_mlp(self, output: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """What the MLP writes to the residual stream, from its output, which the block may change later."""
        if self.multiplier != 1:
            return output * self.multiplier
        return output.clone() if self.in_place else output


@dataclass(frozen=True)
class Anatomy:
    """A decoder taken apart; every part is the model's own module.

    Attributes:
        model: the model.
        backbone: its part from embeddings to the final norm's output.
        embedding: the token embedding.
        embedding_norm: the norm between the token embedding and the residual stream; None without one.
        blocks: the layers.
        final_norm: the norm before the unembedding.
        unembedding: the map from the final norm's output to the logits, or to what the model makes them of.
        graph: the computation graph.
        d_head: width of a head.
        longest: number of tokens up to which a token's position is encoded the same in sequences of any length; None
            for no bound.
    """

    model: PreTrainedModel
    backbone: nn.Module
    embedding: nn.Embedding
    blocks: tuple[Block, ...]
    final_norm: Norm
    unembedding: nn.Module
    graph: Graph
    d_head: int
    embedding_norm: nn.Module | None = None
    longest: int | None = None

    def embed(self, token_ids: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows d_model"]:
        """Token embeddings as passes of the engine start from: after the norm of embeddings, if there is one."""
        embeddings: Tensor = self.embedding(token_ids)
        return embeddings if self.embedding_norm is None else self.embedding_norm(embeddings)

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
        named = (norm for block in self.blocks for norm in (block.attention_norm, block.mlp_norm, block.post_norm))
        kinds = {type(norm.module) for norm in (*named, self.final_norm) if norm is not None}
        architecture = architecture_of(type(self.model).__name__, self.model.config.to_dict())
        return tuple(_norm(module, architecture) for module in self.backbone.modules() if type(module) in kinds)

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
    return _take_apart(model, architecture_of(type(model).__name__, model.config.to_dict()))


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
        final_norm=_norm(backbone.get_submodule(architecture.final_norm), architecture),
        unembedding=model.get_output_embeddings(),
        graph=Graph(len(blocks), n_heads, parallel=architecture.parallel(model.config.to_dict())),
        d_head=blocks[0].query.rows.shape[1],
        embedding_norm=backbone.get_submodule(architecture.embedding_norm) if architecture.embedding_norm else None,
        longest=_longest_sequence(model.config.to_dict()),
    )


def _longest_sequence(settings: Settings) -> int | None:
    """The length from which on rotary frequencies depend on the length of the sequence; None where they never do."""
    rotary = settings.get("rope_parameters") or {}
    if rotary.get("rope_type") not in ("longrope", "dynamic"):
        return None
    return int(rotary.get("original_max_position_embeddings") or settings["max_position_embeddings"])


def _block(layer: nn.Module, architecture: Architecture, n_heads: int) -> Block:
    attention = layer.get_submodule(architecture.attention)
    output = cast(nn.Linear, attention.get_submodule(architecture.output))
    if isinstance(architecture.projections, Fused):
        d_attention = oriented_weight(output).shape[1]
        query, key, value = _fused_projections(attention, architecture.projections, n_heads, d_attention // n_heads)
    else:
        query, key, value = _separate_projections(attention, architecture.projections, n_heads)

    def norm(path: str | None) -> Norm | None:
        return None if path is None else _norm(layer.get_submodule(path), architecture)

    joint = architecture.joint_key_norm
    return Block(
        attention_norm=norm(architecture.attention_norm),
        attention=attention,
        query=query,
        key=key,
        value=value,
        output=output,
        post_norm=norm(architecture.post_norm),
        joint_key_norm=None if joint is None else attention.get_submodule(joint),
        mlp_norm=norm(architecture.mlp_norm),
        mlp_input=layer.get_submodule(architecture.mlp_norm or architecture.mlp_input),
        mlp=layer.get_submodule(architecture.mlp),
        multiplier=architecture.multiplier,
        in_place=architecture.in_place,
    )


def _fused_projections(attention: nn.Module, fused: Fused, n_heads: int, d_head: int) -> list[Projection]:
    """The projections to q, k and v from one linear map; query heads may share keys and values in groups."""
    module = cast(nn.Linear, attention.get_submodule(fused.path))
    n_vectors = len(oriented_weight(module)) // d_head
    n_groups = (n_vectors - n_heads) // 2
    vectors = torch.arange(n_vectors)
    if fused.axes[0] == "projection":
        parts = list(vectors.split([n_heads, n_groups, n_groups]))
        first, step = [0, n_heads, 2 * n_heads], 1
    else:
        by_group = vectors.view(n_groups, -1)
        parts = [by_group[:, :-2].flatten(), by_group[:, -2], by_group[:, -1]]
        first, step = [0, 1, 2], 3
    projections = []
    for vector_of_head, start in zip(parts, first, strict=True):
        of_query_heads = vector_of_head.repeat_interleave(n_heads // len(vector_of_head))
        rows = (of_query_heads[:, None] * d_head + torch.arange(d_head)).to(module.weight.device)
        projections.append(Projection(module, rows, start * d_head, step * d_head, shared=n_groups < n_heads))
    return projections


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


def _norm(module: nn.Module, architecture: Architecture) -> Norm:
    """A torch LayerNorm, or a norm of the form that the architecture declares."""
    if isinstance(module, nn.LayerNorm):
        return Norm(module, centred=True, epsilon=module.eps, gain_offset=architecture.gain_offset)
    named = getattr(module, "variance_epsilon", getattr(module, "eps", architecture.epsilon))
    return Norm(module, architecture.centred, float(cast(float, named)), architecture.gain_offset)
