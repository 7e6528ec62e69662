"""Where each supported architecture keeps its parts, by the paths of its modules, and which of its options do not fit.

What is not declared is read off the model (:mod:`circuitdrift.decoder.anatomy`): the number of blocks, the width of a
head and the groups of its keys and values from the shapes, LayerNorm or RMSNorm and the orientation of a weight from
the modules' types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from transformers import PretrainedConfig


@dataclass(frozen=True)
class Fused:
    """One linear map for queries, keys and values.

    Attributes:
        path: where it is in the attention.
        axes: what its output dimensions count, the slowest first: ``projection`` (q, k, v), ``head``, ``d_head``.
    """

    path: str
    axes: tuple[str, str, str]


@dataclass(frozen=True)
class Limit:
    """An option of an architecture with which a model cannot be taken apart.

    Attributes:
        excludes: whether a configuration has it.
        reason: what it does, why that does not fit, and what to use instead.
    """

    excludes: Callable[[PretrainedConfig], bool]
    reason: str


@dataclass(frozen=True)
class Architecture:
    """Paths of a decoder's modules, and what else its configuration decides.

    Attributes:
        backbone: in the model: what turns embeddings into the final norm's output.
        embedding: in the backbone, as are the next two.
        blocks: the list of blocks.
        final_norm: the norm before the unembedding.
        attention_norm: in a block, as are the next and ``mlp_norm`` and ``mlp``.
        attention: the module that holds the projections.
        projections: in the attention: those to queries, keys and values, or the one for all three.
        output: in the attention: the output projection.
        mlp_norm: the norm before the MLP.
        mlp: the module whose output is what the MLP writes.
        mlp_output: in a block: the MLP's last linear map; its others read what the MLP reads.
        parallel: whether attention and MLP of a block both read the block's input.
        limits: options that are refused.
    """

    backbone: str
    embedding: str
    blocks: str
    final_norm: str
    attention_norm: str
    attention: str
    projections: tuple[str, str, str] | Fused
    output: str
    mlp_norm: str
    mlp: str
    mlp_output: str
    parallel: Callable[[PretrainedConfig], bool] = lambda config: False
    limits: tuple[Limit, ...] = ()


_SEPARATE = ("q_proj", "k_proj", "v_proj")

_GPT_NEOX = Architecture(
    backbone="gpt_neox",
    embedding="embed_in",
    blocks="layers",
    final_norm="final_layer_norm",
    attention_norm="input_layernorm",
    attention="attention",
    projections=Fused("query_key_value", ("head", "projection", "d_head")),
    output="dense",
    mlp_norm="post_attention_layernorm",
    mlp="mlp",
    mlp_output="mlp.dense_4h_to_h",
    parallel=lambda config: bool(config.use_parallel_residual),
)

_LLAMA = Architecture(
    backbone="model",
    embedding="embed_tokens",
    blocks="layers",
    final_norm="norm",
    attention_norm="input_layernorm",
    attention="self_attn",
    projections=_SEPARATE,
    output="o_proj",
    mlp_norm="post_attention_layernorm",
    mlp="mlp",
    mlp_output="mlp.down_proj",
)

_GPT2 = Architecture(
    backbone="transformer",
    embedding="wte",
    blocks="h",
    final_norm="ln_f",
    attention_norm="ln_1",
    attention="attn",
    projections=Fused("c_attn", ("projection", "head", "d_head")),
    output="c_proj",
    mlp_norm="ln_2",
    mlp="mlp",
    mlp_output="mlp.c_proj",
    limits=(
        Limit(
            lambda config: bool(config.add_cross_attention),
            "its blocks have cross-attention (add_cross_attention), and heads that read an encoder are no nodes of the "
            "graph; use a model without it",
        ),
    ),
)

_GPT_NEO = replace(_GPT2, attention="attn.attention", projections=_SEPARATE, output="out_proj", limits=())

_OPT = Architecture(
    backbone="model.decoder",
    embedding="embed_tokens",
    blocks="layers",
    final_norm="final_layer_norm",
    attention_norm="self_attn_layer_norm",
    attention="self_attn",
    projections=_SEPARATE,
    output="out_proj",
    mlp_norm="final_layer_norm",
    mlp="fc2",
    mlp_output="fc2",
    limits=(
        Limit(
            lambda config: not config.do_layer_norm_before,
            "it normalises the residual stream itself after attention and MLP (do_layer_norm_before is false, as in "
            "opt-350m), so that the stream is no sum of what the nodes write; use a pre-norm OPT, such as opt-125m or "
            "opt-1.3b",
        ),
        Limit(
            lambda config: config.word_embed_proj_dim != config.hidden_size,
            "its embeddings are projected between two widths (word_embed_proj_dim differs from hidden_size), so that "
            "neither embedding nor head stands at the residual stream; use an OPT with one width, such as opt-125m or "
            "opt-1.3b",
        ),
        Limit(
            lambda config: bool(config._remove_final_layer_norm),
            "it has no norm before the head (_remove_final_layer_norm), at whose input logits are read; use the "
            "checkpoint as converted by transformers 4.20.1 or later",
        ),
    ),
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "GPT2LMHeadModel": _GPT2,
        "GPTNeoForCausalLM": _GPT_NEO,
        "GPTNeoXForCausalLM": _GPT_NEOX,
        "LlamaForCausalLM": _LLAMA,
        "MistralForCausalLM": _LLAMA,
        "OPTForCausalLM": _OPT,
        "Qwen2ForCausalLM": _LLAMA,
        "Qwen3ForCausalLM": _LLAMA,
    }
)
"""By the name of the model's class; a class derived from one of them is another architecture."""
