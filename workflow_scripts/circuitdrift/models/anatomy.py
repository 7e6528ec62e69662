"""Where an architecture keeps its parts: the description that the circuit engine needs of a decoder.

The engine runs the unmodified Hugging Face model and hooks into it. What it must know is declared here for each
architecture: the embedding, and for each block its norms, the projections to queries, keys and values (and which of
their rows belong to which head), the output projection and the MLP; then the final norm and the unembedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GPTNeoXForCausalLM, LlamaForCausalLM, PreTrainedModel

from circuitdrift.circuits.graph import Graph


class AnatomyError(ValueError):
    """A model that the circuit engine cannot take apart; the message names the architecture and the reason."""


@dataclass(frozen=True)
class Norm:
    """A LayerNorm (centred, with a bias) or an RMSNorm (neither).

    Attributes:
        module: the model's own module.
        centred: whether the mean over d_model is subtracted.
        epsilon: what is added to the variance (or mean square) before the root.
    """

    module: nn.Module
    centred: bool
    epsilon: float

    @property
    def gain(self) -> Float[Tensor, " d_model"]:
        """The factor of each dimension."""
        return self.module.get_parameter("weight")

    def standardise(
        self, x: Float[Tensor, "*rows d_model"]
    ) -> tuple[Float[Tensor, "*rows d_model"], Float[Tensor, "*rows 1"]]:
        """The input before gain and bias are applied, and the reciprocal of the scale that it was divided by."""
        if self.centred:
            x = x - x.mean(dim=-1, keepdim=True)
        reciprocal = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.epsilon)
        return x * reciprocal, reciprocal


@dataclass(frozen=True)
class Projection:
    """The map to queries, keys or values in one block.

    Attributes:
        module: the linear layer; GPT-NeoX has one for all three.
        rows: the rows of its weight that make each query head's vector. With grouped-query attention, heads of one
            group have the same rows in the key and value projections.
        columns: where each head's vector stands in the output that attention is given, once keys and values are
            repeated for each query head (:func:`circuitdrift.models.tracing.one_key_per_query_head`).
        shared: whether several heads share rows, so that the output has to be repeated.
    """

    module: nn.Linear
    rows: Int[Tensor, "head d_head"]
    columns: Int[Tensor, "head d_head"]
    shared: bool

    def weight(self) -> Float[Tensor, "head d_head d_model"]:
        """Each head's slice of the weight."""
        return self.module.weight[self.rows]

    def bias(self) -> Float[Tensor, "head d_head"] | None:
        """Each head's slice of the bias, if there is one."""
        return None if self.module.bias is None else self.module.bias[self.rows]


@dataclass(frozen=True)
class Block:
    """One layer: attention norm, attention with its projections, MLP norm, MLP."""

    attention_norm: Norm
    attention: nn.Module
    query: Projection
    key: Projection
    value: Projection
    output: nn.Linear
    mlp_norm: Norm
    mlp: nn.Module

    @property
    def projections(self) -> dict[str, Projection]:
        """The projections by the name of the head's input that they read."""
        return {"q": self.query, "k": self.key, "v": self.value}


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
        """Where the weights are."""
        return self.embedding.weight.device

    @property
    def accumulation_dtype(self) -> torch.dtype:
        """The dtype of differences, gradients and their products: the weights', but at least float32."""
        return torch.promote_types(self.embedding.weight.dtype, torch.float32)


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """Describe a model.

    Raises:
        AnatomyError: the architecture is not supported, or the model is in training mode.
    """
    describe = _DESCRIPTIONS.get(type(model).__name__)
    if describe is None:
        supported = ", ".join(sorted(_DESCRIPTIONS))
        raise AnatomyError(
            f"{type(model).__name__} (model_type '{model.config.model_type}'): no circuits of this architecture yet, "
            f"because nobody has described where it keeps its heads, norms and MLPs; supported are {supported}"
        )
    if model.training:
        raise AnatomyError(f"{type(model).__name__} is in training mode, where dropout makes runs differ; call .eval()")
    return describe(model)


def _gpt_neox(model: GPTNeoXForCausalLM) -> Anatomy:
    """GPT-NeoX and Pythia: one projection for q, k and v, whose rows go head by head, and within a head q, k, v."""
    config, backbone = model.config, model.gpt_neox
    n_heads = config.num_attention_heads
    d_head = config.hidden_size // n_heads
    rows = torch.arange(3 * config.hidden_size, device=backbone.embed_in.weight.device).view(n_heads, 3, d_head)
    blocks = []
    for layer in backbone.layers:
        fused = layer.attention.query_key_value
        query, key, value = (Projection(fused, rows[:, i], rows[:, i], shared=False) for i in range(3))
        blocks.append(
            Block(
                attention_norm=_layer_norm(layer.input_layernorm),
                attention=layer.attention,
                query=query,
                key=key,
                value=value,
                output=layer.attention.dense,
                mlp_norm=_layer_norm(layer.post_attention_layernorm),
                mlp=layer.mlp,
            )
        )
    return Anatomy(
        model=model,
        backbone=backbone,
        embedding=backbone.embed_in,
        blocks=tuple(blocks),
        final_norm=_layer_norm(backbone.final_layer_norm),
        unembedding=model.get_output_embeddings(),
        graph=Graph(config.num_hidden_layers, n_heads, parallel=config.use_parallel_residual),
        d_head=d_head,
    )


def _llama(model: LlamaForCausalLM) -> Anatomy:
    """The Llama family: separate projections, keys and values perhaps shared by a group of query heads."""
    config, backbone = model.config, model.model
    n_heads, n_groups = config.num_attention_heads, config.num_key_value_heads
    d_head = backbone.layers[0].self_attn.head_dim
    columns = torch.arange(n_heads * d_head, device=backbone.embed_tokens.weight.device).view(n_heads, d_head)
    shared_rows = columns[:n_groups].repeat_interleave(n_heads // n_groups, dim=0)
    shared = n_groups < n_heads
    blocks = []
    for layer in backbone.layers:
        attention = layer.self_attn
        blocks.append(
            Block(
                attention_norm=_rms_norm(layer.input_layernorm),
                attention=attention,
                query=Projection(attention.q_proj, columns, columns, shared=False),
                key=Projection(attention.k_proj, shared_rows, columns, shared=shared),
                value=Projection(attention.v_proj, shared_rows, columns, shared=shared),
                output=attention.o_proj,
                mlp_norm=_rms_norm(layer.post_attention_layernorm),
                mlp=layer.mlp,
            )
        )
    return Anatomy(
        model=model,
        backbone=backbone,
        embedding=backbone.embed_tokens,
        blocks=tuple(blocks),
        final_norm=_rms_norm(backbone.norm),
        unembedding=model.get_output_embeddings(),
        graph=Graph(config.num_hidden_layers, n_heads, parallel=False),
        d_head=d_head,
    )


def _layer_norm(module: nn.LayerNorm) -> Norm:
    return Norm(module, centred=True, epsilon=module.eps)


def _rms_norm(module: nn.Module) -> Norm:
    return Norm(module, centred=False, epsilon=float(module.variance_epsilon))  # type: ignore[arg-type]


_DESCRIPTIONS: dict[str, Callable[..., Anatomy]] = {
    GPTNeoXForCausalLM.__name__: _gpt_neox,
    LlamaForCausalLM.__name__: _llama,
}
