"""Sizes of the paper's models, as their config.json on the hub states them, for plans on machines without the files."""

from __future__ import annotations

from collections.abc import Mapping

from circuitdrift.decoder.architecture import Settings

PUBLISHED_SETTINGS: Mapping[str, Settings] = {
    "EleutherAI/pythia-1.4b-deduped": {
        "model_type": "gpt_neox",
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "vocab_size": 50304,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
    },
    "EleutherAI/gpt-neo-2.7B": {
        "model_type": "gpt_neo",
        "num_layers": 32,
        "num_heads": 20,
        "hidden_size": 2560,
        "vocab_size": 50257,
    },
    "facebook/opt-6.7b": {
        "model_type": "opt",
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "hidden_size": 4096,
        "ffn_dim": 16384,
        "vocab_size": 50272,
    },
}
"""The entries of config.json that a shape needs, by the model's id."""
