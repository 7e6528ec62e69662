"""Circuits in EAP-IG's JSON: every form of it, and what is said about files that are not."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import numpy as np
import pytest
from exchange_files import content, edges_of, nodes_of, write

from circuitdrift.circuits.exchange import reading
from circuitdrift.circuits.exchange.eap_json import ExchangeError, graph_of_table
from circuitdrift.circuits.exchange.reading import read_circuits
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.series import stack_circuits, structural_circuit

APART = {"input->a0.h1<q>": 0.5, "input->a0.h1<v>": -2.0, "a0.h1->m1": 1e-9, "m1->logits": 3.0}
MERGED = {"input->a0.h1": 0.5, "a0.h1->m1": -1e-9, "m1->logits": 3.0}


def read_one(tmp_path, value, compress=False):
    return read_circuits([write(tmp_path / "circuit.json", value, compress)])[0]


def rows(circuit):
    """The table as a mapping from the format's names, in its order."""
    table = circuit.edges
    inputs = ["" if qkv is None or qkv != qkv else f"<{qkv}>" for qkv in table["qkv"]]
    names = [f"{s}->{t}{q}" for s, t, q in zip(table["source"], table["target"], inputs, strict=True)]
    assert len(set(names)) == len(names)
    return dict(zip(names, zip(table["score"], table["in_circuit"], strict=True), strict=True))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("old_nodes", [False, True])
@pytest.mark.parametrize("only_kept", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("kept", "merged"), [(APART, False), (MERGED, True)])
def test_every_form_gives_the_whole_graph(tmp_path, kept, merged, parallel, only_kept, old_nodes, compress):
    value = content(kept, parallel=parallel, merged=merged, only_kept=only_kept, old_nodes=old_nodes)
    circuit = read_one(tmp_path, value, compress)
    assert circuit.graph == Graph(2, 2, parallel)
    other = 0.0 if only_kept else 0.25
    expected = {name: (np.float32(kept.get(name, other)), name in kept) for name in edges_of(2, 2, parallel, merged)}
    assert rows(circuit) == expected
    assert circuit.nodes["node"].tolist() == nodes_of(2, 2)
    members = circuit.nodes.loc[circuit.nodes["in_circuit"], "node"].tolist()
    assert members == ["input", "a0.h1", "m1", "logits"]
    assert graph_of_table(circuit.edges, tmp_path) == circuit.graph


def test_layers_kinds_and_heads(tmp_path):
    circuit = read_one(tmp_path, content(MERGED, merged=True))
    nodes = circuit.nodes.set_index("node")
    assert nodes.loc["a1.h0", ["kind", "layer", "head"]].tolist() == ["head", 1, 0]
    assert nodes.loc["logits", ["kind", "layer", "head"]].tolist() == ["logits", 2, -1]
    edge = circuit.edges.loc[(circuit.edges["source"] == "a0.h1") & (circuit.edges["target"] == "logits")].iloc[0]
    assert (edge["source_layer"], edge["target_layer"]) == (0, 2)


def test_nodes_that_the_file_leaves_out_are_outside_the_circuit(tmp_path):
    value = content(APART)
    del value["nodes"]["a0.h0"]
    assert not read_one(tmp_path, value).nodes.set_index("node").loc["a0.h0", "in_circuit"]


def test_a_circuit_without_edges_into_heads_takes_the_form_of_the_others(tmp_path):
    plain = content({"input->m0": 1.0, "m0->logits": 1.0}, only_kept=True)
    other = content(MERGED, merged=True)
    first, second = read_circuits([write(tmp_path / "a.json", plain), write(tmp_path / "b.json", other)])
    series = stack_circuits(
        [structural_circuit(c.edges, c.nodes, label, label) for c, label in ((first, "00"), (second, "01"))]
    )
    assert series.edge_kept.sum(axis=1).tolist() == [2, 3]
    assert len(first.edges) == len(edges_of(2, 2, True, True))


def changed(path: str, value):
    """A good file with one place set to a value; the place is given with slashes. DROP removes it."""
    whole = content(APART)
    node = whole
    *parents, last = path.split("/")
    for parent in parents:
        node = node[parent]
    if value is DROP:
        del node[last]
    else:
        node[last] = value
    return whole


DROP = object()
EDGE = "edges/m1->logits"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2], ["a list", "cfg, nodes and edges", "Graph.to_json"]),
        (changed("cfg", DROP), ["['edges', 'nodes']", "cfg, nodes and edges"]),
        (changed("nodes", ["input"]), ["nodes is a list"]),
        (changed("cfg/n_heads", DROP), ["cfg has no n_heads", "add it"]),
        (changed("cfg/n_layers", 0), ["cfg.n_layers is 0", "from 1"]),
        (changed("cfg/n_layers", True), ["cfg.n_layers is True"]),
        (changed("cfg/parallel_attn_mlp", 1), ["cfg.parallel_attn_mlp is 1", "true or false"]),
        (changed("cfg/parallel_attn_mlp", DROP), ["parallel_attn_mlp"]),
        (changed("nodes/a7.h0", {"in_graph": True}), ["nodes['a7.h0']", "not a node", "2 layers of 2 heads"]),
        (changed("nodes/m0", {}), ["nodes['m0'].in_graph is missing"]),
        (changed("nodes/m0", 1), ["nodes['m0'] is 1", "true or false"]),
        (
            changed("edges/m0->a7.h0<q>", {"score": 1.0, "in_graph": False}),
            ["edges['m0->a7.h0<q>']", "'a7.h0' is not a node"],
        ),
        (changed("edges/m1->m0", {"score": 1.0, "in_graph": False}), ["edges['m1->m0']", "earlier nodes to later"]),
        (changed("edges/a0.h0->m0", {"score": 1.0, "in_graph": False}), ["edges['a0.h0->m0']", "in parallel"]),
        (changed("edges/input->a0.h0<w>", {"score": 1.0, "in_graph": False}), ["edges['input->a0.h0<w>']", "<q>"]),
        (changed("edges/input", {"score": 1.0, "in_graph": False}), ["edges['input']"]),
        (changed("edges/input->a0.h0", {"score": 1.0, "in_graph": False}), ["edges['input->a0.h0']", "same form"]),
        (changed(EDGE, 1.0), ["edges['m1->logits'] is 1.0", "score and in_graph"]),
        (changed(f"{EDGE}/score", DROP), ["edges['m1->logits'] has no score"]),
        (changed(f"{EDGE}/in_graph", DROP), ["edges['m1->logits'].in_graph is missing"]),
        (changed(f"{EDGE}/in_graph", "yes"), ["edges['m1->logits'].in_graph is 'yes'"]),
        (changed(f"{EDGE}/score", "high"), ["edges['m1->logits'].score is 'high'", "number"]),
        (changed(f"{EDGE}/score", False), ["edges['m1->logits'].score is False"]),
        (changed(f"{EDGE}/score", float("nan")), ["edges['m1->logits'].score is nan", "score again"]),
        (changed(f"{EDGE}/score", float("-inf")), ["edges['m1->logits'].score is -inf"]),
        (changed(f"{EDGE}/score", 10**400), ["edges['m1->logits'].score", "float32"]),
        (changed(f"{EDGE}/score", 1e39), ["edges['m1->logits'].score is 1e+39", "float32"]),
        (changed("nodes/a0.h1", {"in_graph": False}), ["'a0.h1' is not", "Graph.prune"]),
        (changed("nodes/m1", DROP), ["'m1' is not", "Graph.prune"]),
        (content({}), ["no edge is in the circuit", "Graph.apply_topn"]),
    ],
)
def test_bad_content_is_refused_with_file_place_and_fix(tmp_path, value, words):
    with pytest.raises(ExchangeError) as caught:
        read_one(tmp_path, value)
    assert all(word in str(caught.value) for word in ["circuit.json", *words]), caught.value


WHOLE = json.dumps(content(APART)).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["truncated, or not JSON"]),
        (WHOLE[:-40], ["truncated, or not JSON"]),
        (gzip.compress(WHOLE)[:-20], ["truncated or damaged gzip", "copy it again"]),
        (gzip.compress(WHOLE)[:60] + b"\0" * 60, ["truncated or damaged gzip"]),
        (b"\x1f\x8b nothing more", ["truncated or damaged gzip"]),
        (b"PK\x03\x04\xff\xfe\x80", ["neither JSON nor gzipped JSON", "pickle"]),
        (b"[" * 100_000, ["nested too deeply"]),
        (b'{"cfg": ' + b"1" * 5000 + b"}", ["truncated, or not JSON"]),
    ],
)
def test_bad_files_are_refused_with_file_and_fix(tmp_path, data, words):
    path = tmp_path / "circuit.json.gz"
    path.write_bytes(data)
    with pytest.raises(ExchangeError) as caught:
        read_circuits([path])
    assert all(word in str(caught.value) for word in ["circuit.json.gz", *words]), caught.value


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_larger_than_the_limit_is_refused_and_one_of_just_that_size_is_read(tmp_path, monkeypatch, compress):
    path = tmp_path / "circuit.json"
    path.write_bytes(gzip.compress(WHOLE) if compress else WHOLE)
    monkeypatch.setattr(reading, "LARGEST_FILE", len(WHOLE))
    read_circuits([path])
    monkeypatch.setattr(reading, "LARGEST_FILE", len(WHOLE) - 1)
    with pytest.raises(ExchangeError, match=r"circuit\.json: has more than [\d,]+ bytes.*write only the edges"):
        read_circuits([path])


def test_a_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """64 MB of zeros in 64 kB; at most the limit, and what gzip reads ahead, is ever in memory."""
    path = tmp_path / "circuit.json.gz"
    path.write_bytes(gzip.compress(bytes(2**26), compresslevel=9))
    monkeypatch.setattr(reading, "LARGEST_FILE", 2**16)
    tracemalloc.start()
    with pytest.raises(ExchangeError, match=r"more than 65,536 bytes after decompression"):
        read_circuits([path])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size < 2**17
    assert most < 2**22


@pytest.mark.parametrize("values", [b'{"cfg": [' + b"0," * 1000 + b"0]}", b"[[]" + b",[]" * 999 + b"]", b"{}" * 1001])
def test_a_file_of_too_many_values_is_refused_before_it_is_parsed(tmp_path, monkeypatch, values):
    path = tmp_path / "circuit.json"
    path.write_bytes(values)
    monkeypatch.setattr(reading, "MOST_VALUES", 1000)
    monkeypatch.setattr(reading.json, "loads", None)
    with pytest.raises(ExchangeError, match="holds more than 1,000 values"):
        read_circuits([path])


@pytest.mark.parametrize(("layers", "heads"), [(10**6, 1), (1, 10**6), (10**9, 10**9), (10**4000, 2), (61, 61)])
def test_a_graph_that_would_fill_the_memory_is_refused_before_it_is_built(tmp_path, monkeypatch, layers, heads):
    monkeypatch.setattr(reading, "empty_edge_table", None)
    value = content(APART) | {"cfg": {"n_layers": layers, "n_heads": heads, "parallel_attn_mlp": True}}
    with pytest.raises(ExchangeError, match=r"circuit\.json: cfg has .* layers of .* heads.*correct cfg") as caught:
        read_one(tmp_path, value)
    assert len(str(caught.value)) < 600


def test_the_limits_leave_room_for_30_billion_parameters(tmp_path):
    """60 layers of 52 heads, as in Llama-30B, with the longest names of edges."""
    graph = Graph(n_layers=60, n_heads=52, parallel=False)
    entry = ',"a59.h51->a59.h51<q>": {"score": -1.2345678e-10, "in_graph": false}'
    assert graph.n_writers * graph.n_readers <= reading.LARGEST_GRAPH
    assert graph.n_edges * (entry.count(",") + entry.count("{")) < reading.MOST_VALUES
    assert graph.n_edges * len(entry) < 1.1 * reading.LARGEST_FILE


ATTACK = "a\n\x1b[2J\u202e\ud800" + 10**5 * "x"


@pytest.mark.parametrize(
    "value",
    [
        {ATTACK: 1, "cfg": {}},
        changed("cfg", {ATTACK: 1}),
        changed("cfg/n_heads", ATTACK),
        changed(f"nodes/{ATTACK}", {"in_graph": True}),
        changed("nodes/m0", [ATTACK]),
        changed(f"edges/{ATTACK}", {"score": 1.0, "in_graph": True}),
        changed(f"edges/{ATTACK}->ax", {"score": 1.0, "in_graph": True}),
        changed(EDGE, [ATTACK]),
        changed(f"{EDGE}/score", ATTACK),
        changed(f"{EDGE}/in_graph", {ATTACK: ATTACK}),
    ],
)
def test_messages_show_what_a_file_says_on_one_line_and_cut(tmp_path, value):
    with pytest.raises(ExchangeError) as caught:
        read_one(tmp_path, value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ExchangeError, match=r"absent\.json: no such file"):
        read_circuits([tmp_path / "absent.json"])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (content(APART, n_layers=3), ["2 layers of 2 heads", "3 layers of 2 heads", "one model"]),
        (content(APART, parallel=False), ["in parallel", "the MLP after attention"]),
        (content(MERGED, merged=True), ["has the q, k and v inputs of each head merged", "same form"]),
    ],
)
def test_checkpoints_of_different_graphs_are_refused_with_both_files(tmp_path, other, words):
    files = [write(tmp_path / "before.json", content(APART)), write(tmp_path / "after.json", other)]
    with pytest.raises(ExchangeError) as caught:
        read_circuits(files)
    assert all(word in str(caught.value) for word in ["before.json", "after.json", *words]), caught.value


def test_a_table_of_no_graph_is_refused(tmp_path):
    edges = read_one(tmp_path, content(APART)).edges
    for wrong in (edges.iloc[1:], edges.iloc[::-1], edges.loc[~edges["target"].str.startswith("a")]):
        with pytest.raises(ExchangeError, match=r"edges\.parquet.*select the circuit again"):
            graph_of_table(wrong.reset_index(drop=True), tmp_path / "edges.parquet")
