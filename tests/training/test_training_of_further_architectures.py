"""LoRA on each further architecture: the loss and gradients of whole sequences by peft's own passes; the sides of IA3.

The passes of training share the tokens that examples begin with, run all of a row at once where a model can, and have
LoRA in few operations. Tests of the first architectures run more settings of each.
"""

import numpy as np
import pytest
import torch
from small_models import VOCABULARY, examples
from test_loop import padded_loss
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    GemmaConfig,
    GPTBigCodeConfig,
    GPTJConfig,
    GraniteConfig,
    MptConfig,
    OlmoConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

from circuitdrift.config.methods import Ia3Method, LoraMethod
from circuitdrift.decoder.linears import block_linears
from circuitdrift.decoder.one_pass import runs_in_one_pass
from circuitdrift.training.adapters import ScaledSide, causal_lm, wanted_adapters
from circuitdrift.training.examples import Examples
from circuitdrift.training.fused_lora import fused_lora
from circuitdrift.training.loop import accumulate_gradients
from circuitdrift.training.preparation import adapter_config_of, prepare_model

CPU = torch.device("cpu")
BASE = ("tiny", None)
TABLE = examples(5, lengths=(5, 7), answer_tokens=(1, 2), instruction=(3, 9, 4, 1))


def gated(config: type[PretrainedConfig], **options: object) -> PretrainedConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    return config(**sizes, num_key_value_heads=2, vocab_size=VOCABULARY, **ends, **options)


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY}
CONFIGS = [
    BloomConfig(**SIZES, hidden_dropout=0.0),
    gated(CohereConfig, logit_scale=0.5),
    FalconConfig(**SIZES),
    FalconConfig(**SIZES, new_decoder_architecture=True, num_kv_heads=2),
    gated(GemmaConfig, head_dim=6),
    GPTBigCodeConfig(**SIZES, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0),
    GPTJConfig(**SIZES, rotary_dim=4),
    gated(GraniteConfig, residual_multiplier=0.4, embedding_multiplier=3.0, logits_scaling=2.0),
    MptConfig(d_model=16, n_layers=2, n_heads=4, vocab_size=VOCABULARY),
    gated(OlmoConfig, clip_qkv=0.05),
    gated(PhiConfig),
    gated(Phi3Config),
    gated(SmolLM3Config, no_rope_layers=[1, 0]),
    gated(StableLmConfig, use_parallel_residual=True),
    gated(Starcoder2Config, residual_dropout=0.0, embedding_dropout=0.0),
]
every_architecture = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)


def random_model(config: PretrainedConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


@every_architecture
def test_loss_and_gradients_are_those_of_whole_sequences(config: PretrainedConfig) -> None:
    split = Examples(TABLE, CPU)
    model = prepare_model(
        random_model(config), BASE, LoraMethod(kind="lora", rank=3), 2.0, None, split, steps=10, seed=0
    )
    adapters = {name: weight for name, weight in causal_lm(model).named_parameters() if weight.requires_grad}
    for weight in adapters.values():
        torch.nn.init.normal_(weight, std=0.1)
    network = causal_lm(model).train()
    padded_loss(network, TABLE).backward()
    expected = {name: weight.grad.clone() for name, weight in adapters.items()}
    network.zero_grad()
    with fused_lora(network, torch.float32):
        loss, _ = accumulate_gradients(network, split, np.arange(len(TABLE)), len(TABLE), torch.float32)
    assert loss.item() == pytest.approx(padded_loss(network, TABLE).item(), rel=1e-5)
    assert len(adapters) == 2 * len(block_linears(random_model(config)))
    for name, weight in adapters.items():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-3, atol=1e-6)
        assert weight.grad.any()


@every_architecture
def test_ia3_multiplies_outputs_of_attention_and_inputs_of_the_mlp(config: PretrainedConfig) -> None:
    model = random_model(config)
    adapter = adapter_config_of(Ia3Method(kind="ia3"), model, 2.0, 10, BASE)
    for name, side in wanted_adapters(adapter, block_linears(model)).items():
        assert side == ScaledSide("output" if "attn" in name or "attention" in name else "input"), name


def test_biases_of_scores_are_left_to_passes_of_their_own() -> None:
    """One pass for all examples tells transformers' attention what sees what; BLOOM and MPT have none of it."""
    in_one_pass = {config.model_type for config in CONFIGS if runs_in_one_pass(random_model(config), 8)}
    assert in_one_pass == {config.model_type for config in CONFIGS} - {"bloom", "falcon", "gptj", "mpt", "stablelm"}
