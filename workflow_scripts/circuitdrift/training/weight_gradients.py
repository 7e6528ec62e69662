"""The gradients of a model's linears on single examples and on average (docs/method.md#other-rules)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from circuitdrift.decoder.linears import BlockLinear, block_linears
from circuitdrift.training.examples import Examples, answer_loss

TOKENS_PER_BATCH = 2048


def gradients_of_linears(model: PreTrainedModel, examples: Examples) -> pd.DataFrame:
    """What the gradients of -log p(answer), in nats, say about each linear of the blocks.

    Args:
        model: the base model, in evaluation mode; its weights are converted to float32 and left without gradients.
        examples: prompts with answers.

    Returns:
        Columns of the ``gradients`` schema, a row for each linear: the number of its weights W; ``fisher``, the mean
        over examples and weights of the squared gradient of one example; ``gradient_norm``, the mean over weights of
        |W G| with G the mean gradient over examples.
    """
    linears = block_linears(model)
    model.float().requires_grad_(False)
    weights = {linear.name: _weight(model, linear) for linear in linears}
    for weight in weights.values():
        weight.requires_grad_(True)
    squares = dict.fromkeys(weights, 0.0)

    def add(name: str, norms: Float[Tensor, " example"]) -> None:
        squares[name] += float(norms.double().sum())

    for batch in examples.without_shared_tokens().batched(TOKENS_PER_BATCH):
        with _observed(model, linears, len(batch), add):
            answer_loss(model, batch, torch.float32).backward()
    rows = []
    for linear in linears:
        weight, n_weights = weights[linear.name], linear.in_features * linear.out_features
        assert weight.grad is not None
        products = (weight.detach() * weight.grad / len(examples)).double().abs()
        fisher = squares[linear.name] / len(examples) / n_weights
        rows.append((linear.layer, linear.name, n_weights, fisher, float(products.mean())))
        weight.grad = None
    model.requires_grad_(True)
    return pd.DataFrame(rows, columns=["layer", "module", "weights", "fisher", "gradient_norm"])


def _weight(model: PreTrainedModel, linear: BlockLinear) -> nn.Parameter:
    weight = model.get_submodule(linear.name).weight
    assert isinstance(weight, nn.Parameter)
    return weight


@contextmanager
def _observed(
    model: PreTrainedModel,
    linears: tuple[BlockLinear, ...],
    n_examples: int,
    add: Callable[[str, Float[Tensor, " example"]], None],
) -> Iterator[None]:
    """Within it, a backward pass calls ``add`` with each linear's squared gradient norm of each example."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def observe(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            rows = inputs[0].detach().reshape(n_examples, -1, inputs[0].shape[-1])
            output.register_hook(lambda of_output: add(name, _squared_norms(rows, of_output)))

        return observe

    handles = [model.get_submodule(linear.name).register_forward_hook(watch(linear.name)) for linear in linears]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _squared_norms(
    inputs: Float[Tensor, "example position d_in"], of_outputs: Float[Tensor, "*rows d_out"]
) -> Float[Tensor, " example"]:
    """The squared Frobenius norm of each example's weight gradient, without forming it.

    The gradient is the sum over positions t of g_t x_t', so its squared norm is the sum over pairs of positions of
    (g_s . g_t) (x_s . x_t).
    """
    gradients = of_outputs.reshape(*inputs.shape[:2], -1)
    return ((gradients @ gradients.mT) * (inputs @ inputs.mT)).sum(dim=(1, 2))
