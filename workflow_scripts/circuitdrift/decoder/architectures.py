"""The module paths of each supported architecture, and the options that are refused.

:mod:`circuitdrift.decoder.anatomy` reads everything else off the model: the number of blocks, the width of a head and
the groups of keys and values from the shapes, the kind of norm and the orientation of weights from the types of the
modules.

No torch and no transformers: the config.json of a local model is checked at each parsing of the Snakefile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from circuitdrift.decoder.architecture import Architecture, Fused, Limit, Settings, always, never

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
    parallel=lambda settings: bool(settings.get("use_parallel_residual", True)),
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
            lambda settings: bool(settings.get("add_cross_attention", False)),
            "its blocks have cross-attention (add_cross_attention), but the graph has no nodes for heads that read an "
            "encoder; use a model without cross-attention",
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
            lambda settings: not settings.get("do_layer_norm_before", True),
            "it normalises the residual stream itself after attention and MLP (do_layer_norm_before is false, as in "
            "opt-350m), so the stream is not the sum of the nodes' outputs; use a pre-norm OPT, such as opt-125m or "
            "opt-1.3b",
        ),
        Limit(
            lambda settings: settings.get("word_embed_proj_dim") not in (None, settings.get("hidden_size")),
            "projections to another width separate embedding and head from the residual stream (word_embed_proj_dim "
            "differs from hidden_size); use an OPT with one width, such as opt-125m or opt-1.3b",
        ),
        Limit(
            lambda settings: bool(settings.get("_remove_final_layer_norm", False)),
            "it lacks the norm before the head (_remove_final_layer_norm), whose input node logits reads; use the "
            "checkpoint as converted by transformers 4.20.1 or later",
        ),
    ),
)

_GEMMA = replace(
    _LLAMA,
    gain_offset=1.0,
    limits=(
        Limit(
            lambda settings: bool(settings.get("use_bidirectional_attention", False)),
            "its tokens see later ones (use_bidirectional_attention), so the tokens that clean and corrupted prompts "
            "begin with are not alike in both passes; use a model with causal attention",
        ),
    ),
)

_PHI3 = replace(_LLAMA, projections=Fused("qkv_proj", ("projection", "head", "d_head")))

_PHI = replace(
    _LLAMA,
    final_norm="final_layernorm",
    output="dense",
    mlp_norm="input_layernorm",
    mlp_output="mlp.fc2",
    parallel=always,
)

_GPTJ = replace(
    _GPT2,
    projections=_SEPARATE,
    output="out_proj",
    mlp_norm="ln_1",
    mlp_output="mlp.fc_out",
    parallel=always,
    limits=(),
)

_GRANITE = replace(_LLAMA, variant=lambda settings: {"multiplier": float(settings.get("residual_multiplier", 1.0))})

_OLMO = replace(
    _LLAMA,
    centred=True,
    epsilon=1e-5,
    variant=lambda settings: {"in_place": settings.get("clip_qkv") is not None},
)


def _stablelm_is_parallel(settings: Settings) -> bool:
    return bool(settings.get("use_parallel_residual", False))


_STABLELM = replace(
    _LLAMA,
    parallel=_stablelm_is_parallel,
    variant=lambda settings: {"mlp_norm": "input_layernorm"} if _stablelm_is_parallel(settings) else {},
    limits=(
        Limit(
            lambda settings: (
                bool(settings.get("qk_layernorm", False))
                and settings.get("num_key_value_heads", 32) != settings.get("num_attention_heads", 32)
            ),
            "its heads have norms of their own for the keys that several heads share (qk_layernorm with fewer "
            "num_key_value_heads), so that no head can get a copy of its keys; use a model without qk_layernorm",
        ),
    ),
)


def _falcon_is_parallel(settings: Settings) -> bool:
    return bool(settings.get("new_decoder_architecture", False) or settings.get("parallel_attn", True))


def _falcon_norms(settings: Settings) -> Mapping[str, str]:
    """Two norms side by side, one that attention and MLP share, or one after the other."""
    by_default = 2 if settings.get("new_decoder_architecture", False) else None
    n_norms = settings.get("num_ln_in_parallel_attn") or by_default
    if not settings.get("parallel_attn", True):
        return {}
    if n_norms == 2:
        return {"attention_norm": "ln_attn", "mlp_norm": "ln_mlp"}
    return {"mlp_norm": "input_layernorm"}


_FALCON = Architecture(
    backbone="transformer",
    embedding="word_embeddings",
    blocks="h",
    final_norm="ln_f",
    attention_norm="input_layernorm",
    attention="self_attention",
    projections=Fused("query_key_value", ("head", "projection", "d_head")),
    output="dense",
    mlp_norm="post_attention_layernorm",
    mlp="mlp",
    mlp_output="mlp.dense_4h_to_h",
    parallel=_falcon_is_parallel,
    variant=lambda settings: {**_falcon_norms(settings), "in_place": _falcon_is_parallel(settings)},
    limits=(
        Limit(
            lambda settings: bool(settings.get("alibi", False)),
            "its positions are biases of the scores (alibi), which transformers adds once with fused attention and "
            "twice without, so the model is not the same on a GPU and on a CPU; use a Falcon with rotary positions",
        ),
    ),
)

_BLOOM = replace(
    _FALCON,
    embedding_norm="word_embeddings_layernorm",
    mlp="mlp.dense_4h_to_h",
    parallel=never,
    variant=lambda settings: {},
    limits=(
        Limit(
            lambda settings: bool(settings.get("apply_residual_connection_post_layernorm", False)),
            "its residual stream begins anew after each norm (apply_residual_connection_post_layernorm), so it is not "
            "the sum of the nodes' outputs; use a BLOOM without that option",
        ),
        Limit(
            lambda settings: bool(settings.get("slow_but_exact", False)) and settings.get("pretraining_tp", 1) > 1,
            "it multiplies with parts of its output matrices (slow_but_exact), which no hook sees; set slow_but_exact "
            "to false",
        ),
    ),
)

_COHERE = replace(
    _LLAMA,
    mlp_norm="input_layernorm",
    parallel=always,
    centred=True,
    limits=(
        Limit(
            lambda settings: (
                bool(settings.get("use_qk_norm", False))
                and (settings.get("num_key_value_heads") or settings.get("num_attention_heads", 64))
                != settings.get("num_attention_heads", 64)
            ),
            "its norms of keys belong to groups of heads (use_qk_norm with fewer num_key_value_heads), so that no head "
            "can get a copy of its keys; use a model without use_qk_norm",
        ),
    ),
)

_STARCODER2 = replace(_LLAMA, mlp_output="mlp.c_proj")

_GPT_BIGCODE = replace(_GPT2, projections=Fused("c_attn", ("head", "projection", "d_head")))

_MPT = replace(
    _GPT2,
    blocks="blocks",
    final_norm="norm_f",
    attention_norm="norm_1",
    projections=Fused("Wqkv", ("projection", "head", "d_head")),
    output="out_proj",
    mlp_norm="norm_2",
    mlp="ffn.down_proj",
    mlp_output="ffn.down_proj",
    limits=(),
)

_SCALED_BIAS = Limit(
    lambda settings: bool(settings.get("attention_bias", False)),
    "its output projection has a bias (attention_bias), which the norm after it scales anew in each pass, so that the "
    "bias is neither the output of a head nor a constant; use a model without this bias, as all released ones are",
)

_GEMMA2 = replace(
    _GEMMA,
    post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp="post_feedforward_layernorm",
    limits=(_SCALED_BIAS, *_GEMMA.limits),
)

_OLMO2 = replace(
    _LLAMA,
    attention_norm=None,
    post_norm="post_attention_layernorm",
    mlp_norm=None,
    mlp="post_feedforward_layernorm",
    joint_key_norm="k_norm",
    limits=(_SCALED_BIAS,),
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "GPT2LMHeadModel": _GPT2,
        "Gemma2ForCausalLM": _GEMMA2,
        "Gemma3ForCausalLM": _GEMMA2,
        "GPTNeoForCausalLM": _GPT_NEO,
        "GPTNeoXForCausalLM": _GPT_NEOX,
        "LlamaForCausalLM": _LLAMA,
        "MistralForCausalLM": _LLAMA,
        "Olmo2ForCausalLM": _OLMO2,
        "Olmo3ForCausalLM": _OLMO2,
        "OPTForCausalLM": _OPT,
        "Qwen2ForCausalLM": _LLAMA,
        "Qwen3ForCausalLM": _LLAMA,
        "BloomForCausalLM": _BLOOM,
        "CohereForCausalLM": _COHERE,
        "FalconForCausalLM": _FALCON,
        "GemmaForCausalLM": _GEMMA,
        "GPTBigCodeForCausalLM": _GPT_BIGCODE,
        "GPTJForCausalLM": _GPTJ,
        "GraniteForCausalLM": _GRANITE,
        "MptForCausalLM": _MPT,
        "OlmoForCausalLM": _OLMO,
        "Phi3ForCausalLM": _PHI3,
        "PhiForCausalLM": _PHI,
        "SmolLM3ForCausalLM": _LLAMA,
        "StableLmForCausalLM": _STABLELM,
        "Starcoder2ForCausalLM": _STARCODER2,
    }
)
"""Architectures by the name of the model's class; a derived class counts as another architecture."""

MODEL_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "gemma2": "Gemma2ForCausalLM",
        "gemma3_text": "Gemma3ForCausalLM",
        "gpt2": "GPT2LMHeadModel",
        "gpt-sw3": "GPT2LMHeadModel",
        "gpt_neo": "GPTNeoForCausalLM",
        "gpt_neox": "GPTNeoXForCausalLM",
        "internlm3": "LlamaForCausalLM",
        "iquestcoder": "LlamaForCausalLM",
        "llama": "LlamaForCausalLM",
        "mistral": "MistralForCausalLM",
        "olmo2": "Olmo2ForCausalLM",
        "olmo3": "Olmo3ForCausalLM",
        "opt": "OPTForCausalLM",
        "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "bloom": "BloomForCausalLM",
        "cohere": "CohereForCausalLM",
        "falcon": "FalconForCausalLM",
        "gemma": "GemmaForCausalLM",
        "gpt_bigcode": "GPTBigCodeForCausalLM",
        "gptj": "GPTJForCausalLM",
        "granite": "GraniteForCausalLM",
        "mpt": "MptForCausalLM",
        "olmo": "OlmoForCausalLM",
        "phi": "PhiForCausalLM",
        "phi3": "Phi3ForCausalLM",
        "smollm3": "SmolLM3ForCausalLM",
        "stablelm": "StableLmForCausalLM",
        "starcoder2": "Starcoder2ForCausalLM",
    }
)
"""The class that transformers loads for each ``model_type`` of config.json, where it is one of the above."""


NUMBERS_OF_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What architectures call the number of experts in an MLP."""


def architecture_of(class_name: str, settings: Settings) -> Architecture:
    """The architecture of a model with these settings.

    Raises:
        KeyError: no such class is declared.
    """
    architecture = ARCHITECTURES[class_name]
    return replace(architecture, **architecture.variant(settings))


def why_unsupported(class_name: str | None, settings: Settings) -> str | None:
    """Why the circuit engine does not support a model; None where it does.

    Args:
        class_name: name of the model's class; None where no declared class belongs to its ``model_type``.
        settings: the entries of its configuration.
    """
    architecture = ARCHITECTURES.get(class_name or "")
    if architecture is None and any(settings.get(name) for name in NUMBERS_OF_EXPERTS):
        return (
            "no circuits of mixtures of experts: their MLPs keep the matrices of all experts in one tensor, which LoRA "
            "on linear maps does not reach, so that critical layers could get no ranks there; use a dense model of the "
            "same family"
        )
    if architecture is None:
        return (
            "no circuits of this architecture, because decoder/architectures.py does not declare its heads, norms and "
            f"MLPs; use one of {', '.join(sorted(MODEL_TYPES))}"
        )
    for limit in architecture.limits:
        if limit.excludes(settings):
            return f"no circuits of this model: {limit.reason}"
    return None
