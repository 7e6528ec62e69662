"""The training loop: AdamW with a linear schedule, and a checkpoint at uniform steps (docs/method.md#training).

The loss is on the true answers, or under GRPO on answers that the model samples
(``circuitdrift.training.policy_gradient``); everything else is the same.

A step takes exactly ``batch_size`` examples from an endless stream of shuffled epochs, splits them by token length, and
adds up the gradients of the parts. This equals the gradient of one padded batch with masked padding, without the
padding. The order of the data depends on the seed and the step alone. Several processes share the examples of a step
(``circuitdrift.training.processes``) and take the same steps as a single one.

A killed run continues from its last state (``circuitdrift.training.resume``) and ends in the same bytes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from circuitdrift.compute import progress
from circuitdrift.config.methods import FullMethod, GrpoMethod, MethodConfig, Training
from circuitdrift.errors import CircuitDriftError
from circuitdrift.training.adalora import rank_schedule
from circuitdrift.training.adapters import causal_lm
from circuitdrift.training.cost import PassCounter, StepCost, count_step_cost
from circuitdrift.training.evaluation import Score
from circuitdrift.training.examples import Batch, Examples, answer_loss
from circuitdrift.training.fused_lora import fused_lora
from circuitdrift.training.history import History, LogRow
from circuitdrift.training.policy_gradient import accumulate_policy_gradients
from circuitdrift.training.processes import ALONE, Processes
from circuitdrift.training.resume import ResumeFolder
from circuitdrift.training.sharding import whole
from circuitdrift.training.state import TrainingState

logger = logging.getLogger(__name__)


class TrainingError(CircuitDriftError):
    """A run that is impossible as configured, or that has broken down; the message names the fix."""


class DivergenceError(TrainingError):
    """A loss or a gradient that is not finite."""


@dataclass(frozen=True)
class Plan:
    """Everything that determines a run beside the model and the data.

    Attributes:
        steps: number of optimiser steps.
        checkpoint_steps: steps after which a checkpoint is saved, from 0 to ``steps``.
        batch_size: examples per step.
        micro_batch_size: most examples of one pass.
        learning_rate: peak learning rate.
        warmup_steps: steps over which the rate rises linearly to its peak.
        weight_decay: AdamW's, on matrices; vectors (biases, norms, IA3's factors) are not decayed.
        gradient_clip: largest norm of the gradient of all parameters.
        precision: dtype of the passes, through autocast unless it is float32.
        seed: seed of the data order, of sampled answers, and of any dropout.
        grpo: the method if it trains on sampled answers; None for the loss on true answers.
    """

    steps: int
    checkpoint_steps: tuple[int, ...]
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    gradient_clip: float
    precision: torch.dtype
    seed: int
    grpo: GrpoMethod | None = None


def plan_run(method: MethodConfig, training: Training, n_examples: int, precision: torch.dtype, seed: int) -> Plan:
    """The plan of a run by the configuration; the training section supplies what the method leaves open.

    Raises:
        TrainingError: the run has fewer steps than checkpoints.
    """
    epochs, steps = training.epochs_of(method), training.steps_of(method, n_examples)
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
        micro_batch_size=training.micro_batch_size or training.batch_size,
        learning_rate=method.learning_rate or rate,
        warmup_steps=round(fraction * steps),
        weight_decay=training.weight_decay,
        gradient_clip=training.gradient_clip,
        precision=precision,
        seed=seed,
        grpo=method if isinstance(method, GrpoMethod) else None,
    )


def checkpoint_steps(steps: int, checkpoints: int) -> tuple[int, ...]:
    """Step 0 and ``checkpoints`` further steps, uniform up to rounding; the last one ends the run."""
    return tuple((2 * number * steps + checkpoints) // (2 * checkpoints) for number in range(checkpoints + 1))


def learning_rate_at(step: int, plan: Plan) -> float:
    """Learning rate of a step (the first is 1): a linear rise to the peak, then a linear fall towards zero.

    No step has rate zero: the rise ends at the peak, and the fall would reach zero one step after the last.
    """
    if step <= plan.warmup_steps:
        return plan.learning_rate * step / plan.warmup_steps
    return plan.learning_rate * (plan.steps - step + 1) / (plan.steps - plan.warmup_steps)


def rows_of_step(step: int, n_examples: int, plan: Plan) -> Int[np.ndarray, " batch"]:
    """Rows of the examples of a step (the first is 1): the next ``batch_size`` of the endless stream of epochs."""
    start = (step - 1) * plan.batch_size
    positions = np.arange(start, start + plan.batch_size)
    epochs = positions // n_examples
    rows = np.empty(plan.batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng([plan.seed, int(epoch)]).permutation(n_examples)
        rows[epochs == epoch] = order[positions[epochs == epoch] % n_examples]
    return rows


def fine_tune(
    model: PreTrainedModel | PeftModel,
    examples: Examples,
    plan: Plan,
    at_checkpoint: Callable[[int], Score],
    resume: ResumeFolder | None = None,
    processes: Processes = ALONE,
) -> History:
    """Train the trainable parameters of a model in place.

    Args:
        model: full model or adapted model.
        examples: the train split.
        plan: the run.
        at_checkpoint: saves and scores a checkpoint; called with its number, at step 0 before any update and after
            each checkpoint step of the plan.
        resume: folder in which the run saves its state and from which it continues; None saves nothing.
        processes: the processes that train together; all call this with the same model, examples and plan.

    Returns:
        The training log, whose loss excludes AdaLoRA's penalty, and the scores of the checkpoints, of the whole run
        even if it was interrupted. All processes return the same.

    Raises:
        DivergenceError: a loss or a gradient is not finite; the weights stay as before that step.
    """
    own_passes = nullcontext() if processes.sharded else fused_lora(causal_lm(model), plan.precision)
    with own_passes:
        return _train(model, examples, plan, at_checkpoint, resume, processes)


def _train(
    model: PreTrainedModel | PeftModel,
    examples: Examples,
    plan: Plan,
    at_checkpoint: Callable[[int], Score],
    resume: ResumeFolder | None,
    processes: Processes,
) -> History:
    """The loop of :func:`fine_tune`."""
    network = causal_lm(model)
    optimizer = _optimizer(network, plan)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    network.train()
    ranks = rank_schedule(model)
    counter = PassCounter()
    if plan.grpo is None:
        cost = count_step_cost(network, examples, plan.micro_batch_size, plan.precision, ranks)
    torch.manual_seed(plan.seed)
    state = TrainingState(network, optimizer, ranks)
    history = resume.restore(state) if resume else History()

    def take_checkpoint() -> None:
        history.scores.append(at_checkpoint(len(history.scores)))

    def save_state() -> None:
        if resume:
            resume.save(state, history)

    started = time.monotonic()
    if not history.scores:
        take_checkpoint()
        save_state()
    left = range(history.step + 1, plan.steps + 1)
    for step in progress(left, "fine-tuning", len(left)) if processes.is_first else left:
        chosen = rows_of_step(step, len(examples), plan)
        rate = learning_rate_at(step, plan)
        for group in optimizer.param_groups:
            group["lr"] = rate
        processes.seed_step(plan.seed, step)
        if plan.grpo is None:
            result = supervised_step(network, examples, chosen, plan, cost, processes)
        else:
            adapted = cast(PeftModel, model)
            result = reinforced_step(adapted, examples, chosen, plan, plan.grpo, step, counter, processes)
        result = _of_all(result, processes)
        processes.sum_gradients(trained)
        if ranks:
            torch.autograd.backward(ranks.penalty())
        norm = nn.utils.clip_grad_norm_(trained, plan.gradient_clip)
        loss_value, norm_value = torch.stack([result.loss, whole(norm)]).tolist()
        _check_finite(loss_value, norm_value, step, examples.example_ids[chosen])
        optimizer.step()
        if ranks:
            ranks.after_step(step)
        optimizer.zero_grad(set_to_none=True)
        epoch = step * plan.batch_size / len(examples)
        reward = None if result.reward is None else result.reward.item()
        tokens, flops = history.tokens + result.tokens, history.flops + result.flops
        history.rows.append(LogRow(step, epoch, loss_value, rate, norm_value, tokens, flops, reward))
        if step in plan.checkpoint_steps:
            take_checkpoint()
            save_state()
            if ranks:
                logger.info("step %d: ranks %s", step, list(ranks.ranks().values()))
        elif resume and resume.is_due():
            save_state()
    seconds = time.monotonic() - started
    logger.info("%d steps, to %d tokens in all, in %.1f s, checkpoints included", len(left), history.tokens, seconds)
    return history


def _optimizer(network: nn.Module, plan: Plan) -> torch.optim.AdamW:
    trained = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in trained if _is_matrix(name, parameter)]
    vectors = [parameter for name, parameter in trained if not _is_matrix(name, parameter)]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in {"cpu", "cuda"} for _, parameter in trained)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=plan.learning_rate, fused=fused)


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to a parameter; it excludes IA3's factors, which are stored as thin matrices."""
    return parameter.ndim >= 2 and ".ia3_l." not in name


class StepResult(NamedTuple):
    """The result of a step's passes beside the gradients.

    Attributes:
        loss: the loss of the step; in one of several processes its share's part of it.
        tokens: number of tokens run.
        flops: floating-point operations (``circuitdrift.training.cost``).
        reward: mean reward of the sampled answers (the share's part of it); None if none are sampled.
    """

    loss: Float[Tensor, ""]
    tokens: int
    flops: int
    reward: Float[Tensor, ""] | None = None


def _of_all(result: StepResult, processes: Processes) -> StepResult:
    """The result of a step, from the results of all processes' shares."""
    if processes.count == 1:
        return result
    values = [result.loss] if result.reward is None else [result.loss, result.reward]
    counts = torch.tensor([result.tokens, result.flops], device=result.loss.device)
    tokens, flops = processes.sum(counts).tolist()
    loss, *reward = processes.sum(torch.stack(values))
    return StepResult(loss, tokens, flops, *reward)


def supervised_step(
    network: PreTrainedModel,
    examples: Examples,
    rows: Int[np.ndarray, " batch"],
    plan: Plan,
    cost: StepCost,
    processes: Processes,
) -> StepResult:
    """Add the gradient of this process's share of a step on true answers to the parameters' gradients."""
    loss, batches = accumulate_gradients(network, examples, rows, plan.micro_batch_size, plan.precision, processes)
    return StepResult(loss, sum(batch.tokens.numel() for batch in batches), cost.of(batches))


def reinforced_step(
    adapted: PeftModel,
    examples: Examples,
    rows: Int[np.ndarray, " batch"],
    plan: Plan,
    method: GrpoMethod,
    step: int,
    counter: PassCounter,
    processes: Processes,
) -> StepResult:
    """Add the gradient of this process's share of a step on sampled answers to the parameters' gradients."""
    passes, before = (plan.micro_batch_size, plan.precision), counter.flops
    loss, tokens, reward = accumulate_policy_gradients(
        adapted, examples, rows, method, *passes, (plan.seed, step), processes, counter
    )
    return StepResult(loss, tokens, counter.flops - before, reward)


def accumulate_gradients(
    network: PreTrainedModel,
    examples: Examples,
    rows: Int[np.ndarray, " batch"],
    micro_batch_size: int,
    precision: torch.dtype,
    processes: Processes = ALONE,
) -> tuple[Float[Tensor, ""], list[Batch]]:
    """Add the gradient of the mean loss per answer token over the chosen rows to the parameters' gradients.

    Each pass has rows of one length, at most ``micro_batch_size``, and counts by its answer tokens. So the gradient
    does not depend on the split into passes. Each of several processes runs its share of the rows and adds that share's
    part of the gradient.

    Returns:
        The loss (the share's part of it), and the batches that ran.
    """
    in_step = list(examples.select(rows))
    n_answers = sum(batch.answers.numel() for batch in in_step)
    shares = processes.share(in_step)
    batches = [part for batch, positions in shares for part in _parts(batch, positions, micro_batch_size)]
    total = torch.zeros((), device=in_step[0].tokens.device)
    for batch in batches:
        loss = answer_loss(network, batch, precision) / n_answers
        torch.autograd.backward(loss)
        total += loss.detach()
    if processes.sharded:
        for _ in range(processes.most_passes(in_step, micro_batch_size) - len(batches)):
            _pass_for_others(network, in_step[0], precision)
    return total, batches


def _pass_for_others(network: PreTrainedModel, batch: Batch, precision: torch.dtype) -> None:
    """A pass that adds nothing, by a process without more examples: the other processes need its weights."""
    one = batch.take(np.zeros(1, dtype=np.int64))
    torch.autograd.backward(0.0 * answer_loss(network, one, precision))


def _parts(batch: Batch, positions: Int[np.ndarray, " chosen"], size: int) -> Iterator[Batch]:
    """The examples at some positions in parts of at most ``size``; the batch itself if one part holds all of it."""
    if len(batch) == len(positions) <= size:
        yield batch
        return
    for start in range(0, len(positions), size):
        yield batch.take(positions[start : start + size])


def _check_finite(loss: float, norm: float, step: int, example_ids: Int[np.ndarray, " batch"]) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergenceError(
            f"step {step}: the loss is {loss} and the gradient norm {norm} on the examples with example_id "
            f"{sorted(int(number) for number in example_ids)}; lower the method's learning_rate (or "
            "training.learning_rate_lora, training.learning_rate_full), or set training.precision to float32"
        )
