"""GRPO: the gradient of a step from answers that the model samples and their rewards (docs/method.md#training).

For each prompt a group of answers o_1 .. o_G is sampled from the policy, the model at a temperature. With the reward
r_i, 1 for a right answer and otherwise 0, the loss of the group is the negative of equation 3 of Shao et al. 2024
(DeepSeekMath, arXiv 2402.03300)::

    loss = -1/G sum_i 1/|o_i| sum_t (ratio_it A_i - kl_coefficient KL_it),    A_i = (r_i - mean r) / (std r + 1e-4)

and its gradient is that of equation 21. Its use here differs in four ways:

- One update follows each sampling. So the ratio of the policy to the policy that sampled has the value one and only
  its gradient counts. Bounding it (the clip of equation 3) would change nothing, and there is no setting for it. A
  group's advantages sum to zero, so the loss has the value of the KL term alone.
- An answer has as many tokens as the true answer, and all must be right, as in the accuracy. Later tokens could not
  change the reward and would only add noise to the gradient.
- KL(policy || reference) is computed at each position of a sampled answer over the whole vocabulary, in place of an
  estimate from the sampled token alone. The reference is the model with its adapter switched off.
- Dropout is off throughout; otherwise the trained policy would not be the policy that sampled.

Sequences of a group that are alike run once: answers of one token need one pass for the whole group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.config.methods import GrpoMethod
from circuitdrift.decoder.logits import kl_divergence, log_probabilities
from circuitdrift.training.adapters import causal_lm
from circuitdrift.training.cost import PassCounter
from circuitdrift.training.examples import Batch, Examples, sequence_logits
from circuitdrift.training.processes import ALONE, Processes

LEAST_DEVIATION = 1e-4
SAMPLING = 1
"""Separates the random numbers of sampling from those of the data order, which have the same seed."""


@dataclass(frozen=True)
class Policy:
    """A model as a distribution over answers.

    Attributes:
        network: the model.
        temperature: divisor of its logits.
        precision: dtype of the passes, through autocast unless it is float32.
        sequences_per_pass: most sequences of one pass.
        counter: counts the cost of sampling.
    """

    network: PreTrainedModel
    temperature: float
    precision: torch.dtype
    sequences_per_pass: int
    counter: PassCounter = field(default_factory=PassCounter)

    def log_probabilities(
        self, tokens: Int[Tensor, "sequence position"], n_shared: int, n_last: int
    ) -> Float[Tensor, "sequence last_position vocabulary"]:
        """Log-probabilities of the next token at the last positions, in one pass; arguments as ``sequence_logits``."""
        with torch.autocast(tokens.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            logits = sequence_logits(self.network, tokens, n_shared, n_last)
        return log_probabilities(logits / self.temperature)

    @torch.no_grad()
    def sample(
        self, batch: Batch, uniform: Float[np.ndarray, "example sample answer_position"]
    ) -> Int[Tensor, "example sample answer_position"]:
        """Answers to the prompts of a batch, each with as many tokens as the true answer.

        Args:
            batch: the prompts; of its answers only the length counts.
            uniform: a number from 0 to 1 for each token of the result, which decides the token whatever the passes.
        """
        n, group_size = batch.answers.shape[1], uniform.shape[1]
        thresholds = torch.from_numpy(uniform).flatten(0, 1)
        sequences = _prompts(batch).repeat_interleave(group_size, dim=0)
        for position in range(n):
            chosen = torch.empty_like(sequences[:, 0])
            for tokens, members, places in _distinct(sequences, self.sequences_per_pass):
                with self.counter.passes(("sample", tokens.shape[1], batch.n_shared), len(tokens)):
                    found = self.log_probabilities(tokens, batch.n_shared, 1)[:, 0]
                probability = found.cpu().double().exp()
                cumulative = probability.cumsum(dim=-1)[places.cpu()]
                threshold = thresholds[members.cpu(), position, None] * cumulative[:, -1:]
                token = torch.searchsorted(cumulative, threshold, right=True).clamp(max=cumulative.shape[1] - 1)
                chosen[members] = token[:, 0].to(chosen.device)
            sequences = torch.cat([sequences, chosen[:, None]], dim=1)
        return sequences[:, -n:].unflatten(0, (len(batch), group_size))


def exact_match(
    answers: Int[Tensor, "example sample answer_position"], batch: Batch
) -> Float[Tensor, "example sample"]:
    """1 for an answer whose every token is right, otherwise 0."""
    return (answers == batch.answers[:, None]).all(dim=-1).float()


def group_advantages(rewards: Float[Tensor, "example sample"]) -> Float[Tensor, "example sample"]:
    """Each reward less the mean of its group, in standard deviations (of the group as a population).

    Zero for a group of equal rewards, which hence has no gradient.
    """
    deviation = rewards.std(dim=-1, correction=0, keepdim=True)
    return (rewards - rewards.mean(dim=-1, keepdim=True)) / (deviation + LEAST_DEVIATION)


def accumulate_policy_gradients(
    adapted: PeftModel,
    examples: Examples,
    rows: Int[np.ndarray, " batch"],
    method: GrpoMethod,
    micro_batch_size: int,
    precision: torch.dtype,
    seed: tuple[int, int],
    processes: Processes = ALONE,
    counter: PassCounter | None = None,
) -> tuple[Float[Tensor, ""], int, Float[Tensor, ""]]:
    """Sample answers to the prompts of the chosen rows, and add the gradient of the loss to the parameters' gradients.

    Args:
        adapted: the model with its adapter, whose parameters alone are trained.
        examples: the train split.
        rows: rows of the step, one group for each.
        method: size of a group, temperature and weight of the KL.
        micro_batch_size: most sequences of one pass.
        precision: dtype of the passes.
        seed: seed of the run, and step; with the model and the rows they determine the samples.
        processes: the processes that share the rows; the samples do not depend on their number.
        counter: counts the cost of the passes over the steps of a run; None discards the count.

    Returns:
        The loss, the number of tokens of the distinct sequences behind it, and the mean reward; in one of several
        processes its share's part of each.
    """
    network = causal_lm(adapted)
    was_training = network.training
    network.train(False)
    counter = counter or PassCounter()
    policy = Policy(network, method.temperature, precision, micro_batch_size, counter)
    draw = np.random.default_rng([*seed, SAMPLING])
    n_samples = len(rows) * method.group_size
    device = next(network.parameters()).device
    loss, reward, n_tokens = torch.zeros((), device=device), torch.zeros((), device=device), 0
    for whole, own in processes.share(examples.select(rows)):
        numbers = draw.random((len(whole), method.group_size, whole.answers.shape[1]))
        if not len(own):
            continue
        batch = whole.take(own)
        answers = policy.sample(batch, numbers[own])
        rewards = exact_match(answers, batch)
        reward += rewards.sum() / n_samples
        advantages = group_advantages(rewards).flatten()
        answers = answers.flatten(0, 1)
        prompts = _prompts(batch).repeat_interleave(method.group_size, dim=0)
        n = answers.shape[1]
        positions = torch.arange(n, device=device)
        for tokens, members, places in _distinct(torch.cat([prompts, answers[:, :-1]], dim=1), micro_batch_size):
            with counter.passes(("update", tokens.shape[1], batch.n_shared, n), len(tokens)):
                log_policy = policy.log_probabilities(tokens, batch.n_shared, n)
                of_samples = log_policy[places[:, None], positions, answers[members]]
                ratio = (of_samples - of_samples.detach()).exp()
                terms = -ratio * advantages[members, None]
                if method.kl_coefficient > 0:
                    with torch.no_grad(), adapted.disable_adapter():
                        reference = policy.log_probabilities(tokens, batch.n_shared, n)
                    terms = terms + method.kl_coefficient * kl_divergence(log_policy, reference)[places]
                part = terms.mean(dim=1).sum() / n_samples
                torch.autograd.backward(part)
            loss += part.detach()
            n_tokens += tokens.numel()
    network.train(was_training)
    return loss, n_tokens, reward


def _prompts(batch: Batch) -> Int[Tensor, "example prompt_position"]:
    return batch.tokens[:, : batch.tokens.shape[1] - batch.answers.shape[1] + 1]


def _distinct(
    sequences: Int[Tensor, "sequence position"], size: int
) -> Iterator[tuple[Int[Tensor, "distinct position"], Int[Tensor, " member"], Int[Tensor, " member"]]]:
    """The distinct sequences in parts of at most ``size``.

    Yields:
        The distinct sequences of a part, the numbers of the sequences equal to one of them, and for each of these its
        position in the part.
    """
    distinct, which = torch.unique(sequences, dim=0, return_inverse=True)
    for first in range(0, len(distinct), size):
        members = torch.nonzero((which >= first) & (which < first + size))[:, 0]
        yield distinct[first : first + size], members, which[members] - first
