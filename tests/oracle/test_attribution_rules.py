"""RelP and GIM against the naive decoder, in which plain autograd meets detached scales, ratios and shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import naive_decoder
import pytest
import torch
from naive_decoder import NaiveDecoder, NaiveHead, naive_of, then
from random_models import MODELS, ROUNDING, one_token_pairs, random_pairs, small, small_llama
from test_attribution_methods import answered_pairs, naive_scores
from torch import Tensor, nn
from transformers import GPTNeoXConfig, PreTrainedModel

from circuitdrift.circuits.attribution import score_edges
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.anatomy import AnatomyError, anatomy_of

Apply = Callable[[Tensor], Tensor]

every_model = pytest.mark.parametrize("name", list(MODELS))
both_rules = pytest.mark.parametrize("method", ["relp", "gim"])


def as_identity(function: Apply) -> Apply:
    return lambda x: x * (function(x) / x).detach()


def share(part: float) -> Apply:
    """The same value, with a part of its gradient."""
    return lambda x: part * x + (1 - part) * x.detach()


def softmax_at_two(scores: Tensor) -> Tensor:
    """Softmax, with the Jacobian of the softmax of half the scores."""
    softer = 2 * (scores / 2).softmax(dim=-1)
    return softer - softer.detach() + scores.softmax(dim=-1).detach()


def with_rules(model: PreTrainedModel, method: str, monkeypatch: pytest.MonkeyPatch) -> NaiveDecoder:
    """The naive decoder with the same values and other derivatives."""
    scale = naive_decoder.root_mean_square
    monkeypatch.setattr(naive_decoder, "root_mean_square", lambda x, epsilon: scale(x, epsilon).detach())
    if method == "relp":
        functions = {name: as_identity(getattr(nn.functional, name)) for name in ("gelu", "relu", "silu")}
        monkeypatch.setattr(naive_decoder, "functional", SimpleNamespace(**functions))
        monkeypatch.setattr(naive_decoder, "gelu_new", as_identity(naive_decoder.gelu_new))
    decoder = naive_of(model)
    for layer in decoder.layers:
        if any("gate_proj" in name for name in model.state_dict()):
            layer.mlp = then(layer.mlp, share(0.5))
        if method == "gim":
            layer.heads = [shared(head) for head in layer.heads]
    return replace(decoder, softmax=softmax_at_two) if method == "gim" else decoder


def shared(head: NaiveHead) -> NaiveHead:
    parts = {"q": 0.25, "k": 0.25, "v": 0.5}
    return replace(head, read={c: then(read, share(parts[c])) for c, read in head.read.items()})


@every_model
@both_rules
def test_scores_are_those_of_detached_factors(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = MODELS[name](), answered_pairs(3, 2)
    anatomy, decoder = anatomy_of(model), with_rules(model, method, monkeypatch)
    recipe = Attribution(attribution=method, objective="logit_difference")
    found = score_edges(anatomy, pairs, recipe, 2).scores.double()
    expected = naive_scores(decoder, anatomy.graph, pairs, recipe)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=10 * ROUNDING, atol=10 * ROUNDING * expected.abs().max().item())


@both_rules
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_model_is_left_as_it_was(method: str, attention: str) -> None:
    model, pairs = small_llama(2), one_token_pairs(*random_pairs(4))
    model.set_attn_implementation(attention)
    logits = model(torch.tensor([pairs.clean[0]])).logits
    recipes = [Attribution(attribution=name, objective="logit_difference") for name in ("eap", method)]
    before, by_rule, after = (
        score_edges(anatomy_of(model), pairs, recipe, 4).scores for recipe in (*recipes, recipes[0])
    )
    assert torch.equal(before, after)
    assert not torch.allclose(before, by_rule)
    assert torch.equal(model(torch.tensor([pairs.clean[0]])).logits, logits)
    assert model.config._attn_implementation == attention
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


def linear_model() -> PreTrainedModel:
    """One block that is linear in the embeddings: norms that divide by a million, constant weights of attention."""
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    options = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 1, "rope_parameters": rotary}
    model = small(GPTNeoXConfig, 3, hidden_act="linear", layer_norm_eps=1e12, **options)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.mul_(1e6)
        fused = model.gpt_neox.layers[0].attention.query_key_value
        for part in (fused.weight, fused.bias):
            part.view(3, 3, 4, -1)[:, :2] = 0
    return model


def test_on_a_linear_model_rules_give_the_effects_of_patching() -> None:
    """GIM halves what enters through values: its shares are meant for two factors that both change."""
    anatomy, pairs = anatomy_of(linear_model()), one_token_pairs(*random_pairs(3))
    exact, relevance, interactions = (
        score_edges(anatomy, pairs, Attribution(attribution=method, objective="logit_difference"), 3).scores
        for method in ("exact", "relp", "gim")
    )
    largest = exact.abs().max().item()
    assert largest > 1e-3
    torch.testing.assert_close(relevance, exact, rtol=1e-5, atol=1e-5 * largest)
    into_values = torch.tensor(["<v>" in reader for reader in anatomy.graph.readers])
    assert exact[:, into_values].abs().max() > 1e-3
    torch.testing.assert_close(interactions, exact / (1 + into_values.float()), rtol=1e-5, atol=1e-5 * largest)


def spoilt(model: PreTrainedModel, path: str, module: nn.Module) -> PreTrainedModel:
    model.set_submodule(path, module)
    return model.double()


class OtherNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("method", "path", "module", "reason"),
    [
        ("relp", "model.layers.1.mlp.act_fn", nn.Sigmoid(), "Sigmoid is not zero at zero"),
        ("relp", "model.layers.1.mlp.act_fn", nn.Identity(), "none of torch or transformers as a module"),
        ("gim", "model.layers.0.self_attn.o_proj", nn.Sequential(OtherNorm(), nn.Linear(16, 16)), "OtherNorm"),
        ("gim", "model.layers.0.mlp.up_proj", nn.Linear(16, 7), "its input maps make 27 numbers"),
    ],
)
def test_a_module_that_no_rule_fits_is_refused(method: str, path: str, module: nn.Module, reason: str) -> None:
    model = small_llama(2)
    anatomy = anatomy_of(model)
    spoilt(model, path, module)
    recipe = Attribution(attribution=method, objective="logit_difference")
    with pytest.raises(AnatomyError, match=rf"{method}.*{reason}"):
        score_edges(anatomy, one_token_pairs(*random_pairs(2)), recipe, 2)


def test_attention_without_a_softmax_of_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_hand(scores: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        weights = scores.exp()
        return weights / weights.sum(dim=dim, keepdim=True)

    model = small_llama(2)
    monkeypatch.setattr("transformers.models.llama.modeling_llama.nn.functional.softmax", by_hand)
    recipe = Attribution(attribution="gim", objective="logit_difference")
    with pytest.raises(AnatomyError, match="each of 2 blocks, but the model called it 0 times"):
        score_edges(anatomy_of(model), one_token_pairs(*random_pairs(2)), recipe, 2)
