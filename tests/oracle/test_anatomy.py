"""The description of each architecture, and the refusal of what is not described."""

from __future__ import annotations

import pytest
import torch
from naive_decoder import MODELS, ROUNDING, naive_of, whole
from transformers import GPT2Config, GPT2LMHeadModel

from circuitdrift.models.anatomy import AnatomyError, anatomy_of
from circuitdrift.models.tracing import check_anatomy

PROMPT = [3, 1, 4, 1, 5]


@pytest.mark.parametrize("name", list(MODELS))
def test_described_models_pass_the_check_in_every_precision(name: str) -> None:
    model = MODELS[name]()
    decoder = naive_of(model)
    expected, _ = decoder.run(decoder.embedding[PROMPT], whole)
    torch.testing.assert_close(model(torch.tensor([PROMPT])).logits[0, -1], expected, rtol=ROUNDING, atol=ROUNDING)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        check_anatomy(anatomy_of(model.to(dtype)), torch.tensor([PROMPT]))


@pytest.mark.parametrize("name", list(MODELS))
def test_a_stream_that_something_else_writes_to_is_found(name: str) -> None:
    model = MODELS[name]()
    anatomy = anatomy_of(model)
    layer = anatomy.backbone.layers[0]
    layer.register_forward_hook(lambda module, args, output: output + 0.01)
    with pytest.raises(AnatomyError, match="differ from the residual stream by"):
        check_anatomy(anatomy, torch.tensor([PROMPT]))


def test_unknown_architectures_are_refused_by_name() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11)).eval()
    with pytest.raises(AnatomyError, match=r"GPT2LMHeadModel .*supported are GPTNeoXForCausalLM, LlamaForCausalLM"):
        anatomy_of(model)


def test_training_mode_is_refused() -> None:
    with pytest.raises(AnatomyError, match=r"call \.eval"):
        anatomy_of(MODELS["llama tied"]().train())
