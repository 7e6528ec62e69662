"""Modules of a base model of which the architecture alone is known, checked on models of other sizes and in peft."""

from __future__ import annotations

import json

import pytest
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import (
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
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

from circuitdrift.allocation.architectures import base_architecture, shape_of_architecture
from circuitdrift.allocation.ranks import AllocationError, rank_patterns, ranks_by_layer
from circuitdrift.config.imports import ImportedCircuits
from circuitdrift.decoder.linears import block_linears, shape_of_config
from circuitdrift.training.adapters import config_as_json, lora_config

GATED = {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 40}
OTHER_SIZES = {
    "gpt_neox": GPTNeoXConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=8, intermediate_size=96),
    "gpt_neo": GPTNeoConfig(
        hidden_size=32, num_layers=3, num_heads=8, attention_types=[[["global", "local", "global"], 1]]
    ),
    "opt": OPTConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=8, ffn_dim=96, word_embed_proj_dim=16),
    "gpt2": GPT2Config(n_embd=32, n_layer=3, n_head=8),
    "llama": LlamaConfig(num_hidden_layers=3, **GATED),
    "mistral": MistralConfig(num_hidden_layers=3, **GATED),
    "qwen2": Qwen2Config(num_hidden_layers=3, **GATED),
    "qwen3": Qwen3Config(num_hidden_layers=3, **GATED),
    "bloom": BloomConfig(hidden_size=32, n_layer=3, n_head=8),
    "cohere": CohereConfig(num_hidden_layers=3, **GATED),
    "falcon": FalconConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=8, new_decoder_architecture=True),
    "gemma": GemmaConfig(num_hidden_layers=3, **GATED),
    "gpt_bigcode": GPTBigCodeConfig(n_embd=32, n_layer=3, n_head=8),
    "gptj": GPTJConfig(n_embd=32, n_layer=3, n_head=8, rotary_dim=2),
    "granite": GraniteConfig(num_hidden_layers=3, **GATED),
    "mpt": MptConfig(d_model=32, n_layers=3, n_heads=8),
    "olmo": OlmoConfig(num_hidden_layers=3, **GATED),
    "phi": PhiConfig(num_hidden_layers=3, **GATED),
    "phi3": Phi3Config(num_hidden_layers=3, pad_token_id=None, **GATED),
    "smollm3": SmolLM3Config(num_hidden_layers=3, **GATED),
    "stablelm": StableLmConfig(num_hidden_layers=3, use_parallel_residual=True, **GATED),
    "starcoder2": Starcoder2Config(num_hidden_layers=3, **GATED),
}


def test_every_architecture_of_the_config_is_tested():
    (choices, _) = ImportedCircuits.model_json_schema()["properties"]["architecture"]["anyOf"]
    assert set(choices["enum"]) == set(OTHER_SIZES)


@pytest.mark.parametrize("architecture", OTHER_SIZES)
def test_ranks_reach_the_same_modules_in_a_model_of_another_size(architecture, tmp_path):
    shape = shape_of_architecture(architecture, 3)
    linears = block_linears(shape)
    patterns = rank_patterns(ranks_by_layer(linears, 2, 5, (1,)), 2, 2.0)
    written = config_as_json(lora_config(shape, linears, patterns, (None, None)))
    (tmp_path / "adapter_config.json").write_text(json.dumps(written))

    model = shape_of_config(OTHER_SIZES[architecture])
    wanted = {linear.name: 5 if linear.layer == 1 else 2 for linear in block_linears(model)}
    adapted = get_peft_model(model, LoraConfig.from_pretrained(tmp_path))
    modules = adapted.get_base_model().named_modules()
    found = {name: (m.r["default"], m.scaling["default"]) for name, m in modules if isinstance(m, LoraLayer)}
    assert found == {name: (rank, 2.0) for name, rank in wanted.items()}
    assert len(found) >= 12


def test_parallel_blocks_are_gpt_neox_unless_another_is_named():
    assert base_architecture(None, parallel=True) == "gpt_neox"
    assert base_architecture("gpt2", parallel=False) == "gpt2"
    assert base_architecture("gpt_neox", parallel=False) == "gpt_neox"  # use_parallel_residual: false
    assert [base_architecture("falcon", parallel) for parallel in (True, False)] == ["falcon", "falcon"]
    assert base_architecture("phi", parallel=True) == "phi"
    with pytest.raises(AllocationError, match="architecture: gpt2"):
        base_architecture(None, parallel=False)
    with pytest.raises(AllocationError, match="those of llama do not"):
        base_architecture("llama", parallel=True)
    with pytest.raises(AllocationError, match="MLP of gptj run in parallel, those of the circuits do not"):
        base_architecture("gptj", parallel=False)
