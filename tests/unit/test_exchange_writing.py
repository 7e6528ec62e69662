"""Circuits for other tools: a reader of our own for each format, round trips, and the same bytes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import networkx
import numpy as np
import pandas as pd
import pytest
import torch
from exchange_files import content, edges_of, nodes_of, write
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitdrift.circuits.exchange.eap_json import ExchangeError, is_merged, merge_rows
from circuitdrift.circuits.exchange.graphml import graphml, write_graphml
from circuitdrift.circuits.exchange.reading import read_circuits
from circuitdrift.circuits.exchange.writing import eap_json, merged_eap_json, write_eap_json, write_merged_eap_json
from circuitdrift.circuits.selection import edge_table, node_table, prune, select_circuit
from circuitdrift.config.circuits import Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.layout import Layout
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table

RELEASED = Path(__file__).resolve().parents[3] / "shared" / "authors_circuits"
ORIGIN = Path("edges.parquet")
FRACTION = 0.8  # enough of the smallest graph to be a circuit
GRAPHS = [Graph(2, 3, True), Graph(3, 2, False), Graph(1, 1, True), Graph(11, 2, False)]


def tables(graph: Graph, scores: torch.Tensor) -> tuple[pd.DataFrame, pd.DataFrame]:
    circuit = select_circuit(graph, scores, Selection(fraction=FRACTION))
    return edge_table(graph, scores, circuit), node_table(graph, circuit)


def drawn(graph: Graph, seed: int = 0) -> torch.Tensor:
    """Scores of the sizes that occur, 1e-12 to 1, of either sign."""
    generator = torch.Generator().manual_seed(seed)
    shape = graph.edge_mask.shape
    return torch.randn(shape, generator=generator) * 10.0 ** -(12 * torch.rand(shape, generator=generator))


class StrictReader:
    """What EAP-IG's Graph.from_json demands of a file, written down from its behaviour, with plain loops.

    It opens plain text, sizes its arrays by cfg (d_model among it), looks up every node and edge by name, assigns
    into boolean and float32 arrays, and never sets the logits.
    """

    def __init__(self, path: Path) -> None:
        with open(path) as opened:
            raw = json.load(opened)
        assert list(raw) == ["cfg", "nodes", "edges"]
        cfg = raw["cfg"]
        assert {key: type(value) for key, value in cfg.items()} == {
            "n_layers": int,
            "n_heads": int,
            "parallel_attn_mlp": bool,
            "d_model": int,
        }
        self.d_model, heads = cfg["d_model"], cfg["n_heads"]
        nodes = nodes_of(cfg["n_layers"], heads)
        names = edges_of(cfg["n_layers"], heads, cfg["parallel_attn_mlp"], merged=False)
        assert set(raw["nodes"]) == set(nodes)
        assert set(raw["edges"]) == set(names)
        assert all(type(node["in_graph"]) is bool for node in raw["nodes"].values())
        assert all(type(edge["in_graph"]) is bool for edge in raw["edges"].values())
        self.nodes = {name for name, node in raw["nodes"].items() if node["in_graph"]}
        shape = (1 + cfg["n_layers"] * (heads + 1), cfg["n_layers"] * (3 * heads + 1) + 1)
        self.scores = np.zeros(shape, dtype=np.float32)
        self.in_graph = np.zeros(shape, dtype=bool)
        for name, edge in raw["edges"].items():
            source, target = name.split("->")
            place = self._writer(source, heads), self._reader(target, heads)
            self.scores[place] = edge["score"]
            self.in_graph[place] = edge["in_graph"]

    @staticmethod
    def _writer(node: str, heads: int) -> int:
        if node == "input":
            return 0
        layer, _, head = node[1:].partition(".h")
        return 1 + int(layer) * (heads + 1) + (int(head) if head else heads)

    @staticmethod
    def _reader(target: str, heads: int) -> int:
        if target == "logits":
            return -1
        layer, _, head = target[1:].partition(".h")
        first = int(layer) * (3 * heads + 1)
        if not head:
            return first + 3 * heads
        number, _, which = head.partition("<")
        return first + "qkv".index(which[0]) * heads + int(number)


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_eap_ig_finds_what_it_demands_and_gets_every_score(tmp_path, graph):
    scores = drawn(graph) * graph.edge_mask
    edges, nodes = tables(graph, scores)
    path = tmp_path / "importances.json"
    write_eap_json(path, edges, nodes, 48, ORIGIN)
    read = StrictReader(path)
    assert read.d_model == 48
    assert np.array_equal(read.scores, scores.numpy())
    assert np.array_equal(read.in_graph, select_circuit(graph, scores, Selection(fraction=FRACTION)).numpy())
    assert read.nodes == set(nodes.loc[nodes["in_circuit"], "node"])


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_export_then_import_gives_the_same_tables(tmp_path, graph):
    edges, nodes = tables(graph, drawn(graph, seed=1))
    for name, table in (("edges", edges), ("nodes", nodes)):
        write_table(tmp_path / f"{name}.parquet", table, name, Provenance.detached())
    stored = [read_table(tmp_path / f"{name}.parquet", name) for name in ("edges", "nodes")]
    write_eap_json(tmp_path / "out.json", *stored, 48, ORIGIN)
    circuit = read_circuits([tmp_path / "out.json"])[0]
    for name, table in (("edges", circuit.edges), ("nodes", circuit.nodes)):
        write_table(tmp_path / f"{name}_again.parquet", table, name, Provenance.detached())
        again = (tmp_path / f"{name}_again.parquet").read_bytes()
        assert again == (tmp_path / f"{name}.parquet").read_bytes()


@settings(max_examples=50, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True))
def test_any_float32_survives_the_round_trip(tmp_path_factory, value):
    graph = GRAPHS[2]
    scores = torch.full(graph.edge_mask.shape, value)
    edges = edge_table(graph, scores, graph.edge_mask)
    path = tmp_path_factory.mktemp("float") / "out.json"
    write_eap_json(path, edges, node_table(graph, graph.edge_mask), 8, ORIGIN)
    read = read_circuits([path])[0].edges["score"].to_numpy()
    assert read.tobytes() == edges["score"].to_numpy().tobytes()


def test_a_file_that_was_imported_is_exported_as_it_was(tmp_path):
    kept = {"input->a0.h1<q>": 0.5, "a0.h1->m1": -0.25, "m1->logits": 2.0}
    original = content(kept, parallel=False)
    circuit = read_circuits([write(tmp_path / "in.json", original)])[0]
    assert eap_json(circuit.edges, circuit.nodes, 8, ORIGIN) == {**original, "cfg": {**original["cfg"], "d_model": 8}}


def test_the_same_circuit_gives_the_same_bytes(tmp_path):
    edges, nodes = tables(GRAPHS[0], drawn(GRAPHS[0]))
    for name in ("a", "b"):
        write_eap_json(tmp_path / f"{name}.json", edges.copy(), nodes.copy(), 8, ORIGIN)
        write_graphml(tmp_path / f"{name}.graphml", edges.copy(), nodes.copy())
    for kind in ("json", "graphml"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_what_cannot_be_exported_is_refused_and_leaves_no_file(tmp_path):
    edges, nodes = tables(GRAPHS[0], drawn(GRAPHS[0]))
    infinite = edges.assign(score=edges["score"].where(edges.index != 5, np.inf))
    merged = merge_rows(edges)
    assert is_merged(merged)
    bad = [
        (merged, nodes, "merged"),
        (edges.iloc[1:].reset_index(drop=True), nodes, "not the edges"),
        (edges, nodes.iloc[::-1], "nodes table is of another graph"),
        (infinite, nodes, f"the score of edge .*{edges['source'][5]}->{edges['target'][5]}.* is not finite"),
        (infinite.assign(score=infinite["score"].replace(np.inf, np.nan)), nodes, "is not finite"),
    ]
    for wrong_edges, wrong_nodes, words in bad:
        with pytest.raises(ExchangeError, match=rf"edges\.parquet.*{words}"):
            write_eap_json(tmp_path / "out.json", wrong_edges, wrong_nodes, 8, ORIGIN)
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------- the merged form


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_a_merged_edge_has_the_sum_of_its_scores_and_is_in_where_one_of_them_is(tmp_path, graph):
    edges, nodes = tables(graph, drawn(graph, seed=3))
    write_merged_eap_json(tmp_path / "merged.json", edges, nodes, ORIGIN)
    read = json.loads((tmp_path / "merged.json").read_text())
    assert read["cfg"] == {"n_layers": graph.n_layers, "n_heads": graph.n_heads, "parallel_attn_mlp": graph.parallel}
    expected: dict[str, list[float]] = {}
    kept = set()
    for row in edges.itertuples():
        expected.setdefault(f"{row.source}->{row.target}", []).append(float(row.score))
        if row.in_circuit:
            kept.add(f"{row.source}->{row.target}")
    assert set(read["edges"]) == set(edges_of(graph.n_layers, graph.n_heads, graph.parallel, merged=True))
    assert {name for name, edge in read["edges"].items() if edge["in_graph"]} == kept
    for name, parts in expected.items():
        assert read["edges"][name]["score"] == pytest.approx(sum(parts), rel=1e-6, abs=1e-7)


def test_a_merged_circuit_is_imported_and_exported_as_it_was(tmp_path):
    original = content({"input->a0.h1": 0.5, "a0.h1->m1": -0.25, "m1->logits": 2.0}, merged=True)
    circuit = read_circuits([write(tmp_path / "in.json", original)])[0]
    assert merged_eap_json(circuit.edges, circuit.nodes, ORIGIN) == original


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the circuits that the paper's authors released are not here")
def test_a_circuit_of_the_papers_authors_comes_back_as_they_wrote_it(tmp_path):
    path = RELEASED / "compositional_epoch0.json.gz"
    original = json.loads(gzip.decompress(path.read_bytes()))
    circuit = read_circuits([path])[0]
    again = merged_eap_json(circuit.edges, circuit.nodes, ORIGIN)
    assert again["cfg"] == original["cfg"]
    for name, edge in original["edges"].items():
        assert again["edges"][name]["in_graph"] == edge["in_graph"]
        assert again["edges"][name]["score"] == pytest.approx(edge["score"], rel=1e-6)


# ---------------------------------------------------------------------------------------- MIB and other readers


def test_a_submission_to_mib_is_one_folder_with_one_file():
    """MIB's circuit track takes ``{task}_{model}/importances.json``."""
    path = Path(Layout("smoke").base_circuit.importances)
    assert (path.parent.name, path.name) == ("{task}_{model}", "importances.json")
    others = {
        Path(other).parent for other in (Layout("smoke").base_circuit.merged, Layout("smoke").base_circuit.graphml)
    }
    assert path.parent not in others


@pytest.mark.parametrize("percentage", [0.2, 0.5, 1.0])
def test_mib_takes_the_circuits_of_a_study_from_the_exported_scores(tmp_path, percentage):
    """With ``--absolute`` MIB keeps the edges of largest absolute score, a share of all edges, and prunes."""
    graph = GRAPHS[0]
    scores = drawn(graph, seed=4) * graph.edge_mask
    edges, nodes = tables(graph, scores)
    write_eap_json(tmp_path / "importances.json", edges, nodes, 48, ORIGIN)
    read = StrictReader(tmp_path / "importances.json")
    largest = np.sort(np.abs(read.scores[graph.edge_mask.numpy()]))[::-1][: int(percentage * graph.n_edges)].min()
    kept = (np.abs(read.scores) >= largest) & graph.edge_mask.numpy()
    assert np.array_equal(
        prune(graph, torch.from_numpy(kept)), select_circuit(graph, scores, Selection(fraction=percentage))
    )


def test_duckdb_reads_the_tables(tmp_path):
    edges, _ = tables(GRAPHS[0], drawn(GRAPHS[0]))
    path = tmp_path / "edges.parquet"
    write_table(path, edges, "edges", Provenance.detached())
    found = duckdb.sql(f"select source, count(*), sum(score) from '{path}' where in_circuit group by source").fetchall()
    kept = edges[edges["in_circuit"]].groupby("source")["score"]
    assert {(source, n) for source, n, _ in found} == set(kept.size().items())
    assert {source: total for source, _, total in found} == pytest.approx(kept.sum().to_dict(), rel=1e-5)
    inputs = [which for (which,) in duckdb.sql(f"select qkv from '{path}'").fetchall()]
    assert inputs == [None if pd.isna(which) else which for which in edges["qkv"]]


# -------------------------------------------------------------------------------------------------- GraphML


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_networkx_reads_the_circuit(tmp_path, graph):
    edges, nodes = tables(graph, drawn(graph, seed=2))
    write_graphml(tmp_path / "circuit.graphml", edges, nodes)
    read = networkx.read_graphml(tmp_path / "circuit.graphml", force_multigraph=True)
    assert read.is_directed()
    expected_nodes = {
        row.node: {"kind": row.kind, "layer": row.layer} | ({"head": row.head} if row.kind == "head" else {})
        for row in nodes[nodes["in_circuit"]].itertuples()
    }
    assert dict(read.nodes(data=True)) == expected_nodes
    expected_edges = set()
    for row in edges[edges["in_circuit"]].itertuples():
        qkv = row.qkv if isinstance(row.qkv, str) else None
        name = f"{row.source}->{row.target}" + (f"<{qkv}>" if qkv else "")
        expected_edges.add((row.source, row.target, name, qkv, float(row.score), abs(float(row.score))))
    found = {(s, t, key, d.get("qkv"), d["score"], d["weight"]) for s, t, key, d in read.edges(keys=True, data=True)}
    assert found == expected_edges
    assert len(found) == edges["in_circuit"].sum()
    assert networkx.is_directed_acyclic_graph(read)


def test_graphml_declares_every_attribute_that_it_uses():
    edges, nodes = tables(GRAPHS[1], drawn(GRAPHS[1]))
    root = ElementTree.fromstring(graphml(edges, nodes).encode())
    space = "{http://graphml.graphdrawing.org/xmlns}"
    declared = {(key.get("id"), key.get("for")) for key in root.iter(f"{space}key")}
    used = {
        (data.get("key"), element.tag.removeprefix(space))
        for element in root.iter()
        if element.tag in {f"{space}node", f"{space}edge"}
        for data in element
    }
    assert used == declared
    ids = [edge.get("id") for edge in root.iter(f"{space}edge")]
    assert len(ids) == len(set(ids)) > 0


def test_a_merged_circuit_has_no_input_in_graphml(tmp_path):
    kept = {"input->a0.h1": 0.5, "a0.h1->m1": -0.25, "m1->logits": 2.0}
    circuit = read_circuits([write(tmp_path / "in.json", content(kept, merged=True))])[0]
    write_graphml(tmp_path / "circuit.graphml", circuit.edges, circuit.nodes)
    read = networkx.read_graphml(tmp_path / "circuit.graphml")
    assert {(source, target): data["score"] for source, target, data in read.edges(data=True)} == {
        tuple(name.split("->")): score for name, score in kept.items()
    }
    assert all("qkv" not in data for _, _, data in read.edges(data=True))
