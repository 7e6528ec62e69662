"""Small random models on disk, with manifests, and small splits, for the tests of training."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from circuitdrift.models.manifest import write_manifest

VOCABULARY = 64


def neox(layers: int = 2, **settings) -> PreTrainedModel:
    config = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": VOCABULARY}
    return GPTNeoXForCausalLM(GPTNeoXConfig(num_hidden_layers=layers, **(config | settings)))


def llama(layers: int = 2, **settings) -> PreTrainedModel:
    config = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(num_hidden_layers=layers, vocab_size=VOCABULARY, tie_word_embeddings=True, **(config | settings))
    )


_GATED = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "tie_word_embeddings": True, "bos_token_id": 0,
    "eos_token_id": 0, "pad_token_id": None,
}  # fmt: skip
_GATED_LINEARS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
_ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}

ARCHITECTURES = {
    "gpt_neox": (
        lambda: GPTNeoXConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCABULARY
        ),
        {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    ),
    "gpt_neo": (
        lambda: GPTNeoConfig(
            hidden_size=32, num_layers=2, num_heads=4, vocab_size=VOCABULARY, window_size=4,
            attention_types=[[["global", "local"], 1]], max_position_embeddings=64, **_ENDS,
        ),
        {"q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"},
    ),
    "opt": (
        lambda: OPTConfig(
            hidden_size=32, num_hidden_layers=2, ffn_dim=64, num_attention_heads=4, vocab_size=VOCABULARY,
            max_position_embeddings=64, word_embed_proj_dim=32, **_ENDS,
        ),
        {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    ),
    "gpt2": (
        lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=VOCABULARY, n_positions=64, **_ENDS),
        {"c_attn", "c_proj", "c_fc"},
    ),
    "llama": (lambda: LlamaConfig(**_GATED), _GATED_LINEARS),
    "mistral": (lambda: MistralConfig(**_GATED), _GATED_LINEARS),
    "qwen2": (lambda: Qwen2Config(**_GATED), _GATED_LINEARS),
    "qwen3": (lambda: Qwen3Config(**_GATED, head_dim=8), _GATED_LINEARS),
}  # fmt: skip
"""Configurations of two-layer models, and the names of the linears of their blocks."""


def random_model(architecture: str) -> PreTrainedModel:
    """A random model of an architecture, with eager attention and without dropout."""
    config = ARCHITECTURES[architecture][0]()
    for name in ("attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "embed_dropout", "resid_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    config.dropout = 0.0
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def save(model: PreTrainedModel, folder: Path, dtype: str = "float32") -> Path:
    """Save a model with its manifest in a folder named as the model is in a study; returns the manifest."""
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    manifest = folder / "manifest.json"
    write_manifest(
        manifest, source={"source": "scratch"}, folder=folder, files=["config.json", "model.safetensors"], dtype=dtype
    )
    return manifest


def examples(n: int, lengths=(5,), answer_tokens=(1,), seed: int = 0, instruction=()) -> pd.DataFrame:
    """A split whose answers are learnable: the answer repeats the prompt's second token, in as many tokens.

    All prompts begin with the tokens of the instruction, which comes before those that ``lengths`` counts.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        prompt = draw.integers(2, VOCABULARY, lengths[number % len(lengths)]).astype(np.int32)
        answer = np.repeat(prompt[1], answer_tokens[number % len(answer_tokens)])
        prompt = np.array([*instruction, *prompt], dtype=np.int32)
        rows.append(
            {
                "example_id": 1000 + number,
                "clean": f"prompt {number}",
                "corrupted": f"corrupted {number}",
                "answer": " a",
                "corrupted_answer": " b",
                "clean_ids": prompt,
                "corrupted_ids": prompt[::-1].copy(),
                "answer_ids": answer,
                "corrupted_answer_ids": answer + 1,
            }
        )
    return pd.DataFrame(rows)
