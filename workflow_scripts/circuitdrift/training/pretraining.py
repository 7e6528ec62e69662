"""Pre-training of the embedded model: next-token prediction on packed rows, with one readable loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel

from circuitdrift.compute import progress
from circuitdrift.errors import CircuitDriftError
from circuitdrift.models.embedded_corpus import Corpus
from circuitdrift.training.muon import Muon

logger = logging.getLogger(__name__)

BETAS = (0.9, 0.98)
MOMENTUM = 0.95
WEIGHT_DECAY = 0.05
GRADIENT_CLIP = 1.0
WARMUP_SHARE = 0.05
FINAL_RATE_SHARE = 0.05
REPORTS = 10


class TrainingDivergedError(CircuitDriftError):
    """The loss is no longer finite; the message names the step and the fix."""


@dataclass(frozen=True)
class Batch:
    """Rows of one step: inputs, and the targets at the flat positions that count in the loss."""

    inputs: Int[Tensor, "rows positions"]
    positions: Int[Tensor, " targets"]
    targets: Int[Tensor, " targets"]


def batches_of(corpus: Corpus, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Cut a corpus into batches of rows, in order, each row once."""
    for start in range(0, len(corpus.tokens) - batch_size + 1, batch_size):
        rows = slice(start, start + batch_size)
        tokens = torch.from_numpy(corpus.tokens[rows]).long()
        positions = torch.from_numpy(corpus.in_loss[rows, 1:]).flatten().nonzero().squeeze(1)
        targets = tokens[:, 1:].flatten()[positions]
        yield Batch(tokens[:, :-1].to(device), positions.to(device), targets.to(device))


def next_token_loss(model: PreTrainedModel, batch: Batch, precision: torch.dtype) -> Float[Tensor, ""]:
    """Mean cross entropy in nats over a batch's targets; the head is applied at their positions alone."""
    with torch.autocast(batch.inputs.device.type, dtype=precision, enabled=precision != torch.float32):
        hidden = model.base_model(input_ids=batch.inputs, use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(hidden.flatten(0, 1)[batch.positions])
        return functional.cross_entropy(logits.float(), batch.targets)


def learning_rate_factor(step: int, steps: int) -> float:
    """Share of the learning rate at a step (from 0): linear warm-up, then half a cosine down to the final share."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * done))


def build_optimizers(model: PreTrainedModel, learning_rate: float) -> tuple[Optimizer, Optimizer]:
    """Muon for the matrices of the blocks; AdamW for embedding and head, and without decay for biases and norms."""
    ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    parameters = list(model.parameters())
    inner = [p for p in parameters if p.ndim == 2 and id(p) not in ends]
    outer = [p for p in parameters if id(p) in ends]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [{"params": outer, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return Muon(inner, learning_rate, MOMENTUM, WEIGHT_DECAY), AdamW(groups, lr=learning_rate, betas=BETAS)


def pretrain(
    model: PreTrainedModel, corpus: Corpus, batch_size: int, learning_rate: float, precision: torch.dtype
) -> pd.DataFrame:
    """Train a model in place on every row of a corpus once.

    Args:
        model: the model on its device, in float32.
        corpus: rows for all steps, steps times the batch size.
        batch_size: rows per step.
        learning_rate: the peak, after warm-up.
        precision: dtype of the passes, through autocast unless it is float32.

    Returns:
        The table of schema ``training_log``, one row per step: loss is the loss in nats of the step's batch before its
        update, tokens counts the targets so far. Column ``seconds`` is null, because the same study must give the same
        bytes; the time is logged.

    Raises:
        TrainingDivergedError: the loss of a step is not finite.
    """
    steps = len(corpus.tokens) // batch_size
    optimizers = build_optimizers(model, learning_rate)
    records: list[dict[str, float | None]] = []
    tokens = 0
    started = time.monotonic()
    model.train()
    batches = batches_of(corpus, batch_size, next(model.parameters()).device)
    for step, batch in enumerate(progress(batches, "pre-training", steps), start=1):
        loss = next_token_loss(model, batch, precision)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"pre-training: the loss is {value} at step {step} of {steps}; "
                f"lower the model's learning_rate (now {learning_rate:g})"
            )
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        rate = learning_rate * learning_rate_factor(step - 1, steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        model.zero_grad(set_to_none=True)
        tokens += len(batch.targets)
        if step % max(1, steps // REPORTS) == 0:
            logger.info("pre-training step %d of %d: loss %.3f", step, steps, value)
        records.append(
            {
                "step": step,
                "epoch": step / steps,
                "loss": value,
                "learning_rate": rate,
                "gradient_norm": float(norm),
                "tokens": tokens,
                "seconds": None,
            }
        )
    model.eval()
    logger.info("pre-trained for %d steps on %d targets in %.1f s", steps, tokens, time.monotonic() - started)
    return pd.DataFrame(records).astype({"seconds": "float64"})
