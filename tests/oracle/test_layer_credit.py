"""Layer credits on real models whose change is known: an unused head, a doubled head, a doubled model."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from random_models import one_token_pairs, random_pairs, randomised, small, small_gpt_neox, small_llama
from torch import Tensor
from transformers import GPTNeoXConfig, PreTrainedModel

from circuitdrift.circuits.attribution import score_edges
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.config.methods import Credit
from circuitdrift.decoder.anatomy import anatomy_of
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.fold_circuits import rows_of_scores
from circuitdrift.drift.layer_certainty import LayerResamples, merged_inputs, resample_layers
from circuitdrift.drift.reliability import FoldScores

FOLDS = 8
EVERY_EDGE = Selection(fraction=1.0)
CREDITS: tuple[Credit, ...] = ("source", "target", "both")


def scored(model: PreTrainedModel) -> tuple[Graph, FoldScores]:
    anatomy = anatomy_of(model)
    recipe = Attribution(steps=4, quadrature="midpoint", folds=FOLDS)
    found = score_edges(anatomy, one_token_pairs(*random_pairs(2 * FOLDS)), recipe, 8)
    by_fold = found.by_fold[:, anatomy.graph.edge_mask].double().numpy()
    return anatomy.graph, FoldScores(by_fold, np.array(found.fold_sizes))


def changes(before: PreTrainedModel, after: PreTrainedModel, credit: Credit) -> LayerResamples:
    (graph, first), (_, last) = scored(before), scored(after)
    return resample_layers(graph, first, last, EVERY_EDGE, credit, 100)


def neox_head(model: PreTrainedModel, layer: int, head: int) -> tuple[Tensor, Tensor]:
    """The rows of q, k and v of a head, and its columns of the output projection."""
    attention = model.gpt_neox.layers[layer].attention
    size = attention.head_size
    inputs = attention.query_key_value.weight.view(-1, 3 * size, attention.query_key_value.in_features)[head]
    return inputs, attention.dense.weight[:, head * size : (head + 1) * size]


def llama_head(model: PreTrainedModel, layer: int, head: int) -> tuple[Tensor, Tensor]:
    """The rows of q of a head, and its columns of the output projection."""
    attention = model.model.layers[layer].self_attn
    places = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
    return attention.q_proj.weight[places], attention.o_proj.weight[:, places]


@pytest.mark.parametrize(
    ("make", "head_of"),
    [
        (lambda: small_gpt_neox(parallel=True), neox_head),
        (lambda: small_gpt_neox(parallel=False), neox_head),
        (small_llama, llama_head),
    ],
)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_head_that_writes_nothing_drifts_by_nothing_however_it_is_fed(
    make: Callable[[], PreTrainedModel], head_of: Callable[..., tuple[Tensor, Tensor]], layer: int
) -> None:
    before = make()
    with torch.no_grad():
        head_of(before, layer, 1)[1].zero_()
    after = deepcopy(before)
    with torch.no_grad():
        fed, _ = head_of(after, layer, 1)
        fed.copy_(fed.flip(0) * 1.7 + 0.3)
    (graph, first), (_, last) = scored(before), scored(after)
    assert not torch.equal(head_of(before, layer, 1)[0], head_of(after, layer, 1)[0])
    largest = np.abs(first.scores).max()
    np.testing.assert_allclose(last.scores, first.scores, atol=1e-6 * largest)
    for credit in CREDITS:
        found = resample_layers(graph, first, last, EVERY_EDGE, credit, 100)
        total = np.abs(first.scores).sum()
        assert found.by_policy["score_change"].max() < 1e-5 * total
        assert found.by_policy["score_change_normalised"].max() < 1e-5
        assert np.abs(found.excess).max() < 1e-10


def deep_model(seed: int) -> PreTrainedModel:
    """Four blocks in parallel form, whose attention and MLP write little, but for the attention of the last block."""
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 4, "tie_word_embeddings": False}
    model = randomised(small(GPTNeoXConfig, 3, use_parallel_residual=True, rope_parameters=rotary, **sizes), seed)
    with torch.no_grad():
        for block in model.gpt_neox.layers:
            for projection in (block.attention.dense, block.mlp.dense_4h_to_h):
                projection.weight.mul_(0.3)
                projection.bias.zero_()
        model.gpt_neox.layers[-1].attention.dense.weight.mul_(3)
    return model


def concentration(graph: Graph, scores: FoldScores, layer: int, head: int) -> float:
    """Sum of squares of the edges out of a head, over that of its edges from any one earlier layer."""
    mean = rows_of_scores(graph, scores.means(np.ones((1, FOLDS), dtype=bool)))
    merged = merged_inputs(graph, mean)[0].numpy()
    node = graph.heads(layer).start + head
    of_writer = graph.layer_of_node[: graph.n_writers].numpy()
    read = [(merged[of_writer == earlier, node] ** 2).sum() for earlier in range(layer)]
    return float((merged[node] ** 2).sum() / max(read))


def test_doubling_a_head_ranks_its_layer_first_by_excess() -> None:
    """What must come out, and where.

    A head with twice the output doubles the scores of its outgoing edges, which are credited to its own layer. The
    same effect flows through its incoming edges: their scores double too and, by source credit, count for the layers
    below. Sums of absolute changes are about equal on both sides of the head, so the layers below can win. Squares
    favour the side with fewer, larger edges: a head of the last block has one outgoing edge, and many incoming ones.
    So excess must rank its layer first wherever the squares of its outgoing edges clearly exceed those of its edges
    from any single layer below; here, by a factor of five.
    """
    tested = 0
    for seed in range(3):
        model = deep_model(seed)
        graph, before = scored(model)
        for head in range(graph.n_heads):
            if concentration(graph, before, 3, head) < 5:
                continue
            doubled = deepcopy(model)
            with torch.no_grad():
                neox_head(doubled, 3, head)[1].mul_(2)
            _, after = scored(doubled)
            found = resample_layers(graph, before, after, EVERY_EDGE, "source", 100)
            assert found.excess is not None
            assert int(found.excess.argmax()) == 3, (seed, head)
            tested += 1
            # The paper's rule names layer 0 in these models: nearly all incoming edges of all later nodes start there.
            assert (found.by_policy["score_change"].argmax(axis=1) == 0).mean() > 0.9
    assert tested >= 3


def test_a_model_that_computes_the_same_on_twice_the_scale_changes_nothing_when_normalised() -> None:
    graph, before = scored(small_gpt_neox(parallel=True))
    after = FoldScores(2 * before.scores, before.sizes)
    found = resample_layers(graph, before, after, Selection(fraction=0.3), "source", 100)
    assert found.excess is not None
    np.testing.assert_allclose(found.excess, 0, atol=1e-15)
    np.testing.assert_allclose(found.by_policy["score_change_normalised"], 0, atol=1e-12)
    assert (found.by_policy["score_change"].sum(axis=1) > 0).all()
