"""Selection of edges, pruning, and the tables of a circuit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circuitdrift.circuits.circuit_files import circuit_of_scores
from circuitdrift.circuits.score_file import ScoreFile
from circuitdrift.circuits.selection import (
    consistent_edges,
    determined_by_scores,
    edge_count,
    edge_table,
    edges_above,
    greedy_edges,
    node_table,
    nodes_in,
    prune,
    resized,
    select_circuit,
    select_edges,
    strongest_edges,
    tensors_of_table,
)
from circuitdrift.config.circuits import Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.errors import CircuitDriftError
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table

GRAPH = Graph(3, 2, parallel=False)

graphs = st.builds(Graph, st.integers(1, 4), st.integers(1, 3), st.booleans())


def random_scores(graph: Graph, seed: int = 0) -> Tensor:
    scores = torch.randn(graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed))
    return scores * graph.edge_mask


def circuit_of(graph: Graph, *edges: tuple[str, str]) -> Tensor:
    circuit = torch.zeros_like(graph.edge_mask)
    for source, target in edges:
        circuit[graph.writers.index(source), graph.readers.index(target)] = True
    return circuit


def test_the_share_is_exact_in_decimals() -> None:
    assert [edge_count(Graph(6, 8, True), fraction) for fraction in (0.05, 0.1, 0.15, 1.0)] == [179, 358, 537, 3580]


def test_the_strongest_edges_of_either_sign_are_kept() -> None:
    scores = random_scores(GRAPH)
    kept = strongest_edges(GRAPH, scores, 10)
    assert int(kept.sum()) == 10
    assert scores[kept].abs().min() >= scores[GRAPH.edge_mask & ~kept].abs().max()
    assert (scores[kept] < 0).any()
    assert (scores[kept] > 0).any()


def test_ties_go_to_the_first_in_graph_order() -> None:
    kept = strongest_edges(GRAPH, torch.ones(GRAPH.edge_mask.shape), 5)
    assert torch.equal(kept.flatten().nonzero()[:, 0], GRAPH.edge_mask.flatten().nonzero()[:5, 0])


def test_unusable_scores_are_refused() -> None:
    scores = random_scores(GRAPH)
    with pytest.raises(ValueError, match="do not fit the graph"):
        strongest_edges(GRAPH, scores[1:], 3)
    scores[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"input -> a0\.h0<q> is not finite"):
        strongest_edges(GRAPH, scores, 3)


def test_pruning_drops_dead_ends_chain_by_chain() -> None:
    lasting = [("input", "a0.h0<k>"), ("a0.h0", "m1"), ("m1", "logits")]
    into_nothing = [("input", "a0.h1<q>"), ("a0.h1", "m2")]
    out_of_nothing = [("m0", "a1.h0<v>"), ("a1.h0", "logits")]
    circuit = circuit_of(GRAPH, *lasting, *into_nothing, *out_of_nothing)
    assert torch.equal(prune(GRAPH, circuit), circuit_of(GRAPH, *lasting))
    assert not prune(GRAPH, circuit_of(GRAPH, *into_nothing, *out_of_nothing)).any()


def paths_keep(graph: Graph, circuit: Tensor) -> set[tuple[str, str]]:
    """By search over names: the edges whose source is reached from input and whose target reaches logits."""
    edges = {(graph.writers[u], graph.readers[v]) for u, v in circuit.nonzero().tolist()}

    def reached(start: str, steps: set[tuple[str, str]]) -> set[str]:
        seen, new = set(), {start}
        while new:
            seen |= new
            new = {b for a, b in steps if a in new} - seen
        return seen

    steps = {(u, v.split("<")[0]) for u, v in edges}
    forwards, backwards = reached("input", steps), reached("logits", {(v, u) for u, v in steps})
    return {(u, v) for u, v in edges if u in forwards and v.split("<")[0] in backwards}


@settings(max_examples=60, deadline=None)
@given(graphs, st.integers(0, 10_000), st.floats(0.02, 0.6))
def test_pruning_keeps_exactly_what_lies_on_a_path(graph: Graph, seed: int, share: float) -> None:
    chance = torch.rand(graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed))
    circuit = graph.edge_mask & (chance < share)
    pruned = prune(graph, circuit)
    assert {(graph.writers[u], graph.readers[v]) for u, v in pruned.nonzero().tolist()} == paths_keep(graph, circuit)
    assert torch.equal(prune(graph, pruned), pruned)


def test_tables_survive_the_disk_and_give_the_scores_back(tmp_path) -> None:
    scores = random_scores(GRAPH)
    circuit = select_circuit(GRAPH, scores, Selection(fraction=0.3))
    edges, nodes = edge_table(GRAPH, scores, circuit), node_table(GRAPH, circuit)
    write_table(tmp_path / "edges.parquet", edges, "edges", Provenance.detached())
    write_table(tmp_path / "nodes.parquet", nodes, "nodes", Provenance.detached())
    edges, nodes = read_table(tmp_path / "edges.parquet", "edges"), read_table(tmp_path / "nodes.parquet", "nodes")
    assert len(edges) == GRAPH.n_edges
    read_scores, read_circuit = tensors_of_table(GRAPH, edges)
    assert torch.equal(read_scores, scores)
    assert torch.equal(read_circuit, circuit)
    assert edges["in_circuit"].sum() == circuit.sum()
    last = edges.iloc[-1]
    assert (last["source"], last["target"], last["source_layer"], last["target_layer"]) == ("m2", "logits", 2, 3)
    assert pd.isna(last["qkv"])
    assert edges.iloc[0]["qkv"] == "q"
    kept = edges[edges["in_circuit"]]
    assert set(nodes.loc[nodes["in_circuit"], "node"]) == {*kept["source"], *kept["target"]}
    assert nodes["node"].tolist() == list(GRAPH.nodes)
    assert nodes.loc[nodes["node"] == "a1.h1", ["kind", "layer", "head"]].to_numpy().tolist() == [["head", 1, 1]]
    assert nodes.iloc[-1][["kind", "layer", "head"]].tolist() == ["logits", 3, -1]


def test_a_table_of_another_graph_is_refused() -> None:
    other = Graph(3, 2, parallel=True)
    table = edge_table(other, random_scores(other), other.edge_mask)
    with pytest.raises(ValueError, match="not the 100 edges of this model's graph"):
        tensors_of_table(GRAPH, table)


def test_nodes_of_a_circuit() -> None:
    circuit = circuit_of(GRAPH, ("input", "a1.h0<v>"), ("a1.h0", "logits"))
    names = [name for name, kept in zip(GRAPH.nodes, nodes_in(GRAPH, circuit).tolist(), strict=True) if kept]
    assert names == ["input", "a1.h0", "logits"]


@settings(deadline=None, max_examples=25)
@given(st.builds(Graph, st.integers(1, 2), st.integers(1, 2), st.booleans()), st.integers(0, 10_000), st.floats(0, 1))
def test_greedy_growth_is_that_of_its_definition(graph: Graph, seed: int, share: float) -> None:
    """Again and again the strongest edge whose target is reached already, all edges looked through each time."""
    scores, n = random_scores(graph, seed), int(share * graph.n_edges)
    reached = {len(graph.nodes) - 1}
    expected = torch.zeros_like(graph.edge_mask)
    for _ in range(n):
        candidates = [
            (u, v)
            for u, v in (graph.edge_mask & ~expected).nonzero().tolist()
            if int(graph.node_of_reader[v]) in reached
        ]
        u, v = max(candidates, key=lambda edge: abs(float(scores[edge])))
        expected[u, v] = True
        reached.add(u)
    assert torch.equal(greedy_edges(graph, scores, n), expected)


def test_a_minimal_circuit_is_refused_because_it_needs_the_model() -> None:
    with pytest.raises(ValueError, match=r"scores alone .*minimal_circuit"):
        select_circuit(GRAPH, random_scores(GRAPH), Selection(selection="minimal", wanted_faithfulness=0.8))


def test_each_selection_is_pruned_and_other_sizes_are_selected_alike() -> None:
    scores, n = random_scores(GRAPH), edge_count(GRAPH, 0.3)
    choices = {"top": strongest_edges(GRAPH, scores, n), "greedy": greedy_edges(GRAPH, scores, n)}
    for selection, edges in choices.items():
        choice = Selection(selection=selection, fraction=0.3)
        assert torch.equal(select_circuit(GRAPH, scores, choice), prune(GRAPH, edges))
        assert resized(Selection(selection=selection, fraction=0.1), 0.3) == choice
    threshold = Selection(selection="threshold", threshold=0.5)
    assert torch.equal(select_circuit(GRAPH, scores, threshold), prune(GRAPH, edges_above(GRAPH, scores, 0.5)))
    assert resized(threshold, 0.3) == Selection(fraction=0.3)


def test_threshold_keeps_what_reaches_it() -> None:
    scores = random_scores(GRAPH)
    kept = edges_above(GRAPH, scores, 0.5)
    assert torch.equal(kept, GRAPH.edge_mask & (scores.abs() >= 0.5))
    assert 0 < kept.sum() < GRAPH.n_edges


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 1.0])
def test_a_share_of_the_kept_edges_has_the_largest_positive_scores(share: float) -> None:
    scores = random_scores(GRAPH)
    kept = select_edges(GRAPH, scores, Selection(fraction=0.4, positive_share=share))
    n, edges = edge_count(GRAPH, 0.4), scores[GRAPH.edge_mask].tolist()
    n_positive = min(int(n * share), sum(score > 0 for score in edges))
    by_hand = sorted(edges)[::-1][:n_positive] + sorted(edges)[: n - n_positive]
    assert sorted(scores[kept].tolist()) == pytest.approx(sorted(by_hand))
    assert len(by_hand) == n


def test_one_sign_fills_up_what_the_other_lacks() -> None:
    """At the size of the whole graph every edge is kept, whatever share is to be positive."""
    for scores in (random_scores(GRAPH), random_scores(GRAPH).abs(), torch.zeros(GRAPH.edge_mask.shape)):
        kept = select_edges(GRAPH, scores, Selection(fraction=1.0, positive_share=0.5))
        assert torch.equal(kept, GRAPH.edge_mask)
    kept = select_edges(GRAPH, -random_scores(GRAPH).abs(), Selection(fraction=0.3, positive_share=0.5))
    assert torch.equal(kept, strongest_edges(GRAPH, random_scores(GRAPH), edge_count(GRAPH, 0.3)))


def folds_of(graph: Graph, noise: float, n_folds: int = 8) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Scores from all prompts, and by folds of unequal sizes."""
    sizes = tuple(3 + fold % 2 for fold in range(n_folds))
    generator = torch.Generator().manual_seed(5)
    drawn = noise * torch.randn(n_folds, *graph.edge_mask.shape, generator=generator)
    by_fold = (random_scores(graph) + drawn) * graph.edge_mask
    weights = torch.tensor(sizes)[:, None, None] / sum(sizes)
    return (by_fold * weights).sum(dim=0), by_fold, sizes


def test_consistent_edges_have_one_sign_in_nearly_every_draw_of_folds() -> None:
    scores, by_fold, sizes = folds_of(GRAPH, noise=2.0)
    draws = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), size=1000)
    agreeing = torch.zeros(GRAPH.edge_mask.shape)
    for draw in draws:
        folds = [fold for fold, times in enumerate(draw) for _ in range(times)]
        mean = sum(by_fold[fold] * sizes[fold] for fold in folds) / sum(sizes[fold] for fold in folds)
        agreeing += mean.sign() == scores.sign()
    consistent = (agreeing >= 950) & GRAPH.edge_mask
    assert 10 < consistent.sum() < GRAPH.n_edges - 10
    strongest_first = sorted(scores[consistent].abs().tolist(), reverse=True)
    for n in (5, int(consistent.sum()), GRAPH.n_edges):
        kept = consistent_edges(GRAPH, scores, by_fold, sizes, n)
        assert not (kept & ~consistent).any()
        assert sorted(scores[kept].abs().tolist(), reverse=True) == strongest_first[:n]


def test_without_noise_consistent_edges_are_the_strongest() -> None:
    scores, by_fold, sizes = folds_of(GRAPH, noise=0.0)
    kept = consistent_edges(GRAPH, scores, by_fold, sizes, 20)
    assert torch.equal(kept, strongest_edges(GRAPH, scores, 20))


def test_mean_scores_do_not_determine_consistent_circuits(tmp_path: Path) -> None:
    choice = Selection(selection="consistent", fraction=0.3)
    scores, by_fold, sizes = folds_of(GRAPH, noise=2.0)
    with pytest.raises(CircuitDriftError, match="from scores by fold"):
        select_circuit(GRAPH, scores, choice)
    assert determined_by_scores(choice) == Selection(fraction=0.3)
    scored = ScoreFile(tmp_path / "scores.safetensors", GRAPH, Provenance.detached(), scores, by_fold, sizes)
    kept = consistent_edges(GRAPH, scores, by_fold, sizes, edge_count(GRAPH, 0.3))
    assert torch.equal(circuit_of_scores(scored, choice), prune(GRAPH, kept))
    top = Selection(fraction=0.3)
    assert torch.equal(circuit_of_scores(scored, top), select_circuit(GRAPH, scores, top))
    assert not torch.equal(circuit_of_scores(scored, top), circuit_of_scores(scored, choice))


@pytest.mark.parametrize("selection", ["greedy", "consistent"])
def test_a_share_of_positive_edges_is_of_top_circuits(selection: str) -> None:
    with pytest.raises(ValueError, match="positive_share applies to selection top only"):
        Selection(selection=selection, positive_share=0.5)


@pytest.mark.parametrize(
    "choice",
    [
        Selection(fraction=0.1),
        Selection(selection="greedy", fraction=0.2),
        Selection(selection="threshold", threshold=1),
        Selection(fraction=0.2, positive_share=0.7),
    ],
    ids=["top", "greedy", "threshold", "by sign"],
)
@pytest.mark.parametrize("parallel", [True, False])
def test_many_rows_of_scores_are_selected_as_each_by_itself(choice: Selection, parallel: bool) -> None:
    graph = Graph(4, 3, parallel)
    rows = torch.stack([random_scores(graph, seed) for seed in range(5)])
    together = select_circuit(graph, rows, choice)
    for row, circuit in zip(rows, together, strict=True):
        assert torch.equal(circuit, select_circuit(graph, row, choice))
    assert torch.equal(nodes_in(graph, together), torch.stack([nodes_in(graph, circuit) for circuit in together]))


def test_a_row_whose_scores_are_not_finite_is_refused() -> None:
    rows = torch.stack([random_scores(GRAPH), random_scores(GRAPH)])
    rows[1, 0, -1] = float("nan")
    with pytest.raises(ValueError, match="the score of edge input -> logits is not finite"):
        strongest_edges(GRAPH, rows, 3)
