"""Circuits in the models of other checkpoints: against slow twins, and where the answer is known beforehand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from naive_decoder import naive_of, whole
from random_models import MODELS, one_token_pairs, random_pairs, randomised, small_llama

from circuitdrift.circuits.metrics import BOOTSTRAP_SEED, METRICS, faithfulness, measure_circuits, summarise
from circuitdrift.circuits.selection import prune
from circuitdrift.config.circuits import Faithfulness
from circuitdrift.decoder.anatomy import Anatomy, anatomy_of
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.functional import (
    RANDOM,
    RANDOM_CIRCUITS,
    CheckpointCircuit,
    compare_in_model,
    shared_circuit,
)
from circuitdrift.drift.random_circuits import random_circuit

CLEAN, CORRUPTED = random_pairs(10)
PAIRS = one_token_pairs(CLEAN, CORRUPTED)
MEASURE = Faithfulness(bootstrap=100, batch_size=4)
INTERVALS = ["lower", "upper", "difference_lower", "difference_upper"]


def circuits_of(graph: Graph, n: int, share: float = 0.4) -> list[CheckpointCircuit]:
    """Random circuits of checkpoints 00, 01 ..."""
    generator = torch.Generator().manual_seed(3)
    masks = [graph.edge_mask & (torch.rand(graph.edge_mask.shape, generator=generator) < share) for _ in range(n)]
    return [CheckpointCircuit(f"{i:02d}", 0, prune(graph, mask)) for i, mask in enumerate(masks)]


def found(table: pd.DataFrame, checkpoint: str, metric: str) -> pd.Series:
    (row,) = table.index[(table["circuit_checkpoint"] == checkpoint) & (table["metric"] == metric)]
    return table.loc[row]


@pytest.mark.parametrize("name", ["gpt_neox parallel", "gpt2 tied", "llama grouped"])
def test_every_circuit_in_every_model_agrees_with_one_prompt_at_a_time(name: str) -> None:
    """KL divergences by hand from the decoder that materialises every edge."""
    models = [MODELS[name](), randomised(MODELS[name](), seed=9)]
    circuits = circuits_of(anatomy_of(models[0]).graph, 2)
    for own, model in enumerate(models):
        anatomy, decoder = anatomy_of(model), naive_of(model)
        table = compare_in_model(anatomy, PAIRS, circuits[own], [circuits[1 - own]], MEASURE)
        for circuit in circuits:
            edges = circuit.edges.nonzero().tolist()
            kept = {(anatomy.graph.writers[u], anatomy.graph.readers[v]) for u, v in edges}
            of_circuit, of_corrupted = 0.0, 0.0
            for clean, corrupted in zip(CLEAN, CORRUPTED, strict=True):
                ablated, other = decoder.run(decoder.embedding[corrupted], whole)

                def carry(u, v, z, kept=kept, other=other):
                    return z if (u, v) in kept else other[u]

                run, _ = decoder.run(decoder.embedding[clean], carry)
                full, _ = decoder.run(decoder.embedding[clean], whole)
                p = full.softmax(-1)
                of_circuit += float((p * (full.log_softmax(-1) - run.log_softmax(-1))).sum())
                of_corrupted += float((p * (full.log_softmax(-1) - ablated.log_softmax(-1))).sum())
            row = found(table, circuit.checkpoint, "kl_model_circuit")
            assert row["faithfulness"] == pytest.approx(1 - of_circuit / of_corrupted, abs=1e-4)


def test_a_models_own_circuit_has_its_ordinary_faithfulness_and_no_difference() -> None:
    anatomy = anatomy_of(small_llama())
    own, other = circuits_of(anatomy.graph, 2)
    twin = CheckpointCircuit("02", 0, own.edges.clone())
    table = compare_in_model(anatomy, PAIRS, own, [other, twin], MEASURE)
    (outcome,) = measure_circuits(anatomy, PAIRS, own.edges[None], MEASURE)
    for metric in METRICS:
        ordinary = summarise(metric, outcome[metric], MEASURE.bootstrap)
        for checkpoint in ("00", "02"):
            row = found(table, checkpoint, metric)
            for column in ("faithfulness", "lower", "upper"):
                assert row[column] == pytest.approx(ordinary[column], nan_ok=True, abs=1e-6)
            if not np.isnan(row["faithfulness"]):
                assert row[["difference", "difference_lower", "difference_upper"]].tolist() == [0, 0, 0]
    assert found(table, "01", "kl_model_circuit")["difference"] != 0


def test_the_whole_graph_is_faithful_in_every_model_and_no_edges_in_none() -> None:
    for seed in (0, 9):
        anatomy = anatomy_of(randomised(small_llama(), seed=seed))
        mask = anatomy.graph.edge_mask
        nothing = CheckpointCircuit("01", 0, torch.zeros_like(mask))
        table = compare_in_model(anatomy, PAIRS, CheckpointCircuit("00", 0, mask), [nothing], MEASURE)
        assert found(table, "00", "kl_model_circuit")["faithfulness"] == pytest.approx(1, abs=1e-6)
        assert found(table, "01", "kl_model_circuit")["faithfulness"] == pytest.approx(0, abs=1e-6)
        assert found(table, "01", "kl_model_circuit")["difference"] == pytest.approx(-1, abs=1e-6)


def test_a_head_that_writes_nothing_drifts_in_structure_alone() -> None:
    """Its output projection is zero. Another model feeds it otherwise, another circuit reads it: nothing changes."""
    models = [small_llama(n_groups=4), small_llama(n_groups=4)]
    for number, model in enumerate(models):
        attention = model.model.layers[1].self_attn
        width = attention.head_dim
        with torch.no_grad():
            attention.o_proj.weight[:, :width] = 0
            if number:
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                    projection.weight[:width] *= -2
    graph = anatomy_of(models[0]).graph
    head = graph.nodes.index("a1.h0")
    (circuit,) = circuits_of(graph, 1)
    without, through = circuit.edges.clone(), circuit.edges.clone()
    without[head] = False
    without[:, graph.node_of_reader == head] = False
    through[head] = graph.edge_mask[head]
    through[:, graph.node_of_reader == head] = graph.edge_mask[:, graph.node_of_reader == head]
    assert not torch.equal(without, through)
    own, other = CheckpointCircuit("00", 0, without), CheckpointCircuit("01", 0, through)
    tables = [compare_in_model(anatomy_of(model), PAIRS, own, [other], MEASURE) for model in models]
    of_circuits = [table[table["circuit_checkpoint"] != RANDOM] for table in tables]
    for table in of_circuits:
        defined = table["faithfulness"].notna()
        assert defined.any()
        assert table.loc[defined, "difference"].tolist() == pytest.approx([0] * int(defined.sum()), abs=1e-6)
    first, second = (table["faithfulness"].to_numpy() for table in of_circuits)
    np.testing.assert_allclose(first, second, atol=1e-6)


def outcomes_by_hand(anatomy: Anatomy, circuit: torch.Tensor, metric: str) -> np.ndarray:
    (outcome,) = measure_circuits(anatomy, PAIRS, circuit[None], MEASURE)
    return outcome[metric]


def test_intervals_take_the_same_prompts_for_both_circuits() -> None:
    anatomy = anatomy_of(small_llama())
    own, other = circuits_of(anatomy.graph, 2)
    table = compare_in_model(anatomy, PAIRS, own, [other], MEASURE)
    n = len(PAIRS)
    counts = np.random.default_rng(BOOTSTRAP_SEED).multinomial(n, np.full(n, 1 / n), size=MEASURE.bootstrap)
    for metric in ("kl_model_circuit", "kl_from_corrupted", "logit_difference"):
        runs = [outcomes_by_hand(anatomy, circuit.edges, metric) for circuit in (other, own)]
        values, differences = [], []
        for drawn in counts:
            prompts = np.repeat(np.arange(n), drawn)
            of_other, of_own = (float(faithfulness(metric, run[prompts].mean(axis=0))) for run in runs)
            values.append(of_other)
            differences.append(of_other - of_own)
        expected = [*np.quantile(values, [0.025, 0.975]), *np.quantile(differences, [0.025, 0.975])]
        assert found(table, "01", metric)[INTERVALS].tolist() == pytest.approx(expected, abs=1e-6)


def test_random_circuits_match_the_models_own_in_size_and_are_averaged() -> None:
    anatomy = anatomy_of(small_llama())
    (own,) = circuits_of(anatomy.graph, 1)
    size = int(own.edges.sum())
    row = found(compare_in_model(anatomy, PAIRS, own, [], MEASURE), RANDOM, "kl_model_circuit")
    draws = [random_circuit(anatomy.graph, size, draw) for draw in range(RANDOM_CIRCUITS)]
    mean = np.mean([outcomes_by_hand(anatomy, draw, "kl_model_circuit") for draw in draws], axis=(0, 1))
    assert row["faithfulness"] == pytest.approx(1 - mean[1] / mean[2], abs=1e-6)
    assert size <= row["n_edges"] <= size + 5
    nothing = CheckpointCircuit("00", 0, torch.zeros_like(own.edges))
    assert set(compare_in_model(anatomy, PAIRS, nothing, [own], MEASURE)["circuit_checkpoint"]) == {"00"}


def test_what_circuits_share_is_pruned() -> None:
    graph = Graph(n_layers=1, n_heads=1, parallel=False)
    first, second = (torch.zeros_like(graph.edge_mask) for _ in range(2))
    place = {name: i for i, name in enumerate(graph.readers)}
    for circuit in (first, second):
        circuit[0, place["logits"]] = True
        circuit[0, place["m0"]] = True
    first[graph.writers.index("m0"), place["logits"]] = True
    second[0, place["a0.h0<q>"]] = second[graph.writers.index("a0.h0"), place["m0"]] = True
    kept = shared_circuit(graph, [first, second])
    # Nothing that both have leads on from m0.
    assert [(graph.writers[u], graph.readers[v]) for u, v in kept.nonzero().tolist()] == [("input", "logits")]
