"""The oracles of circuits on each further architecture, one variant of its options at a time.

The tests of the first architectures run more settings of the engine on each model (test_anatomy.py, test_ablation.py,
test_attribution.py). The engine does not tell architectures apart, so here each variant runs each oracle once.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import test_attribution_methods
import torch
from naive_decoder import NaiveDecoder, naive_of, whole
from random_models import FURTHER_MODELS, MODELS, ROUNDING, one_token_pairs, random_pairs
from test_attribution import assert_scores_equal, naive_scores
from torch import Tensor

from circuitdrift.circuits.ablation import Ablation, ablated_activations, batches_for, run_circuits
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.prompts import pair_batches
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.anatomy import AnatomyError, anatomy_of
from circuitdrift.decoder.architectures import ARCHITECTURES
from circuitdrift.decoder.tracing import (
    Prefix,
    check_anatomy,
    one_key_per_query_head,
    run_prefix,
    trace,
    written_by_heads,
)

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]

every_variant = pytest.mark.parametrize("name", list(FURTHER_MODELS))


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=10 * ROUNDING, atol=10 * ROUNDING)


def test_every_architecture_has_a_model() -> None:
    found = {type(make()).__name__ for make in (*MODELS.values(), *FURTHER_MODELS.values())}
    assert found == set(ARCHITECTURES)


@every_variant
def test_writers_are_those_of_the_slow_decoder_and_sum_to_the_stream(name: str) -> None:
    model = FURTHER_MODELS[name]()
    anatomy, decoder, ids = anatomy_of(model), naive_of(model), torch.tensor([PROMPT])
    expected, written = decoder.run(decoder.embedding[PROMPT], whole)
    torch.testing.assert_close(model(ids).logits[0, -1], expected, rtol=ROUNDING, atol=ROUNDING)
    with one_key_per_query_head(anatomy):
        traced = trace(anatomy, anatomy.embed(ids), Prefix(()), n_answer=1)
        prefix = run_prefix(anatomy, ids[:, :5])
        rest = trace(anatomy, anatomy.embed(ids[:, 5:]).repeat(3, 1, 1), prefix, n_answer=1)
    assert_close(traced.logits[0, -1], expected)
    assert_close(rest.logits[2], traced.logits[0])
    assert_close(traced.embeddings[0], written["input"])
    for layer, block in enumerate(anatomy.blocks):
        heads = written_by_heads(block, traced.head_values[layer], anatomy.graph.n_heads)
        for h in range(anatomy.graph.n_heads):
            assert_close(heads[h, 0], written[f"a{layer}.h{h}"])
        assert_close(traced.mlp_outputs[layer][0], written[f"m{layer}"])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        check_anatomy(anatomy_of(model.to(dtype)), ids)


@every_variant
def test_scores_are_those_of_private_copies(name: str) -> None:
    model, (clean, corrupted) = FURTHER_MODELS[name](), random_pairs(3)
    anatomy = anatomy_of(model)
    found = score_edges(anatomy, one_token_pairs(clean, corrupted), Attribution(steps=2, quadrature="midpoint"), 2)
    expected = naive_scores(model, anatomy.graph, clean, corrupted, [0.25, 0.75], [0.5, 0.5])
    assert expected.abs().max() > 1e-3
    assert_scores_equal(found.scores.double(), expected.mean(0))


@every_variant
@pytest.mark.parametrize("ablation", ["patching", "mean"])
def test_circuits_run_as_in_the_slow_decoder(name: str, ablation: Ablation) -> None:
    model, (clean, corrupted) = FURTHER_MODELS[name](), random_pairs(3)
    if ablation == "patching" and model._supports_attention_backend:
        model.set_attn_implementation("sdpa")
    anatomy, decoder = anatomy_of(model), naive_of(model)
    graph = anatomy.graph
    circuit = graph.edge_mask & (torch.rand(graph.edge_mask.shape, generator=torch.Generator().manual_seed(3)) < 0.5)
    kept = {(graph.writers[u], graph.readers[v]) for u, v in circuit.nonzero().tolist()}
    batches = batches_for(ablation, pair_batches(one_token_pairs(clean, corrupted), 2, anatomy.device))
    ablated = ablated_activations(anatomy, batches, ablation)
    others = replacements(decoder, clean, corrupted, ablation)
    for batch in batches:
        circuits = torch.stack([circuit, graph.edge_mask, torch.zeros_like(circuit)])
        runs = run_circuits(anatomy, batch, circuits, ablated)
        assert_close(runs.clean, runs.circuits[1])
        assert_close(runs.ablated, runs.circuits[2])
        for row, i in enumerate(batch.indices):
            other = others(i)
            expected, _ = decoder.run(
                decoder.embedding[clean[i]], lambda u, v, z, other=other: z if (u, v) in kept else other(u, z)
            )
            assert_close(runs.circuits[0, row, -1], expected)
            empty, _ = decoder.run(decoder.embedding[clean[i]], lambda u, v, z, other=other: other(u, z))
            assert_close(runs.ablated[row, -1], empty)


@pytest.mark.parametrize("name", ["bloom", "falcon one norm", "granite", "olmo clipped"])
@pytest.mark.parametrize("method", ["eap-ig-activations", "ceap"])
def test_other_methods_meet_their_slow_twins(name: str, method: str) -> None:
    """On the variants with a part of their own: a norm of embeddings, a shared norm, changes in place, a factor."""
    model, pairs = FURTHER_MODELS[name](), test_attribution_methods.answered_pairs(2, 1)
    anatomy, decoder = anatomy_of(model), naive_of(model)
    recipe = Attribution(attribution=method, steps=2)
    slow = test_attribution_methods.naive_conductance if method == "ceap" else test_attribution_methods.naive_scores
    found = score_edges(anatomy, pairs, recipe, 2).scores.double()
    assert_scores_equal(found, slow(decoder, anatomy.graph, pairs, recipe))


def test_prompts_whose_length_changes_the_rotation_are_refused() -> None:
    anatomy = anatomy_of(FURTHER_MODELS["phi3 longrope"]())
    assert anatomy.longest == 8
    pairs = one_token_pairs([[1] * 9], [[2] * 9])
    with pytest.raises(AnatomyError, match=r"a prompt has 9 tokens, .* use prompts of at most 8 tokens"):
        score_edges(anatomy, pairs, Attribution(), 1)


def replacements(
    decoder: NaiveDecoder, clean: list[list[int]], corrupted: list[list[int]], ablation: Ablation
) -> Callable[[int], Callable[[str, Tensor], Tensor]]:
    """What a writer writes where its edge is ablated: the corrupted pass's, or the mean over all tokens."""
    if ablation == "patching":
        runs = [decoder.run(decoder.embedding[prompt], whole)[1] for prompt in corrupted]
        return lambda i: lambda writer, _: runs[i][writer]
    written = [decoder.run(decoder.embedding[prompt], whole)[1] for prompt in clean]
    means = {writer: torch.cat([run[writer] for run in written]).mean(dim=0) for writer in written[0]}
    return lambda i: lambda writer, own: means[writer].expand_as(own)
