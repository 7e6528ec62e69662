"""Small random models of every architecture, and prompts for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    GemmaConfig,
    GPT2Config,
    GPTBigCodeConfig,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

from circuitdrift.circuits.prompts import PromptPairs

VOCABULARY = 23

ROUNDING = 3e-6
"""What the library's models differ by in float64: attention weights and RMS norms are computed in float32 there."""


def randomised(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Weights large enough that attention and norms are far from linear, norms' gains and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.45 * noise if parameter.ndim == 2 else parameter + 0.3 * noise)
    return model.double().eval()


def small(config: type[PretrainedConfig], n_heads: int, **options: Any) -> PreTrainedModel:
    """Two blocks of width 16 with random weights."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": n_heads}
    no_special_tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    described = config(**(sizes | {"max_position_embeddings": 32} | no_special_tokens | options))
    return randomised(AutoModelForCausalLM.from_config(described, attn_implementation="eager"))


def small_gpt_neox(parallel: bool) -> PreTrainedModel:
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    options = {"hidden_size": 12, "intermediate_size": 20, "tie_word_embeddings": not parallel}
    return small(GPTNeoXConfig, 3, use_parallel_residual=parallel, rope_parameters=rotary, **options)


def small_gated(config: type[PretrainedConfig], n_heads: int, n_groups: int, **options: Any) -> PreTrainedModel:
    """Of the Llama family."""
    return small(config, n_heads, num_key_value_heads=n_groups, intermediate_size=20, **options)


def small_llama(n_groups: int = 2, tied: bool = False) -> PreTrainedModel:
    return small_gated(LlamaConfig, 4, n_groups, tie_word_embeddings=tied)


def small_gpt_neo(kinds: list[str], tied: bool) -> PreTrainedModel:
    sizes = {"intermediate_size": 20, "window_size": 2}
    return small(GPTNeoConfig, 2, attention_types=[[kinds, 1]], tie_word_embeddings=tied, **sizes)


SLIDING = {"use_sliding_window": True, "sliding_window": 3, "layer_types": ["full_attention", "sliding_attention"]}
"""Qwen's option: some layers see three tokens."""

PLAIN_OPT = {"enable_bias": False, "layer_norm_elementwise_affine": False}

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt_neox parallel": lambda: small_gpt_neox(parallel=True),
    "gpt_neox sequential, tied": lambda: small_gpt_neox(parallel=False),
    "gpt2 tied": lambda: small(GPT2Config, 2, n_inner=20),
    "gpt2 untied, attention scaled by layer": lambda: small(
        GPT2Config, 2, n_inner=20, tie_word_embeddings=False, scale_attn_by_inverse_layer_idx=True
    ),
    "gpt_neo tied, global and local": lambda: small_gpt_neo(["global", "local"], tied=True),
    "gpt_neo untied, local": lambda: small_gpt_neo(["local", "local"], tied=False),
    "opt tied": lambda: small(OPTConfig, 2, ffn_dim=20),
    "opt untied, no biases, no gains": lambda: small(OPTConfig, 2, ffn_dim=20, tie_word_embeddings=False, **PLAIN_OPT),
    "llama grouped": lambda: small_llama(n_groups=2),
    "llama tied": lambda: small_llama(n_groups=4, tied=True),
    "llama biased": lambda: small_gated(LlamaConfig, 2, 1, attention_bias=True, mlp_bias=True, head_dim=6),
    "mistral sliding": lambda: small_gated(MistralConfig, 2, 1, sliding_window=2),
    "mistral tied": lambda: small_gated(MistralConfig, 2, 2, sliding_window=None, tie_word_embeddings=True),
    "qwen2 grouped, sliding": lambda: small_gated(Qwen2Config, 4, 2, **SLIDING),
    "qwen2 tied": lambda: small_gated(Qwen2Config, 2, 1, tie_word_embeddings=True),
    "qwen3 grouped, sliding": lambda: small_gated(Qwen3Config, 4, 2, head_dim=6, attention_bias=True, **SLIDING),
    "qwen3 tied": lambda: small_gated(Qwen3Config, 2, 1, head_dim=10, tie_word_embeddings=True),
}


MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.7,
    "logits_scaling": 2.0,
}


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 2.0],
    "long_factor": [1.0, 2.0, 3.0, 4.0],
}


def partly_rotated(share: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": share}}


def small_mpt(**attention: float) -> PreTrainedModel:
    """Its configuration has names of its own for the sizes, and a section for the attention."""
    sizes = {"vocab_size": VOCABULARY, "d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 32}
    config = MptConfig(**sizes, attn_config=attention)
    return randomised(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))


FURTHER_MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "bloom": lambda: small(BloomConfig, 2),
    "cohere": lambda: small_gated(CohereConfig, 4, 2, logit_scale=0.6),
    "cohere normed": lambda: small_gated(CohereConfig, 2, 2, use_qk_norm=True, attention_bias=True),
    "falcon one norm, one key": lambda: small(FalconConfig, 4),
    "falcon one norm": lambda: small(FalconConfig, 2, multi_query=False, bias=True),
    "falcon two norms, grouped": lambda: small(FalconConfig, 4, new_decoder_architecture=True, num_kv_heads=2),
    "falcon new, one norm": lambda: small(
        FalconConfig, 2, new_decoder_architecture=True, num_kv_heads=1, num_ln_in_parallel_attn=1
    ),
    "falcon sequential": lambda: small(FalconConfig, 2, parallel_attn=False, tie_word_embeddings=False),
    "gemma": lambda: small_gated(GemmaConfig, 4, 2, head_dim=6),
    "gpt_bigcode one key": lambda: small(GPTBigCodeConfig, 4, n_inner=20),
    "gpt_bigcode": lambda: small(GPTBigCodeConfig, 2, n_inner=20, multi_query=False),
    "gptj": lambda: small(GPTJConfig, 2, n_inner=20, rotary_dim=4),
    "granite": lambda: small_gated(GraniteConfig, 2, 1, attention_bias=True, mlp_bias=True, **MULTIPLIERS),
    "mpt": lambda: small_mpt(softmax_scale=0.6),
    "mpt clipped": lambda: small_mpt(clip_qkv=0.8),
    "olmo": lambda: small_gated(OlmoConfig, 4, 2),
    "olmo clipped": lambda: small_gated(OlmoConfig, 2, 2, clip_qkv=0.8, tie_word_embeddings=True),
    "phi": lambda: small_gated(PhiConfig, 4, 2),
    "phi normed": lambda: small_gated(PhiConfig, 2, 1, qk_layernorm=True),
    "phi3 grouped, sliding": lambda: small_gated(Phi3Config, 4, 2, sliding_window=3, **partly_rotated(1.0)),
    "phi3 partly rotated": lambda: small_gated(Phi3Config, 2, 2, **partly_rotated(0.5)),
    "phi3 longrope": lambda: small_gated(
        Phi3Config, 2, 1, rope_parameters=LONGROPE, original_max_position_embeddings=8
    ),
    "smollm3": lambda: small_gated(SmolLM3Config, 4, 2, no_rope_layers=[1, 0]),
    "stablelm": lambda: small_gated(StableLmConfig, 2, 1, use_qkv_bias=True, **partly_rotated(0.25)),
    "stablelm parallel, normed": lambda: small_gated(
        StableLmConfig, 2, 2, use_parallel_residual=True, qk_layernorm=True, **partly_rotated(0.5)
    ),
    "starcoder2 sliding": lambda: small_gated(Starcoder2Config, 4, 2, sliding_window=3),
}
"""Variants of further architectures, on which the oracles of one file run (test_further_architectures.py)."""


def random_pairs(n: int, seed: int = 1) -> tuple[list[list[int]], list[list[int]]]:
    """Prompt pairs of 4 and 6 tokens that first differ at various positions."""
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted = [], []
    for i in range(n):
        length = 4 + 2 * (i % 2)
        prompt = torch.randint(VOCABULARY, (length,), generator=generator).tolist()
        first = (i * 3) % length
        other = list(prompt)
        other[first] = (prompt[first] + 1 + i) % VOCABULARY
        if i % 3 == 0:
            other[-1] = (prompt[-1] + 2) % VOCABULARY
        clean.append(prompt)
        corrupted.append(other)
    return clean, corrupted


def one_token_pairs(clean: list[list[int]], corrupted: list[list[int]]) -> PromptPairs:
    """Prompt pairs with answers of one token, which differ between clean and corrupted."""
    n = len(clean)
    return PromptPairs(clean, corrupted, [[i % 5] for i in range(n)], [[i % 5 + 1] for i in range(n)])
