"""LoRA in few operations, beside its slow twin: peft's own forward pass and autograd's backward pass."""

import numpy as np
import pytest
import torch
from small_models import ARCHITECTURES, examples, random_model
from torch import nn

from circuitdrift.config.methods import DoraMethod, LoraMethod, RsLoraMethod
from circuitdrift.training.adapters import causal_lm, found_adapters
from circuitdrift.training.cost import count_step_cost
from circuitdrift.training.examples import Examples
from circuitdrift.training.fused_lora import LowRankSum, fused_lora
from circuitdrift.training.loop import accumulate_gradients
from circuitdrift.training.preparation import prepare_model

CPU = torch.device("cpu")
SPLIT = Examples(examples(9, lengths=(5, 7), instruction=(3, 9, 4, 1)), CPU)
RANK_3 = LoraMethod(kind="lora", rank=3)


def adapted(architecture, method=RANK_3, dtype=torch.float32):
    """A model whose adapters are past the first step: both matrices differ from zero."""
    torch.manual_seed(0)
    model = prepare_model(random_model(architecture).to(dtype), ("tiny", None), method, 2.0, None, SPLIT, 10, 0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return model


def loss_and_gradients(model, precision):
    network = causal_lm(model)
    network.train().zero_grad()
    loss, _ = accumulate_gradients(network, SPLIT, np.arange(9), 9, precision)
    return loss, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("frozen_input", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_sum_and_gradients_are_those_of_autograd(frozen_input, bias):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=not frozen_input)
    weight = torch.randn(6, 7, dtype=torch.float64)
    offset = torch.randn(6, dtype=torch.float64) if bias else None
    down, up = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 7), (6, 3)))
    inputs = [down, up] if frozen_input else [x, down, up]
    found = LowRankSum.apply(x, weight, offset, down, up, 1.7)
    expected = nn.functional.linear(x, weight, offset) + 1.7 * x @ down.T @ up.T
    torch.testing.assert_close(found, expected)
    gradient = torch.randn(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, gradient), torch.autograd.grad(expected, inputs, gradient)
    )


@pytest.mark.parametrize("method", [RANK_3, RsLoraMethod(kind="rslora", rank=3, alpha=5.0)], ids=["lora", "rslora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_has_the_loss_and_gradients_of_pefts_passes(architecture, method):
    model = adapted(architecture, method)
    loss, gradients = loss_and_gradients(model, torch.float32)
    with fused_lora(causal_lm(model), torch.float32):
        found_loss, found = loss_and_gradients(model, torch.float32)
    torch.testing.assert_close(found_loss, loss)
    torch.testing.assert_close(found, gradients, rtol=1e-4, atol=1e-6)
    assert len(gradients) == 2 * len(found_adapters(model))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "llama"])
def test_in_bfloat16_gradients_are_as_near_to_those_in_float32_as_pefts(architecture, weights):
    exact = loss_and_gradients(adapted(architecture).double(), torch.float32)[1]
    model = adapted(architecture, dtype=weights)
    before = loss_and_gradients(model, torch.bfloat16)[1]
    with fused_lora(causal_lm(model), torch.bfloat16):
        after = loss_and_gradients(model, torch.bfloat16)[1]
    assert {gradient.dtype for gradient in after.values()} == {torch.float32}

    def error(found):
        squares = sum(float((found[name] - value).square().sum()) for name, value in exact.items())
        return (squares / sum(float(value.square().sum()) for value in exact.values())) ** 0.5

    assert error(after) < 1.5 * error(before)
    assert error(before) < 0.1


def test_weights_in_bfloat16_without_autocast_run_as_they_are():
    model = causal_lm(adapted("gpt_neox", dtype=torch.bfloat16)).eval()
    tokens = SPLIT.batches[0].tokens
    expected = model(tokens).logits
    with fused_lora(model, torch.float32):
        assert torch.equal(model(tokens).logits, expected)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_costs_as_many_operations_as_with_pefts_passes(architecture, precision):
    network = causal_lm(adapted(architecture))
    expected = count_step_cost(network, SPLIT, 9, precision, None)
    with fused_lora(network, precision):
        assert count_step_cost(network, SPLIT, 9, precision, None) == expected


def test_switched_off_adapters_are_left_out():
    model = adapted("gpt_neox").eval()
    tokens = SPLIT.batches[0].tokens
    with model.disable_adapter():
        expected = model(tokens).logits
    with fused_lora(causal_lm(model), torch.float32), model.disable_adapter():
        assert torch.equal(model(tokens).logits, expected)
    assert not torch.allclose(model(tokens).logits, expected)


def test_other_adapters_and_the_model_afterwards_keep_their_passes():
    model = causal_lm(adapted("gpt_neox", DoraMethod(kind="dora", rank=2)))
    with fused_lora(model, torch.float32):
        assert not any("forward" in vars(module) for module in model.modules())
    model = causal_lm(adapted("gpt_neox"))
    with fused_lora(model, torch.float32):
        assert sum("forward" in vars(module) for module in model.modules()) == 8
    assert not any("forward" in vars(module) for module in model.modules())
