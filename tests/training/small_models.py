"""Small random models on disk, with manifests, and small splits, for the tests of training."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

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
