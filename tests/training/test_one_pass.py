"""One pass over common tokens and the rest, beside its slow twins: whole sequences, and two passes with a cache."""

import pytest
import torch
from small_models import ARCHITECTURES, VOCABULARY, llama, random_model
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, MistralConfig

from circuitdrift.decoder.logits import cache_of_common_tokens, last_logits
from circuitdrift.decoder.one_pass import logits_in_one_pass, runs_in_one_pass
from circuitdrift.training.examples import sequence_logits

N_COMMON, N_LAST = 3, 2
REPLACEABLE = sorted(set(ARCHITECTURES) - {"gpt_neo"})


def sequences(n: int, length: int = 8) -> torch.Tensor:
    tokens = torch.randint(0, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(1))
    tokens[:, :N_COMMON] = tokens[0, :N_COMMON].clone()
    return tokens


def whole(model, tokens):
    return model(input_ids=tokens, use_cache=False).logits[:, -N_LAST:]


def in_two_passes(model, tokens):
    cache = cache_of_common_tokens(model, tokens[:1, :N_COMMON], len(tokens))
    return last_logits(model, tokens[:, N_COMMON:], cache, N_LAST)


def in_one_pass(model, tokens):
    return logits_in_one_pass(model, tokens, N_COMMON, N_LAST)


def gradients(model, logits):
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    model.zero_grad()
    (logits * weights.to(logits)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check_same(model, n_sequences):
    tokens = sequences(n_sequences)
    found = in_one_pass(model, tokens)
    of_found = gradients(model, found)
    for twin in (whole, in_two_passes):
        expected = twin(model, tokens)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)  # the softmax is in float32
        torch.testing.assert_close(of_found, gradients(model, expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_sequences", [1, 5])
@pytest.mark.parametrize("architecture", REPLACEABLE)
def test_logits_and_gradients_equal_those_of_whole_sequences(architecture, n_sequences):
    torch.manual_seed(0)
    model = random_model(architecture).double().eval()
    assert runs_in_one_pass(model, 8)
    check_same(model, n_sequences)
    assert model.config._attn_implementation == "eager"


def test_scores_that_each_layer_scales_by_its_number():
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=VOCABULARY, scale_attn_by_inverse_layer_idx=True)
    check_same(AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval(), 4)


def test_scores_that_a_tanh_bounds():
    torch.manual_seed(0)
    config = Gemma2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=VOCABULARY, attn_logit_softcapping=0.02, pad_token_id=None,
    )  # fmt: skip
    check_same(AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval(), 4)


def test_a_sequence_does_not_see_the_others():
    torch.manual_seed(0)
    model = random_model("gpt_neox").eval()
    tokens = sequences(4)
    others = tokens.clone()
    others[1:, N_COMMON:] = 5
    assert torch.equal(in_one_pass(model, tokens)[0], in_one_pass(model, others)[0])


def test_dropped_weights_are_scaled_as_in_attention_of_whole_sequences():
    torch.manual_seed(0)
    config = ARCHITECTURES["gpt2"][0]()
    config.attn_pdrop, config.embd_pdrop, config.resid_pdrop = 0.5, 0.0, 0.0
    config.n_layer = 1
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    tokens = sequences(2)
    with torch.no_grad():
        draws = torch.stack([in_one_pass(model, tokens) for _ in range(600)])
        expected = torch.stack([whole(model, tokens) for _ in range(600)])
    assert draws.std(dim=0).min() > 0
    error = 5 * (draws.std(dim=0) + expected.std(dim=0)) / 600**0.5
    assert ((draws.mean(dim=0) - expected.mean(dim=0)).abs() < error).all()


def test_windows_shorter_than_a_sequence_other_attention_and_other_kernels_take_two_passes():
    short = MistralConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, sliding_window=4,
    )  # fmt: skip
    windowed = AutoModelForCausalLM.from_config(short, attn_implementation="eager").eval()
    fused = llama().eval()
    assert fused.config._attn_implementation == "sdpa"
    tokens = sequences(3)
    for model in (windowed, fused, random_model("gpt_neo").eval()):
        assert not runs_in_one_pass(model, tokens.shape[1])
        found = sequence_logits(model, tokens, N_COMMON, N_LAST)
        torch.testing.assert_close(found, whole(model, tokens).float(), rtol=1e-4, atol=1e-5)
    assert runs_in_one_pass(windowed, 4)


def test_training_and_evaluation_call_the_model_once():
    model = random_model("gpt_neox").eval()
    seen = []
    model.gpt_neox.embed_in.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    sequence_logits(model, sequences(4), N_COMMON, N_LAST)
    assert seen == [(1, N_COMMON + 4 * (8 - N_COMMON))]
