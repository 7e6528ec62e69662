"""Circuit runs against the decoder that materialises every edge."""

from __future__ import annotations

import pytest
import torch
from naive_decoder import naive_of, whole
from random_models import MODELS, MODELS_AND_ATTENTIONS, ROUNDING, one_token_pairs, random_pairs

from circuitdrift.circuits.ablation import run_circuits
from circuitdrift.circuits.prompts import pair_batches
from circuitdrift.decoder.anatomy import anatomy_of

every_model = pytest.mark.parametrize("name", list(MODELS))


@pytest.mark.parametrize(("name", "attention"), MODELS_AND_ATTENTIONS)
def test_arbitrary_circuits(name: str, attention: str) -> None:
    model, (clean, corrupted) = MODELS[name](), random_pairs(6)
    model.set_attn_implementation(attention)
    anatomy, decoder = anatomy_of(model), naive_of(model)
    graph = anatomy.graph
    generator = torch.Generator().manual_seed(3)
    circuits = [
        graph.edge_mask & (torch.rand(graph.edge_mask.shape, generator=generator) < share) for share in (0.2, 0.5, 0.9)
    ]
    for batch in pair_batches(one_token_pairs(clean, corrupted), 2, anatomy.device):
        runs = run_circuits(anatomy, batch, torch.stack(circuits), at_once=2)
        for row, i in enumerate(batch.indices):
            _, other = decoder.run(decoder.embedding[corrupted[i]], whole)
            for circuit, logits in zip(circuits, runs.circuits, strict=True):
                kept = {(graph.writers[u], graph.readers[v]) for u, v in circuit.nonzero().tolist()}

                def carry(u, v, z, kept=kept, other=other):
                    return z if (u, v) in kept else other[u]

                expected, _ = decoder.run(decoder.embedding[clean[i]], carry)
                torch.testing.assert_close(logits[row, -1], expected, rtol=ROUNDING, atol=ROUNDING)


@every_model
def test_all_edges_give_the_clean_run_and_none_the_corrupted(name: str) -> None:
    model, (clean, corrupted) = MODELS[name](), random_pairs(6)
    anatomy = anatomy_of(model)
    mask = anatomy.graph.edge_mask
    for batch in pair_batches(one_token_pairs(clean, corrupted), 4, anatomy.device):
        runs = run_circuits(anatomy, batch, torch.stack([mask, torch.zeros_like(mask)]))
        torch.testing.assert_close(
            runs.circuits[0][:, -1], model(batch.clean).logits[:, -1], rtol=ROUNDING, atol=ROUNDING
        )
        torch.testing.assert_close(
            runs.circuits[1][:, -1], model(batch.corrupted).logits[:, -1], rtol=ROUNDING, atol=ROUNDING
        )
        torch.testing.assert_close(runs.clean, runs.circuits[0], rtol=ROUNDING, atol=ROUNDING)
        torch.testing.assert_close(runs.ablated, runs.circuits[1], rtol=ROUNDING, atol=ROUNDING)


def test_an_edge_that_the_graph_lacks_is_refused() -> None:
    anatomy = anatomy_of(MODELS["llama grouped"]())
    (batch,) = pair_batches(one_token_pairs([[1, 2]], [[1, 3]]), 1, anatomy.device)
    with pytest.raises(ValueError, match="not in this model's graph"):
        run_circuits(anatomy, batch, torch.ones_like(anatomy.graph.edge_mask)[None])
