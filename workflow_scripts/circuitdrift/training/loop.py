"""The training loop: AdamW on the answer loss, with a linear schedule, stopping at each checkpoint.

A step takes exactly ``batch_size`` examples from an endless stream of shuffled epochs, splits them by token length,
and adds up the gradients of the parts: the same gradient as that of one padded batch with its padding masked, without
the padding. The order of the data is a function of the seed and the step alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from circuitdrift.compute import progress
from circuitdrift.config.methods import FullMethod, MethodConfig, Training
from circuitdrift.training.adapters import causal_lm
from circuitdrift.training.examples import Examples, answer_logits

logger = logging.getLogger(__name__)


class TrainingError(ValueError):
    """A run that cannot be done as configured, or that has broken down; the message names the fix."""


@dataclass(frozen=True)
class Plan:
    """Everything that determines a run beside the model and the data.

    Attributes:
        steps: optimiser steps.
        checkpoint_steps: the steps after which a checkpoint is taken; 0 comes first, ``steps`` last.
        batch_size: examples per step.
        learning_rate: peak learning rate.
        warmup_steps: steps over which the rate rises linearly to its peak.
        weight_decay: AdamW's, on matrices; vectors (biases, norms) are not decayed.
        gradient_clip: largest norm of the gradient of all parameters.
        precision: dtype of the passes; other than float32, through autocast.
        seed: seed of the data order, and of dropout where the model has any.
    """

    steps: int
    checkpoint_steps: tuple[int, ...]
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    gradient_clip: float
    precision: torch.dtype
    seed: int


def plan_run(method: MethodConfig, training: Training, n_examples: int, precision: torch.dtype, seed: int) -> Plan:
    """Work out a run from the configuration; what the method leaves open is taken from the training section.

    Raises:
        TrainingError: the run has fewer steps than checkpoints.
    """
    epochs = method.epochs or training.epochs
    steps = max(1, round(epochs * n_examples / training.batch_size))
    if steps < training.checkpoints:
        raise TrainingError(
            f"training.checkpoints: {training.checkpoints} checkpoints do not fit into the {steps} steps that "
            f"{epochs:g} epochs of {n_examples} examples make at training.batch_size {training.batch_size}; lower "
            "training.checkpoints or training.batch_size, or raise training.epochs (or the method's own epochs) or "
            "the task's train"
        )
    rate = training.learning_rate_full if isinstance(method, FullMethod) else training.learning_rate_lora
    fraction = training.warmup_fraction if method.warmup_fraction is None else method.warmup_fraction
    return Plan(
        steps=steps,
        checkpoint_steps=checkpoint_steps(steps, training.checkpoints),
        batch_size=training.batch_size,
        learning_rate=method.learning_rate or rate,
        warmup_steps=round(fraction * steps),
        weight_decay=training.weight_decay,
        gradient_clip=training.gradient_clip,
        precision=precision,
        seed=seed,
    )


def checkpoint_steps(steps: int, checkpoints: int) -> tuple[int, ...]:
    """Step 0 and ``checkpoints`` further steps, uniform up to rounding; the last is the last step of the run."""
    return tuple((2 * number * steps + checkpoints) // (2 * checkpoints) for number in range(checkpoints + 1))


def learning_rate_at(step: int, plan: Plan) -> float:
    """Learning rate of a step (the first is 1): a linear rise to the peak, then a linear fall towards zero.

    No step has rate zero: the rise ends, and the fall begins, with the peak; the fall would reach zero one step after
    the last.
    """
    if step <= plan.warmup_steps:
        return plan.learning_rate * step / plan.warmup_steps
    return plan.learning_rate * (plan.steps - step + 1) / (plan.steps - plan.warmup_steps)


def rows_of_step(step: int, n_examples: int, plan: Plan) -> Int[np.ndarray, " batch"]:
    """Rows of the examples of a step (the first is 1): the next ``batch_size`` of the endless stream of epochs."""
    start = (step - 1) * plan.batch_size
    places = np.arange(start, start + plan.batch_size)
    epochs = places // n_examples
    rows = np.empty(plan.batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng([plan.seed, int(epoch)]).permutation(n_examples)
        rows[epochs == epoch] = order[places[epochs == epoch] % n_examples]
    return rows


def fine_tune(
    model: PreTrainedModel | PeftModel, examples: Examples, plan: Plan, at_checkpoint: Callable[[int, int], None]
) -> pd.DataFrame:
    """Train the trainable parameters of a model in place.

    Args:
        model: full model or adapted model.
        examples: the train split.
        plan: the run.
        at_checkpoint: called with the checkpoint's number and step, at step 0 before any update, and after each of the
            plan's checkpoint steps.

    Returns:
        The ``training_log`` table: one row per step, with the mean loss per answer token before the step's update, the
        norm of the gradient before clipping, and the number of tokens run so far. Its column ``seconds`` is null:
        a time of day or a duration differs from run to run, and the same study must give the same bytes. The duration
        is written to the log, and measured by the rule's benchmark.

    Raises:
        TrainingError: a loss or a gradient is not finite; weights are left as they were before that step.
    """
    network = causal_lm(model)
    optimizer = _optimizer(network, plan)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    torch.manual_seed(plan.seed)
    network.train()
    rows, tokens, started = [], 0, time.monotonic()
    at_checkpoint(0, 0)
    for step in progress(range(1, plan.steps + 1), "fine-tuning", plan.steps):
        chosen = rows_of_step(step, len(examples), plan)
        rate = learning_rate_at(step, plan)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, seen = accumulate_gradients(network, examples, chosen, plan.precision)
        norm = nn.utils.clip_grad_norm_(trained, plan.gradient_clip)
        loss_value, norm_value = torch.stack([loss, norm]).tolist()
        _check_finite(loss_value, norm_value, step, examples.example_ids[chosen])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += seen
        epoch = step * plan.batch_size / len(examples)
        rows.append((step, epoch, loss_value, rate, norm_value, tokens, None))
        if step in plan.checkpoint_steps:
            at_checkpoint(plan.checkpoint_steps.index(step), step)
    seconds = time.monotonic() - started
    logger.info("%d steps and %d tokens in %.1f s, checkpoints included", plan.steps, tokens, seconds)
    columns = ["step", "epoch", "loss", "learning_rate", "gradient_norm", "tokens", "seconds"]
    return pd.DataFrame(rows, columns=columns).astype({"seconds": "float64"})


def _optimizer(network: nn.Module, plan: Plan) -> torch.optim.AdamW:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in {"cpu", "cuda"} for parameter in trained)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=plan.learning_rate, fused=fused)


def accumulate_gradients(
    network: PreTrainedModel, examples: Examples, rows: Int[np.ndarray, " batch"], precision: torch.dtype
) -> tuple[Float[Tensor, ""], int]:
    """Add the gradient of the mean loss per answer token over the chosen rows to the parameters' gradients.

    Returns:
        The loss, and the number of tokens that were run.
    """
    batches = list(examples.select(rows))
    n_answers = sum(batch.answers.numel() for batch in batches)
    device = batches[0].tokens.device
    total = torch.zeros((), device=device)
    for batch in batches:
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            logits = answer_logits(network, batch)
        summed = functional.cross_entropy(logits.flatten(0, 1), batch.answers.flatten(), reduction="sum")
        loss = summed / n_answers
        torch.autograd.backward(loss)
        total += loss.detach()
    return total, sum(batch.tokens.numel() for batch in batches)


def _check_finite(loss: float, norm: float, step: int, example_ids: Int[np.ndarray, " batch"]) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(
            f"step {step}: the loss is {loss} and the gradient norm {norm} on the examples with example_id "
            f"{sorted(int(number) for number in example_ids)}; lower the method's learning_rate (or "
            "training.learning_rate_lora, training.learning_rate_full), or set training.precision to float32"
        )
