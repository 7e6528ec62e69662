import numpy as np
import pytest
import torch
from small_models import ARCHITECTURES, examples, llama, neox, random_model
from torch.nn import functional

from circuitdrift.config.methods import FullMethod, LoraMethod, Training
from circuitdrift.training.evaluation import Score, accuracy_table, evaluate
from circuitdrift.training.examples import Examples, answer_logits
from circuitdrift.training.loop import (
    Plan,
    TrainingError,
    accumulate_gradients,
    checkpoint_steps,
    fine_tune,
    learning_rate_at,
    plan_run,
    rows_of_step,
)

CPU = torch.device("cpu")


def plan(**settings) -> Plan:
    values = {
        "steps": 6, "checkpoint_steps": (0, 3, 6), "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2,
        "warmup_steps": 2, "weight_decay": 0.01, "gradient_clip": 1.0, "precision": torch.float32, "seed": 0,
    }  # fmt: skip
    return Plan(**(values | settings))


@pytest.mark.parametrize(("steps", "checkpoints"), [(10, 10), (125, 10), (499, 10), (7, 3), (1, 1)])
def test_checkpoints_are_uniform_and_end_the_run(steps, checkpoints):
    found = checkpoint_steps(steps, checkpoints)
    assert found[0] == 0
    assert found[-1] == steps
    assert len(set(found)) == checkpoints + 1
    gaps = np.diff(found)
    assert gaps.max() - gaps.min() <= 1


def test_fewer_steps_than_checkpoints_names_the_keys():
    with pytest.raises(
        TrainingError, match=r"training\.checkpoints: 10 .* 4 steps .*training\.batch_size.*epochs.*train"
    ):
        plan_run(LoraMethod(kind="lora", rank=2), Training(epochs=1), 128, torch.float32, 0)


def test_method_settings_come_before_those_of_the_training_section():
    training = Training(epochs=2, batch_size=10, learning_rate_lora=3e-4, learning_rate_full=8e-6, warmup_fraction=0.1)
    full = plan_run(FullMethod(kind="full"), training, 500, torch.float32, 0)
    assert (full.steps, full.learning_rate, full.warmup_steps) == (100, 8e-6, 10)
    method = LoraMethod(kind="lora", rank=2, epochs=1, learning_rate=1e-3, warmup_fraction=0.0)
    lora = plan_run(method, training, 500, torch.float32, 0)
    assert (lora.steps, lora.learning_rate, lora.warmup_steps) == (50, 1e-3, 0)


def test_learning_rate_rises_and_falls_linearly_and_is_never_zero():
    rates = [learning_rate_at(step, plan(steps=10, warmup_steps=4, learning_rate=1.0)) for step in range(1, 11)]
    assert rates == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_data_order_visits_each_example_once_an_epoch():
    setting = plan(batch_size=8)
    stream = np.concatenate([rows_of_step(step, 20, setting) for step in range(1, 11)])
    for epoch in range(4):
        assert sorted(stream[20 * epoch : 20 * (epoch + 1)]) == list(range(20))
    assert list(stream[:20]) != list(stream[20:40])
    again = np.concatenate([rows_of_step(step, 20, setting) for step in range(1, 11)])
    assert (stream == again).all()
    assert (rows_of_step(1, 20, setting) != rows_of_step(1, 20, plan(seed=1))).any()


def padded_loss(model, table):
    """The slow twin: one right-padded batch, the head on every position, the loss on unmasked labels."""
    sequences = [[*row.clean_ids, *row.answer_ids] for row in table.itertuples()]
    width = max(map(len, sequences))
    tokens, labels, mask = (torch.zeros(len(table), width, dtype=torch.int64) for _ in range(3))
    labels -= 100
    for number, (sequence, row) in enumerate(zip(sequences, table.itertuples(), strict=True)):
        tokens[number, : len(sequence)] = torch.tensor(sequence)
        labels[number, len(row.clean_ids) : len(sequence)] = torch.tensor(row.answer_ids)
        mask[number, : len(sequence)] = 1
    logits = model(input_ids=tokens, attention_mask=mask).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@pytest.mark.parametrize("micro_batch_size", [13, 2, 1])
@pytest.mark.parametrize("instruction", [(), (3,), (3, 9, 4, 1)])
@pytest.mark.parametrize("make", [neox, llama])
def test_loss_and_gradient_equal_those_of_a_padded_batch(make, instruction, micro_batch_size):
    torch.manual_seed(0)
    model = make()
    table = examples(13, lengths=(5, 7, 6), answer_tokens=(1, 2), instruction=instruction)
    expected = padded_loss(model, table)
    expected.backward()
    slow = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    found, batches = accumulate_gradients(model, Examples(table, CPU), np.arange(13), micro_batch_size, torch.float32)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert sum(batch.tokens.numel() for batch in batches) == sum(
        len(row.clean_ids) + len(row.answer_ids) - 1 for row in table.itertuples()
    )
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, slow[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_on_the_loss_of_a_padded_batch(architecture):
    torch.manual_seed(0)
    model = random_model(architecture).eval()
    table = examples(7, lengths=(5, 7, 6), answer_tokens=(1, 2), instruction=(3, 9, 4, 1))
    expected = padded_loss(model, table)
    expected.backward()
    slow = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    found, _ = accumulate_gradients(model, Examples(table, CPU), np.arange(7), 7, torch.float32)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, gradient in slow.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-3, atol=1e-6)


def written_greedily(model, prompt, n):
    """The slow twin of the accuracy: the model writes its answer token by token."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("instruction", [(), (3, 9, 4, 1)])
def test_accuracy_is_that_of_the_models_own_greedy_answers(instruction):
    torch.manual_seed(0)
    model = neox().eval()
    table = examples(40, lengths=(5, 7), answer_tokens=(1, 2, 3), instruction=instruction)
    table["answer_ids"] = [  # half of the answers are the model's own
        row.answer_ids if row.Index % 2 else written_greedily(model, row.clean_ids, len(row.answer_ids))
        for row in table.itertuples()
    ]
    right = [
        written_greedily(model, row.clean_ids, len(row.answer_ids)) == list(row.answer_ids)
        for row in table.itertuples()
    ]
    score = evaluate(model, Examples(table, CPU))
    assert score.right == tuple(right)
    assert (score.n, score.correct) == (40, sum(right))
    assert score.correct >= 20
    assert score.answer_loss == pytest.approx(padded_loss(model, table).item(), rel=1e-5)


def test_tokens_that_all_prompts_begin_with_are_run_once():
    model = neox().eval()
    seen = []
    model.gpt_neox.embed_in.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    batch = Examples(examples(4, instruction=(3, 9, 4, 1)), CPU).batches[0]
    answer_logits(model, batch)
    assert batch.n_shared >= 4
    assert seen == [(1, batch.n_shared), (4, 9 - batch.n_shared)]


def test_prompts_that_are_all_the_same_keep_their_last_token():
    table = examples(3)
    table["clean_ids"] = [[7, 8, 9]] * 3
    assert Examples(table, CPU).batches[0].n_shared == 2


def test_head_is_applied_to_answer_positions_only():
    model = neox().eval()
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    answer_logits(model, Examples(examples(4, answer_tokens=(2,)), CPU).batches[0])
    assert seen == [(4, 2, 32)]


def test_training_learns_and_calls_at_every_checkpoint():
    torch.manual_seed(0)
    model = neox()
    split = Examples(examples(64, lengths=(4, 5)), CPU)
    before = evaluate(model, split)
    seen = []
    setting = plan(steps=60, checkpoint_steps=(0, 30, 60), batch_size=16)

    def at_checkpoint(number):
        seen.append(number)
        return evaluate(model, split)

    history = fine_tune(model, split, setting, at_checkpoint)
    log = history.log_table()
    assert seen == [0, 1, 2]
    assert history.scores[2] == evaluate(model, split)
    assert history.scores[0] == before
    assert evaluate(model, split).answer_loss < before.answer_loss / 2
    assert list(log["step"]) == list(range(1, 61))
    assert log["epoch"].iloc[-1] == 60 * 16 / 64
    assert log["tokens"].is_monotonic_increasing
    assert log["seconds"].isna().all()


@pytest.mark.parametrize("lengths", [(5,), (5, 7)])
def test_passes_of_a_few_rows_train_as_whole_batches_do(lengths):
    def losses(micro_batch_size):
        torch.manual_seed(0)
        model = neox()
        split = Examples(examples(32, lengths=lengths, instruction=(3, 9, 4, 1)), CPU)
        seen = []
        model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
        setting = plan(steps=12, checkpoint_steps=(0, 12), micro_batch_size=micro_batch_size)
        log = fine_tune(model, split, setting, lambda number: Score((True,), 0.0)).log_table()
        assert max(seen) <= micro_batch_size
        return log[["loss", "gradient_norm"]].to_numpy()

    np.testing.assert_allclose(losses(3), losses(8), rtol=1e-3)
    assert losses(8)[-1, 0] < losses(8)[0, 0]


def test_the_micro_batch_is_the_batch_unless_the_config_says_otherwise():
    method = LoraMethod(kind="lora", rank=2)
    assert plan_run(method, Training(batch_size=16), 500, torch.float32, 0).micro_batch_size == 16
    training = Training(batch_size=16, micro_batch_size=4)
    assert plan_run(method, training, 500, torch.float32, 0).micro_batch_size == 4
    with pytest.raises(ValueError, match="micro_batch_size"):
        Training(micro_batch_size=0)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_examples():
    model = neox()
    split = Examples(examples(8), CPU)
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(
        TrainingError, match=r"step 1: the loss is nan .*1000, 1001.*learning_rate.*training\.precision"
    ):
        fine_tune(model, split, plan(), lambda number: evaluate(model, split))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.nan_to_num(), weights[name].nan_to_num())


def test_bfloat16_passes_keep_float32_weights():
    torch.manual_seed(0)
    model = neox()
    split = Examples(examples(16), CPU)
    history = fine_tune(model, split, plan(precision=torch.bfloat16), lambda number: evaluate(model, split))
    assert np.isfinite(history.log_table()["loss"]).all()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_empty_splits_and_answers_are_refused():
    with pytest.raises(ValueError, match="no examples"):
        Examples(examples(0), CPU)
    table = examples(3)
    table["answer_ids"] = [[3], [], [4]]
    with pytest.raises(ValueError, match=r"examples \[1001\] have no answer token"):
        Examples(table, CPU)


def test_accuracy_table_has_shares_and_intervals():
    torch.manual_seed(0)
    score = evaluate(neox(), Examples(examples(10), CPU))
    row = accuracy_table([("00", 0, score)], "test", 25, 100).iloc[0]
    assert row["lower"] <= row["accuracy"] <= row["upper"]
    assert (row["trainable_parameters"], row["trainable_share"], row["n"]) == (25, 0.25, 10)
