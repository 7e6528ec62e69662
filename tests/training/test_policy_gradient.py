"""GRPO: what it samples, rewards and learns from, each against a slow twin; and runs of it from beginning to end."""

import copy
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from small_models import examples, neox, save
from test_loop import plan
from test_resume import run, stop_after

from circuitdrift.config.methods import GrpoMethod, LoraMethod, Training
from circuitdrift.config.reading import ConfigError, load_study
from circuitdrift.decoder.logits import kl_divergence
from circuitdrift.training import resume
from circuitdrift.training.evaluation import evaluate
from circuitdrift.training.examples import Examples
from circuitdrift.training.loop import fine_tune, plan_run
from circuitdrift.training.policy_gradient import (
    Policy,
    accumulate_policy_gradients,
    exact_match,
    group_advantages,
)
from circuitdrift.training.preparation import prepare_model

CPU = torch.device("cpu")
FEW_TOKENS = 4
"""Size of the vocabulary: so small that random answers are often right, and all answers can be enumerated."""


def split(n=12, vocabulary=FEW_TOKENS, **shape) -> Examples:
    table = examples(n, **shape)
    for column in ("clean_ids", "answer_ids"):
        table[column] = [ids % vocabulary for ids in table[column]]
    return Examples(table, CPU)


def method(**settings) -> GrpoMethod:
    return GrpoMethod(kind="grpo", rank=3, **({"group_size": 4} | settings))


def adapted_model(vocabulary=FEW_TOKENS, trained=True, **settings):
    """A model with adapters (away from their start, where they change nothing, if trained) and a copy of its base."""
    torch.manual_seed(0)
    base = neox(vocab_size=vocabulary, initializer_range=0.3, **settings)
    copied = copy.deepcopy(base).eval()
    adapted = prepare_model(base, ("tiny", None), method(), 2.0, None, split(), 10, 0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if trained and "lora_B" in name:
                parameter.normal_(std=0.2)
    return adapted, copied


def uniform_numbers(batch, n_samples, seed):
    return np.random.default_rng(seed).random((len(batch), n_samples, batch.answers.shape[1]))


def policy_of(adapted, temperature=1.0, sequences_per_pass=1000) -> Policy:
    return Policy(adapted.get_base_model().eval(), temperature, torch.float32, sequences_per_pass)


def gradients(adapted):
    return {name: p.grad.clone() for name, p in adapted.named_parameters() if p.requires_grad and p.grad is not None}


def log_probabilities(model, prompt, answer, temperature):
    """The slow twin: one plain pass for one answer; [answer position, vocabulary]."""
    tokens = torch.tensor([[*prompt, *answer]])
    return torch.log_softmax(model(input_ids=tokens).logits[0, len(prompt) - 1 : -1] / temperature, dim=-1)


def naive_loss(adapted, reference, samples, setting):
    """The slow twin: equation 3 answer by answer, and KL token by token; samples are (prompt, right answer, group)."""
    total = torch.zeros(())
    rewards = [[float(answer == right) for answer in group] for _, right, group in samples]
    for (prompt, _, group), rewarded in zip(samples, rewards, strict=True):
        mean = sum(rewarded) / len(rewarded)
        deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewarded) / len(rewarded))
        of_group = torch.zeros(())
        for answer, reward in zip(group, rewarded, strict=True):
            policy = log_probabilities(adapted, prompt, answer, setting.temperature)
            base = log_probabilities(reference, prompt, answer, setting.temperature).detach()
            terms = []
            for position, token in enumerate(answer):
                kl = sum(
                    policy[position, v].exp() * (policy[position, v] - base[position, v]) for v in range(FEW_TOKENS)
                )
                ratio = policy[position, token].exp() / policy[position, token].exp().item()
                terms.append(ratio * (reward - mean) / (deviation + 1e-4) - setting.kl_coefficient * kl)
            of_group = of_group + sum(terms) / len(answer)
        total = total - of_group / len(group)
    return total / len(samples), float(np.mean(rewards))


@pytest.mark.parametrize("micro_batch_size", [100, 5, 1])
def test_loss_and_gradient_equal_those_of_every_answer_by_itself(monkeypatch, micro_batch_size):
    adapted, reference = adapted_model(hidden_dropout=0.2, attention_dropout=0.2)
    adapted.train()
    data = split(lengths=(5, 7), answer_tokens=(1, 2, 3), instruction=(3, 1, 2))
    setting = method(temperature=0.7, kl_coefficient=0.3)
    sample, samples = Policy.sample, []

    def record(self, batch, uniform):
        answers = sample(self, batch, uniform)
        start = batch.tokens.shape[1] - batch.answers.shape[1] + 1
        samples.extend(
            (tokens[:start].tolist(), right.tolist(), group.tolist())
            for tokens, right, group in zip(batch.tokens, batch.answers, answers, strict=True)
        )
        return answers

    monkeypatch.setattr(Policy, "sample", record)
    rows = np.array([0, 1, 2, 3, 4, 5, 7, 8, 2])  # one of them twice
    loss, tokens, reward = accumulate_policy_gradients(
        adapted, data, rows, setting, micro_batch_size, torch.float32, (0, 3)
    )
    found = gradients(adapted)
    assert adapted.get_base_model().training
    adapted.zero_grad()
    expected, expected_reward = naive_loss(adapted.eval(), reference, samples, setting)
    expected.backward()
    slow = gradients(adapted)
    assert [len(group) for _, _, group in samples] == [4] * 9
    assert 0 < expected_reward < 1
    assert reward.item() == pytest.approx(expected_reward)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    distinct = {tuple(prompt + answer[:-1]) for prompt, _, group in samples for answer in group}
    assert tokens == sum(map(len, distinct))
    assert found.keys() == slow.keys()
    assert max(gradient.abs().max() for gradient in slow.values()) > 1e-2
    for name, gradient in slow.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def every_answer(adapted, prompt, n, temperature):
    """Each possible answer of n tokens with the logarithm of its probability."""
    answers = list(itertools.product(range(FEW_TOKENS), repeat=n))
    probabilities = [
        log_probabilities(adapted, prompt, answer, temperature)[range(n), answer].sum() for answer in answers
    ]
    return answers, torch.stack(probabilities)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_answers_are_sampled_with_the_policys_probabilities(temperature):
    adapted, _ = adapted_model()
    batch = split(2, answer_tokens=(2,), instruction=(3, 1, 2)).batches[0]
    n = 4000
    sampled = policy_of(adapted, temperature).sample(batch, uniform_numbers(batch, n, seed=0))
    assert sampled.shape == (2, n, 2)
    for tokens, group in zip(batch.tokens, sampled.tolist(), strict=True):
        answers, logarithms = every_answer(adapted, tokens[:-1].tolist(), 2, temperature)
        probability = logarithms.exp().detach()
        assert probability.sum().item() == pytest.approx(1.0, abs=1e-5)
        counts = torch.tensor([group.count(list(answer)) for answer in answers])
        assert counts.sum() == n
        standard_errors = (counts - n * probability) / (n * probability * (1 - probability)).sqrt()
        assert standard_errors.abs().max() < 4


def test_samples_depend_on_the_seed_and_not_on_the_passes():
    adapted, _ = adapted_model()
    batch = split(9, answer_tokens=(3,)).batches[0]

    def sampled(seed, sequences_per_pass):
        policy = policy_of(adapted, sequences_per_pass=sequences_per_pass)
        return policy.sample(batch, uniform_numbers(batch, 6, seed))

    assert torch.equal(sampled(0, 1000), sampled(0, 2))
    assert not torch.equal(sampled(0, 1000), sampled(1, 1000))
    assert len(sampled(0, 1000)[0].unique(dim=0)) > 1


@pytest.mark.parametrize("n_tokens", [1, 2])
def test_mean_gradient_of_pairs_is_that_of_the_expected_reward(n_tokens):
    """In a group of two, the advantage of an answer is the difference of the two rewards, less epsilon.

    The expectation of the gradient is then exactly that of the probability of the right answer, by its tokens.
    """
    adapted, _ = adapted_model()
    data = split(1, answer_tokens=(n_tokens,))
    prompt = data.batches[0].tokens[0, : data.batches[0].tokens.shape[1] - n_tokens + 1].tolist()
    answers, logarithms = every_answer(adapted.eval(), prompt, n_tokens, 2.0)
    right = int(logarithms.argsort(descending=True)[1])
    data.batches[0].answers[0] = torch.tensor(answers[right])
    assert 0.02 < logarithms[right].exp().item() < 0.5
    (-logarithms[right].exp() / n_tokens).backward()
    expected = torch.cat([gradient.flatten() for gradient in gradients(adapted).values()])
    estimates, setting = [], method(group_size=2, kl_coefficient=0, temperature=2.0)
    for step in range(60):
        adapted.zero_grad()
        rows = np.zeros(100, dtype=np.int64)  # a hundred pairs of answers to the one prompt
        accumulate_policy_gradients(adapted, data, rows, setting, 1000, torch.float32, (0, step))
        estimates.append(torch.cat([gradient.flatten() for gradient in gradients(adapted).values()]))
    estimate = torch.stack(estimates)
    error = estimate.std(dim=0) / math.sqrt(len(estimates))
    moved = error > 0
    assert moved.sum() > 100
    assert ((estimate.mean(dim=0) - expected)[moved].abs() / error[moved]).max() < 5
    assert torch.cosine_similarity(estimate.mean(dim=0), expected, dim=0) > 0.99


def test_advantages_are_deviations_from_the_group_and_zero_where_all_are_equal():
    found = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0] * 4, [1.0] * 4]))
    deviation = math.sqrt(3) / 4  # of one in four
    expected = [[0.75 / deviation, *[-0.25 / deviation] * 3], [1.0, 1.0, -1.0, -1.0], [0.0] * 4, [0.0] * 4]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-3, atol=0)


def test_an_answer_is_right_if_every_token_is():
    batch = split(2, answer_tokens=(2,)).batches[0]
    right = batch.answers[0]
    answers = torch.stack([right, torch.stack([right[0], 1 - right[1]]), torch.stack([1 - right[0], right[1]])])
    assert exact_match(answers.repeat(2, 1, 1), batch)[0].tolist() == [1.0, 0.0, 0.0]


def test_kl_is_that_of_the_whole_distributions():
    policy, reference = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=policy), torch.distributions.Categorical(logits=reference)
    )
    torch.testing.assert_close(kl_divergence(policy, reference), expected)
    assert kl_divergence(policy, policy).abs().max() == 0


def test_groups_of_equal_rewards_give_no_gradient():
    adapted, _ = adapted_model()
    data = split()
    for batch in data.batches:
        batch.answers.fill_(FEW_TOKENS)  # a token that is never sampled
    arguments = np.arange(12), method(kl_coefficient=0), 12, torch.float32, (0, 1)
    _, _, reward = accumulate_policy_gradients(adapted, data, *arguments)
    assert reward == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients(adapted).values())
    _, _, reward = accumulate_policy_gradients(adapted, split(), *arguments)
    assert 0 < reward < 1
    assert any(gradient.abs().max() > 0 for gradient in gradients(adapted).values())


def test_at_the_start_the_policy_is_the_reference():
    adapted, _ = adapted_model(trained=False)
    data = split(answer_tokens=(2,))
    arguments = data, np.arange(12), method(kl_coefficient=1.0), 12, torch.float32, (0, 1)
    loss, _, _ = accumulate_policy_gradients(adapted, *arguments)
    assert abs(loss.item()) < 1e-5
    trained, _ = adapted_model()
    loss, _, _ = accumulate_policy_gradients(trained, *arguments)
    assert loss.item() > 1e-2


def test_a_group_of_answers_of_one_token_is_one_sequence():
    adapted, _ = adapted_model()
    data = split(6, lengths=(6,))
    seen = []
    adapted.get_base_model().lm_head.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    accumulate_policy_gradients(adapted, data, np.arange(6), method(), 12, torch.float32, (0, 1))
    assert set(seen) == {6}


def trained(kl_coefficient, steps=60):
    """A run whose only right answer is the prompt's second token of eight; the model and the history."""
    adapted, _ = adapted_model(vocabulary=8, trained=False)
    data = split(64, vocabulary=8, lengths=(3,))
    setting = plan(
        steps=steps, checkpoint_steps=(0, steps), batch_size=16, micro_batch_size=16, learning_rate=3e-2,
        grpo=method(group_size=8, kl_coefficient=kl_coefficient),
    )  # fmt: skip
    return fine_tune(adapted, data, setting, lambda number: evaluate(adapted.get_base_model(), data))


def test_rewards_rise_and_a_large_kl_coefficient_holds_them_down():
    free, held = trained(0.01), trained(10.0, steps=20)
    rewards = free.log_table()["reward"]
    assert rewards.dtype == np.float32
    assert rewards.head(5).mean() < 0.4
    assert rewards.tail(5).mean() > 0.8
    assert free.scores[1].correct / free.scores[1].n > 0.8 > free.scores[0].correct / free.scores[0].n
    assert held.log_table()["reward"].tail(5).mean() < 0.5
    divergences = free.rows[-1].loss / 0.01, held.rows[-1].loss / 10.0
    assert divergences[0] > 10 * divergences[1] > 0


def test_bfloat16_passes_keep_float32_adapters():
    adapted, _ = adapted_model()
    setting = plan(precision=torch.bfloat16, grpo=method())
    history = fine_tune(adapted, split(), setting, lambda number: evaluate(adapted.get_base_model(), split()))
    assert np.isfinite(history.log_table()[["loss", "reward", "gradient_norm"]]).all(axis=None)
    assert {parameter.dtype for parameter in adapted.parameters()} == {torch.float32}


def test_the_plan_of_a_method_says_whether_answers_are_sampled():
    training = Training(batch_size=16, checkpoints=2)
    assert plan_run(method(), training, 500, torch.float32, 0).grpo == method()
    assert plan_run(LoraMethod(kind="lora", rank=2), training, 500, torch.float32, 0).grpo is None


@pytest.mark.parametrize("step", [1, 9])
def test_continues_where_it_was_stopped(tmp_path, monkeypatch, step):
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_STATES", 0.0)
    torch.manual_seed(0)
    manifest = save(neox(hidden_dropout=0.1, initializer_range=0.01), tmp_path / "models" / "tiny")
    setting = method(group_size=64)
    expected = run(manifest, tmp_path / "uninterrupted", setting)
    log = pd.read_parquet(tmp_path / "uninterrupted" / "run" / "training_log.parquet")
    assert log["reward"].max() > 0
    assert log["gradient_norm"].max() > 0
    stop_after(step, manifest, tmp_path / "stopped", monkeypatch, setting)
    assert run(manifest, tmp_path / "stopped", setting) == expected


def test_supervised_runs_have_no_reward(tmp_path):
    torch.manual_seed(0)
    run(save(neox(), tmp_path / "models" / "tiny"), tmp_path / "run", LoraMethod(kind="lora", rank=2))
    log = pd.read_parquet(tmp_path / "run" / "run" / "training_log.parquet")
    assert log["reward"].dtype == np.float32
    assert log["reward"].isna().all()


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        ({"group_size": 1}, "group_size", "greater than or equal to 2; it is 1"),
        ({"temperature": 0}, "temperature", "greater than 0"),
        ({"kl_coefficient": -0.1}, "kl_coefficient", "greater than or equal to 0"),
        ({"clip": 0.2}, "clip", "unknown key"),
    ],
)
def test_bad_settings_are_refused_by_name(tmp_path, settings, key, words):
    raw = {"methods": {"rl": {"kind": "grpo", "rank": 2, **settings}}}
    with pytest.raises(ConfigError, match=rf"methods\.rl\.{key}: .*{words}"):
        load_study(raw, tmp_path, "config.yaml")
