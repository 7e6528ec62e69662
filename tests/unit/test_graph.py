"""The graph's index spaces, against published counts and against an enumeration by name."""

from __future__ import annotations

import pytest

from circuitdrift.circuits.selection import edge_count
from circuitdrift.decoder.graph import Graph

COUNTS = {
    "pythia-1.4b": (Graph(24, 16, parallel=True), 410, 231_493, 11_574),
    "gpt-neo-2.7B": (Graph(32, 20, parallel=False), 674, 638_641, 31_932),
    "opt-6.7b": (Graph(32, 32, parallel=False), 1_058, 1_592_881, 79_644),
    "pythia-70m": (Graph(6, 8, parallel=True), 56, 3_580, 179),
    "pythia-160m": (Graph(12, 12, parallel=True), 158, 32_347, 1_617),
    "gpt2": (Graph(12, 12, parallel=False), 158, 32_491, 1_624),
    "SmolLM2-135M": (Graph(30, 9, parallel=False), 302, 123_211, 6_160),
}


@pytest.mark.parametrize("name", list(COUNTS))
def test_counts(name: str) -> None:
    graph, nodes, edges, five_per_cent = COUNTS[name]
    assert len(graph.nodes) == nodes
    assert graph.n_edges == edges == int(graph.edge_mask.sum())
    assert edge_count(graph, 0.05) == five_per_cent
    assert graph.edge_mask.shape == (graph.n_writers, graph.n_readers) == (len(graph.writers), len(graph.readers))


@pytest.mark.parametrize("parallel", [True, False])
def test_edges_are_those_enumerated_by_name(parallel: bool) -> None:
    graph = Graph(3, 2, parallel)
    expected = set()
    written = ["input"]
    for layer in range(3):
        heads = [f"a{layer}.h{head}" for head in range(2)]
        expected |= {(u, f"{head}<{which}>") for u in written for head in heads for which in "qkv"}
        expected |= {(u, f"m{layer}") for u in (written if parallel else written + heads)}
        written += [*heads, f"m{layer}"]
    expected |= {(u, "logits") for u in written}
    assert list(graph.writers) == written
    assert {(graph.writers[u], graph.readers[v]) for u, v in graph.edge_mask.nonzero().tolist()} == expected


def test_readers_stand_in_order_and_know_their_node_and_layer() -> None:
    graph = Graph(2, 2, parallel=True)
    block = ["a0.h0<q>", "a0.h1<q>", "a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>", "m0"]
    assert list(graph.readers[:7]) == block
    assert graph.readers[-1] == "logits"
    for reader, node in zip(graph.readers, graph.node_of_reader.tolist(), strict=True):
        assert reader.split("<")[0] == graph.nodes[node]
    assert graph.layer_of_node.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert graph.readers[graph.head_readers(1, "k")] == ("a1.h0<k>", "a1.h1<k>")
    assert graph.readers[graph.mlp_reader(1)] == "m1"
