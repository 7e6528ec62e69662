"""The count of floating-point operations, against a formula on paper and against whole steps under torch's counter."""

import numpy as np
import pytest
import torch
from small_models import ARCHITECTURES, examples, neox, random_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from circuitdrift.config.methods import (
    AdaLoraMethod,
    DoraMethod,
    FullMethod,
    GrpoMethod,
    Ia3Method,
    LoraMethod,
    MethodConfig,
    Training,
)
from circuitdrift.decoder.linears import block_linears
from circuitdrift.training.adalora import rank_schedule
from circuitdrift.training.adapters import causal_lm
from circuitdrift.training.cost import count_step_cost
from circuitdrift.training.evaluation import Score
from circuitdrift.training.examples import Examples
from circuitdrift.training.loop import accumulate_gradients, fine_tune, plan_run, rows_of_step
from circuitdrift.training.preparation import prepare_model

CPU = torch.device("cpu")
FULL = FullMethod(kind="full")
LORA = LoraMethod(kind="lora", rank=3)
METHODS = {
    "full": FULL,
    "lora": LORA,
    "dora": DoraMethod(kind="dora", rank=3),
    "adalora": AdaLoraMethod(kind="adalora", initial_rank=6, target_rank=2),
    "ia3": Ia3Method(kind="ia3"),
}
ALIKE = {"lengths": (6,), "answer_tokens": (1,)}
MIXED = {"lengths": (5, 7), "answer_tokens": (1, 2), "instruction": (3, 9, 4, 1)}


def prepared(method: MethodConfig, model=None):
    torch.manual_seed(0)
    model = random_model("gpt_neox") if model is None else model
    split = Examples(examples(13, **MIXED), CPU)
    return prepare_model(model, ("tiny", None), method, 2.0, None, split, 24, 0)


def step_cost(model, split, micro_batch_size=13):
    return count_step_cost(causal_lm(model), split, micro_batch_size, torch.float32, rank_schedule(model))


def counted(model, split, rows, micro_batch_size):
    """The slow twin: a whole step, with AdaLoRA's penalty, under torch's counter."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _, batches = accumulate_gradients(causal_lm(model), split, rows, micro_batch_size, torch.float32)
        if ranks := rank_schedule(model):
            torch.autograd.backward(ranks.penalty())
    model.zero_grad()
    return counter.get_total_flops(), batches


def on_paper(model, n_examples, length, rank):
    """FLOPs of a step of a GPT-NeoX with parallel blocks; rank 0 for full fine-tuning.

    Forward 2 a weight and token; 2 more for the gradient of the inputs, where anything before them is trained, and 2
    for that of the weights, where they are.
    """
    config, tokens = model.config, n_examples * length
    flops = 0
    for linear in block_linears(model):
        weights = linear.in_features * linear.out_features
        first = linear.layer == 0 and linear.name.endswith(("query_key_value", "dense_h_to_4h"))
        before = 0 if first and rank else 1
        flops += 2 * tokens * weights * (1 + before + (0 if rank else 1))
        flops += 2 * tokens * rank * linear.in_features * (1 + before + 1)
        flops += 2 * tokens * rank * linear.out_features * 3
    attention = 2 * n_examples * length**2 * config.hidden_size
    flops += config.num_hidden_layers * 3 * 2 * attention
    return flops + 2 * n_examples * config.vocab_size * config.hidden_size * (2 if rank else 3)


@pytest.mark.parametrize(("method", "rank"), [(FULL, 0), (LORA, 3)], ids=["full", "lora"])
def test_the_count_is_that_on_paper(method, rank):
    shape = neox(layers=3)
    model = prepared(method, neox(layers=3))
    split = Examples(examples(9, **ALIKE), CPU)
    assert split.batches[0].n_shared == 0
    found = step_cost(model, split).of(split.batches)
    assert found == pytest.approx(on_paper(shape, 9, 6, rank), rel=1e-4)  # but for the rotary angles


CASES = [
    *((name, "gpt_neox") for name in METHODS),
    *(("lora", other) for other in ARCHITECTURES if other != "gpt_neox"),
]


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_a_step_costs_what_is_counted_over_the_whole_of_it(name, architecture):
    model = prepared(METHODS[name], random_model(architecture))
    split = Examples(examples(13, **MIXED), CPU)
    assert split.batches[0].n_shared == 4
    cost = step_cost(model, split)
    for rows, micro_batch_size in ((np.arange(13), 13), (np.arange(4, 11), 2)):
        expected, batches = counted(model, split, rows, micro_batch_size)
        assert cost.of(batches) == expected


def test_with_passes_of_one_example_none_of_two_is_made():
    model = prepared(LORA)
    split = Examples(examples(6, **MIXED), CPU)
    seen = []
    causal_lm(model).lm_head.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    cost = step_cost(model, split, micro_batch_size=1)
    assert set(seen) == {1}
    expected, batches = counted(model, split, np.arange(6), 1)
    assert cost.of(batches) == expected


def test_the_attention_kernel_makes_no_difference():
    eager, fused = random_model("llama"), random_model("llama")
    fused.set_attn_implementation("sdpa")
    split = Examples(examples(6, **ALIKE), CPU)
    assert step_cost(fused, split).of(split.batches) == step_cost(eager, split).of(split.batches)


def test_counting_leaves_the_model_as_it_was():
    model = prepared(METHODS["adalora"])
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    step_cost(model, Examples(examples(6, **MIXED), CPU))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_log_adds_up_the_steps():
    model = prepared(METHODS["adalora"])
    split = Examples(examples(13, **MIXED), CPU)
    plan = plan_run(METHODS["adalora"], Training(epochs=2, batch_size=4, checkpoints=1), 13, torch.float32, 0)
    log = fine_tune(model, split, plan, lambda number: Score((True,), 0.0)).log_table()
    steps = [counted(model, split, rows_of_step(step, 13, plan), 4)[0] for step in log["step"]]
    assert log["flops"].tolist() == np.cumsum(steps).tolist()


def test_sampling_is_part_of_what_a_step_on_sampled_answers_costs():
    split = Examples(examples(13, **MIXED), CPU)

    def flops_of(method):
        plan = plan_run(method, Training(epochs=1, batch_size=4, checkpoints=1), 13, torch.float32, 0)
        return fine_tune(prepared(method), split, plan, lambda number: Score((True,), 0.0)).flops

    # Torch has no formula for a product that is added in place.
    in_place = {torch.ops.aten.addmm_: lambda total, one, other, **_: 2 * one[0] * one[1] * other[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        sampled = flops_of(GrpoMethod(kind="grpo", rank=3, group_size=4))
    assert sampled == counter.get_total_flops()
    assert sampled > flops_of(LORA)
