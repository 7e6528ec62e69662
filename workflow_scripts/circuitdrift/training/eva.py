"""EVA (Paischer et al. 2024, arXiv 2410.07170): LoRA that starts from the principal directions of the activations.

peft's incremental decomposition sets each adapter's first matrix to the directions in which the inputs of its linear
vary most over the training data. Ranks stay as configured, without peft's redistribution between modules.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from peft import EvaConfig, LoraConfig, PeftModel, initialize_lora_eva_weights
from torch import Tensor

from circuitdrift.training.adapters import ADAPTER, AdapterError, causal_lm, found_adapters, verify_adapters
from circuitdrift.training.examples import Examples

TOKENS_PER_BATCH = 2048
MOST_BATCHES = 1000
"""Number of batches, with repetition, after which the directions count as undetermined."""


def start_from_activations(adapted: PeftModel, examples: Examples) -> None:
    """Set the first matrix of every LoRA adapter from the training data; the second stays zero.

    Raises:
        AdapterError: every batch of prompts has fewer tokens than the rank, or the directions do not settle, because
            the inputs of some linear vary in fewer directions than the rank.
    """
    config = cast(LoraConfig, adapted.peft_config[ADAPTER])
    targets, sizes = config.target_modules, found_adapters(adapted)
    batches = [{"input_ids": batch.tokens} for batch in examples.batched(TOKENS_PER_BATCH)]
    usable = [batch for batch in batches if batch["input_ids"].numel() >= config.r]
    if not usable:
        raise AdapterError(
            f"eva_lora: no batch of prompts has {config.r} tokens; lower rank, or raise the task's train"
        )
    calls = 0

    def run(_: object, inputs: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls > MOST_BATCHES:
            raise AdapterError(
                f"eva_lora: the directions have not settled after {MOST_BATCHES} batches, so the "
                f"inputs of some linear vary in fewer than {config.r} directions; lower rank"
            )
        causal_lm(adapted).base_model(**inputs, use_cache=False)

    config.init_lora_weights, config.eva_config = "eva", EvaConfig(rho=1.0)
    with torch.random.fork_rng(devices=[]):
        initialize_lora_eva_weights(
            adapted,
            usable,
            forward_fn=run,
            prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=_rows,
            show_progress_bar=False,
        )
    # A checkpoint is plain LoRA: its weights hold the initial values, and reading it must not need the data.
    config.init_lora_weights, config.eva_config, config.target_modules = True, None, targets
    verify_adapters(adapted, sizes)


def _rows(layer_input: tuple[Tensor, ...], _model_input: object, _layer_name: str) -> Float[Tensor, "token feature"]:
    """The inputs of a linear, one row for each token; batches have no padding."""
    return layer_input[0].flatten(0, -2)
