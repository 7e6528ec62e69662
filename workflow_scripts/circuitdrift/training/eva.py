"""EVA (Paischer et al. 2024, arXiv 2410.07170): LoRA that starts from the principal directions of the activations.

peft's incremental decomposition sets each adapter's first matrix to the directions in which the inputs of its linear
vary most over the training data. There ranks stay as configured. :func:`activation_ranks` is the other half of EVA
alone: peft's redistribution of ranks between modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from peft import EvaConfig, LoraConfig, PeftModel, get_eva_state_dict, initialize_lora_eva_weights
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.decoder.linears import block_linears
from circuitdrift.training.adapters import (
    ADAPTER,
    AdapterError,
    causal_lm,
    common_settings,
    found_adapters,
    verify_adapters,
)
from circuitdrift.training.examples import Examples

TOKENS_PER_BATCH = 2048
MOST_BATCHES = 1000
"""Number of batches, with repetition, after which the directions count as undetermined."""

RHO = 2.0
"""EVA's default: a module gets at most this multiple of the common rank."""


def start_from_activations(adapted: PeftModel, examples: Examples) -> None:
    """Set the first matrix of every LoRA adapter from the training data; the second stays zero.

    Raises:
        AdapterError: every batch of prompts has fewer tokens than the rank, or the directions do not settle, because
            the inputs of some linear vary in fewer directions than the rank.
    """
    config = cast(LoraConfig, adapted.peft_config[ADAPTER])
    targets, sizes = config.target_modules, found_adapters(adapted)
    batches = _batches_of(examples, config.r)

    config.init_lora_weights, config.eva_config = "eva", EvaConfig(rho=1.0)
    with torch.random.fork_rng(devices=[]):
        initialize_lora_eva_weights(
            adapted,
            batches,
            forward_fn=_runner(causal_lm(adapted), config.r),
            prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=_rows,
            show_progress_bar=False,
        )
    # A checkpoint is plain LoRA: its weights hold the initial values, and reading it must not need the data.
    config.init_lora_weights, config.eva_config, config.target_modules = True, None, targets
    verify_adapters(adapted, sizes)


def activation_ranks(model: PreTrainedModel, examples: Examples, rank: int) -> dict[str, int]:
    """The ranks that EVA gives to a model's block linears when it redistributes a common rank.

    Of all modules' directions, each valued by its share of the variance of its module's inputs, the first as many as
    ``rank`` in every module are kept; a module's rank is the number of its directions among them, 0 to 2 ``rank``.

    Args:
        model: the base model.
        examples: the training data.
        rank: the common rank.

    Returns:
        The rank of every block linear by its full name.

    Raises:
        AdapterError: every batch of prompts has fewer tokens than twice the rank, or the directions do not settle.
    """
    linears = block_linears(model)
    settings = common_settings(model, linears, (None, None))
    config = LoraConfig(r=rank, init_lora_weights="eva", eva_config=EvaConfig(rho=RHO), **settings)
    most = round(RHO * rank)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        directions = get_eva_state_dict(
            model,
            _batches_of(examples, most),
            peft_config=config,
            forward_fn=_runner(model, most),
            prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=_rows,
            show_progress_bar=False,
        )
    return {linear.name: len(directions[linear.name]) for linear in linears}


def _batches_of(examples: Examples, components: int) -> list[dict[str, Tensor]]:
    """The batches of prompts that have as many tokens as there are directions to find."""
    batches = [{"input_ids": batch.tokens} for batch in examples.batched(TOKENS_PER_BATCH)]
    usable = [batch for batch in batches if batch["input_ids"].numel() >= components]
    if not usable:
        raise AdapterError(
            f"eva: no batch of prompts has {components} tokens; lower rank (of allocated ranks also critical_rank), or "
            "raise the task's train"
        )
    return usable


def _runner(model: PreTrainedModel, components: int) -> Callable[[object, dict[str, Any]], None]:
    """Runs a batch through the decoder without the head; counts the batches."""
    calls = 0

    def run(_: object, inputs: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls > MOST_BATCHES:
            raise AdapterError(
                f"eva: the directions have not settled after {MOST_BATCHES} batches, so the inputs of some linear vary "
                f"in fewer than {components} directions; lower rank (of allocated ranks also critical_rank)"
            )
        model.base_model(**inputs, use_cache=False)

    return run


def _rows(layer_input: tuple[Tensor, ...], _model_input: object, _layer_name: str) -> Float[Tensor, "token feature"]:
    """The inputs of a linear, one row for each token; batches have no padding."""
    return layer_input[0].flatten(0, -2)
