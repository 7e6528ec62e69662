"""The circuits that the paper's authors released must give the numbers known of them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from circuitdrift.drift.changes import summarise, tabulate_transitions
from circuitdrift.drift.layers import rank_layers, tabulate_layers
from circuitdrift.drift.series import CircuitSeries, stack_circuits, structural_circuit

RELEASED = Path(__file__).resolve().parents[2] / ".." / "shared" / "authors_circuits"
pytestmark = pytest.mark.skipif(not RELEASED.is_dir(), reason=f"the released circuits are not in {RELEASED}")

KNOWN = {
    "r2_epoch4": {
        "node": {"initial": 334, "final": 316, "added_net": 30, "removed_net": 48},
        "edge": {"initial": 9153, "final": 8397, "added_net": 3291, "removed_net": 4047, "node_induced_net": 1070},
        "jaccard": 0.4103,
        "critical": [0, 11, 3, 5, 4],
    },
    "r32_epoch4": {
        "node": {"initial": 334, "final": 316, "added_net": 27, "removed_net": 45},
        "edge": {"initial": 9153, "final": 8508, "added_net": 3428, "removed_net": 4073, "node_induced_net": 1113},
        "jaccard": 0.4038,
        "critical": [0, 11, 3, 4, 5],
    },
}


def read_released(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of one released file; edges that it lacks are outside the circuit."""
    with gzip.open(RELEASED / f"compositional_{name}.json.gz", "rt") as opened:
        released = json.load(opened)
    n_layers = released["cfg"]["n_layers"]
    heads = released["cfg"]["n_heads"]
    layer = {"input": 0, "logits": n_layers}
    layer |= {node: int(re.match(r"[am](\d+)", node)[1]) for node in released["nodes"] if node not in layer}
    kinds = {"i": "input", "a": "head", "m": "mlp", "l": "logits"}
    nodes = pd.DataFrame(
        [
            {"node": node, "kind": kinds[node[0]], "layer": layer[node], "in_circuit": kept}
            for node, kept in released["nodes"].items()
        ]
    )
    graph = [(source, target) for source in layer for target in layer if _reaches(source, target, layer)]
    rows = [
        {
            "source": source,
            "target": target,
            "qkv": None,
            "source_layer": layer[source],
            "score": released["edges"].get(f"{source}->{target}", {"score": 0.0})["score"],
            "in_circuit": released["edges"].get(f"{source}->{target}", {"in_graph": False})["in_graph"],
        }
        for source, target in graph
    ]
    assert len(nodes) == n_layers * (heads + 1) + 2
    edges = pd.DataFrame(rows)
    assert edges["in_circuit"].sum() == sum(edge["in_graph"] for edge in released["edges"].values())
    return edges, nodes


def _reaches(source: str, target: str, layer: dict[str, int]) -> bool:
    """Whether a writer reaches a reader in a model whose attention and MLP run in parallel."""
    if source == "logits" or target == "input":
        return False
    return source == "input" or layer[source] < layer[target]


@pytest.fixture(scope="module", params=KNOWN)
def compared(request: pytest.FixtureRequest) -> tuple[dict, CircuitSeries]:
    circuits = [
        structural_circuit(*read_released(name), checkpoint, name)
        for checkpoint, name in (("00", "epoch0"), ("01", request.param))
    ]
    return KNOWN[request.param], stack_circuits(circuits)


def test_counts(compared):
    known, series = compared
    summary = summarise(series).set_index(["level", "measure"])["value"]
    for level in ("node", "edge"):
        assert {measure: summary[level, measure] for measure in known[level]} == known[level]
    edge_row = tabulate_transitions(series).set_index("level").loc["edge"]
    assert edge_row["node_induced"] == known["edge"]["node_induced_net"]
    assert round(edge_row["jaccard"], 4) == known["jaccard"]


def test_critical_layers(compared):
    known, series = compared
    ranked = rank_layers(tabulate_layers(series), 5, "released")
    paper = ranked[(ranked["policy"] == "score_change") & ranked["critical"]]
    assert paper["layer"].tolist() == known["critical"]
