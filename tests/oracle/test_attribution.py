"""The attribution engine against the decoder that materialises every edge, and against what must hold of it."""

from __future__ import annotations

import pytest
import torch
from naive_decoder import Carry, NaiveDecoder, naive_of, whole
from random_models import MODELS, POST_NORM_MODELS, ROUNDING, one_token_pairs, random_pairs, small_llama
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.circuits.attribution import clean_weights, gauss_legendre, score_edges
from circuitdrift.circuits.prompts import PromptPairs
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.anatomy import anatomy_of
from circuitdrift.decoder.graph import Graph

every_model = pytest.mark.parametrize("name", [name for name in MODELS if name not in POST_NORM_MODELS])


def assert_scores_equal(found: Tensor, expected: Tensor, largest: float | None = None) -> None:
    """Equal up to the rounding of the largest score: of those expected, or of a whole that they are a part of."""
    largest = expected.abs().max().item() if largest is None else largest
    torch.testing.assert_close(found, expected, rtol=10 * ROUNDING, atol=ROUNDING * largest)


def kl(reference: Tensor, logits: Tensor) -> Tensor:
    p = reference.softmax(-1)
    return (p * (p.log() - logits.softmax(-1).log())).sum()


def naive_steps(decoder: NaiveDecoder, clean: list[int], corrupted: list[int], weights: list[float]):
    """Of one pair: clean logits, differences (corrupted - clean) of each writer, embeddings of each step."""
    x_clean, x_corrupted = decoder.embedding[clean], decoder.embedding[corrupted]
    logits, z_clean = decoder.run(x_clean, whole)
    _, z_corrupted = decoder.run(x_corrupted, whole)
    differences = {u: z_corrupted[u] - z_clean[u] for u in z_clean}
    return logits, differences, [x_corrupted + a * (x_clean - x_corrupted) for a in weights]


def naive_scores(
    model: PreTrainedModel, graph: Graph, clean, corrupted, weights: list[float], shares: list[float]
) -> Tensor:
    """Scores [example, writers, readers] by autograd on a private copy for every edge, all steps kept."""
    decoder = naive_of(model)
    edges = [(graph.writers[u], graph.readers[v]) for u, v in graph.edge_mask.nonzero().tolist()]
    scores = torch.zeros(len(clean), graph.edge_mask.sum(), dtype=torch.float64)
    for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)):
        logits, differences, steps = naive_steps(decoder, a, b, weights)
        for x, share in zip(steps, shares, strict=True):
            copies = {edge: torch.zeros_like(x, requires_grad=True) for edge in edges}
            run, _ = decoder.run(x, lambda u, v, z, copies=copies: z + copies[u, v])
            gradients = torch.autograd.grad(kl(logits, run), [copies[edge] for edge in edges])
            products = [(differences[u] * g).sum() for (u, _), g in zip(edges, gradients, strict=True)]
            scores[i] += torch.stack(products) * share
    placed = torch.zeros(len(clean), *graph.edge_mask.shape, dtype=torch.float64)
    placed[:, graph.edge_mask] = scores
    return placed


THIRDS = [1 / 3] * 3
ROOT = 0.6**0.5 / 2
QUADRATURES = {
    "right": ([1 / 3, 2 / 3, 1], THIRDS),
    "left": ([0, 1 / 3, 2 / 3], THIRDS),
    "midpoint": ([1 / 6, 1 / 2, 5 / 6], THIRDS),
    "gauss-legendre": ([0.5 - ROOT, 0.5, 0.5 + ROOT], [5 / 18, 8 / 18, 5 / 18]),
}
"""Points and shares of three steps, by hand."""


@every_model
@pytest.mark.parametrize("quadrature", list(QUADRATURES))
def test_scores_are_those_of_private_copies(name: str, quadrature: str) -> None:
    model, (clean, corrupted) = MODELS[name](), random_pairs(5)
    anatomy = anatomy_of(model)
    recipe = Attribution(steps=3, quadrature=quadrature, folds=4)
    found = score_edges(anatomy, one_token_pairs(clean, corrupted), recipe, 3)
    expected = naive_scores(model, anatomy.graph, clean, corrupted, *QUADRATURES[quadrature])
    assert expected.abs().max() > 1e-3
    assert found.fold_sizes == (2, 1, 1, 1)
    folds = [(scores, expected[fold::4]) for fold, scores in enumerate(found.by_fold)]
    for tensor, of in ((found.scores, expected), *folds):
        assert tensor.dtype == torch.float32
        assert_scores_equal(tensor.double(), of.mean(0), largest=expected.abs().max().item())


@every_model
def test_scores_are_finite_differences(name: str) -> None:
    """One step at the midpoint: the score is the slope of the objective as one edge moves along its difference."""
    model, (clean, corrupted) = MODELS[name](), random_pairs(2)
    anatomy, decoder = anatomy_of(model), naive_of(model)
    found = score_edges(anatomy, one_token_pairs(clean, corrupted), Attribution(steps=1, quadrature="midpoint"), 8)
    edges = anatomy.graph.edge_mask.nonzero().tolist()[::7]
    h, rounding = 1e-5, ROUNDING * found.scores.abs().max().item()
    for u, v in edges:
        edge = (anatomy.graph.writers[u], anatomy.graph.readers[v])
        slopes = []
        for a, b in zip(clean, corrupted, strict=True):
            logits, differences, (x,) = naive_steps(decoder, a, b, [0.5])

            def moved(by: float, edge=edge, differences=differences) -> Carry:
                return lambda w, r, z: z + by * differences[w] if (w, r) == edge else z

            up, down = (kl(logits, decoder.run(x, moved(by))[0]) for by in (h, -h))
            slopes.append((up - down) / (2 * h))
        expected = torch.stack(slopes).mean()
        assert found.scores[u, v].item() == pytest.approx(expected.item(), rel=1e-4, abs=rounding)


@every_model
def test_completeness(name: str) -> None:
    """The edges out of ``input`` add up to the objective's change from clean to corrupted, where it is zero at clean.

    Their gradients sum to the total derivative by the embedding, along which the integral is taken; for no other
    writer or reader is the path of integration straight, so nothing of the kind holds elsewhere. The steps are many
    because the integrand has a sharp peak where the path passes near the origin of a norm's input.
    """
    model, (clean, corrupted) = MODELS[name](), random_pairs(4)
    recipe = Attribution(steps=1600, quadrature="midpoint")
    found = score_edges(anatomy_of(model), one_token_pairs(clean, corrupted), recipe, 8)
    decoder = naive_of(model)
    changes = [
        kl(decoder.run(decoder.embedding[a], whole)[0], decoder.run(decoder.embedding[b], whole)[0])
        for a, b in zip(clean, corrupted, strict=True)
    ]
    assert found.scores[0].sum().item() == pytest.approx(torch.stack(changes).mean().item(), rel=0.001)


@every_model
def test_batching_and_shared_prefixes_change_nothing(name: str) -> None:
    """In batches of one each pair drops all it shares; in one batch only what all pairs share is dropped."""
    anatomy, (clean, corrupted) = anatomy_of(MODELS[name]()), random_pairs(9)
    all_at_once = score_edges(anatomy, one_token_pairs(clean, corrupted), Attribution(), 32)
    for size in (1, 2, 5):
        batched = score_edges(anatomy, one_token_pairs(clean, corrupted), Attribution(), size)
        assert_scores_equal(batched.scores, all_at_once.scores)
        assert_scores_equal(batched.by_fold, all_at_once.by_fold)


def test_there_are_no_more_folds_than_examples() -> None:
    anatomy, (clean, corrupted) = anatomy_of(small_llama()), random_pairs(3)
    found = score_edges(anatomy, one_token_pairs(clean, corrupted), Attribution(folds=16), 2)
    assert found.fold_sizes == (1, 1, 1)
    assert_scores_equal(found.by_fold.mean(dim=0), found.scores)


def test_weights_of_the_clean_embedding() -> None:
    assert clean_weights(5, "right") == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert clean_weights(2, "left") == [0.0, 0.5]
    assert clean_weights(2, "midpoint") == [0.25, 0.75]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gauss_legendre_integrates_polynomials_of_twice_as_many_steps(steps: int) -> None:
    points, shares = gauss_legendre(steps)
    assert clean_weights(steps, "gauss-legendre") == points
    for degree in range(2 * steps):
        found = sum(share * point**degree for point, share in zip(points, shares, strict=True))
        assert found == pytest.approx(1 / (degree + 1), rel=1e-12)
    degree = 2 * steps
    assert sum(s * p**degree for p, s in zip(points, shares, strict=True)) != pytest.approx(1 / (degree + 1), rel=1e-9)


def test_steps_without_ends_have_no_conductance() -> None:
    with pytest.raises(ValueError, match="needs the ends of its steps"):
        Attribution(attribution="ceap", quadrature="gauss-legendre")


@pytest.mark.parametrize(
    "settings",
    [
        {"attribution": "eap"},
        {"attribution": "relp"},
        {"attribution": "gim"},
        {"steps": 1},
        {"attribution": "ceap", "steps": 1},
    ],
)
def test_recipes_without_any_gradient_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"on the clean prompt|only the clean prompt"):
        Attribution.model_validate(settings)


def ungrouped(grouped: PreTrainedModel) -> PreTrainedModel:
    """A model without groups whose key and value weights are the grouped model's, repeated."""
    model = small_llama(n_groups=grouped.config.num_attention_heads)
    groups, d_head = grouped.config.num_key_value_heads, grouped.model.layers[0].self_attn.head_dim
    state = grouped.state_dict()
    for key in state:
        if "k_proj" in key or "v_proj" in key:
            repeated = state[key].unflatten(0, (groups, d_head)).repeat_interleave(4 // groups, dim=0)
            state[key] = repeated.flatten(0, 1)
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_groups_score_as_their_ungrouped_twin(n_groups: int, attention: str) -> None:
    grouped, (clean, corrupted) = small_llama(n_groups), random_pairs(5)
    twin = ungrouped(grouped)
    grouped.set_attn_implementation(attention)
    ids = torch.tensor([clean[0]])
    torch.testing.assert_close(grouped(ids).logits, twin(ids).logits, rtol=ROUNDING, atol=ROUNDING)
    found = score_edges(anatomy_of(grouped), one_token_pairs(clean, corrupted), Attribution(), 8)
    expected = score_edges(anatomy_of(twin), one_token_pairs(clean, corrupted), Attribution(), 8)
    assert_scores_equal(found.scores, expected.scores)


def test_the_model_is_left_as_it_was() -> None:
    model, (clean, corrupted) = small_llama(2), random_pairs(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = model(torch.tensor([clean[0]])).logits
    score_edges(anatomy_of(model), one_token_pairs(clean, corrupted), Attribution(), 8)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(torch.tensor([clean[0]])).logits, logits)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert {layer.self_attn.num_key_value_groups for layer in model.model.layers} == {2}


def test_pairs_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"example 1: .*2 tokens.*3"):
        one_token_pairs([[1, 2], [3, 4]], [[1, 3], [3, 4, 5]])


def test_an_objective_without_its_corrupted_answers_is_refused() -> None:
    pairs = PromptPairs([[1, 2], [3, 4]], [[1, 3], [3, 5]], [[1], [2]], [[3], []])
    with pytest.raises(ValueError, match="example 1 has no corrupted answer"):
        score_edges(anatomy_of(small_llama()), pairs, Attribution(objective="logit_difference"), 8)


def test_equal_prompts_score_zero() -> None:
    pairs = one_token_pairs([[1, 2], [3, 4]], [[1, 2], [3, 4]])
    assert not score_edges(anatomy_of(small_llama()), pairs, Attribution(), 8).scores.any()
