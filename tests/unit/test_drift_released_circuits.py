"""The circuits that the paper's authors released must give the numbers known of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitdrift.circuits.exchange.reading import read_circuits
from circuitdrift.drift.changes import summarise, tabulate_transitions
from circuitdrift.drift.layer_order import order_layers
from circuitdrift.drift.layers import tabulate_layers
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


@pytest.fixture(scope="module", params=KNOWN)
def compared(request: pytest.FixtureRequest) -> tuple[dict, CircuitSeries]:
    names = {"00": "epoch0", "01": request.param}
    circuits = read_circuits([RELEASED / f"compositional_{name}.json.gz" for name in names.values()])
    structural = [
        structural_circuit(circuit.edges, circuit.nodes, checkpoint, name)
        for circuit, (checkpoint, name) in zip(circuits, names.items(), strict=True)
    ]
    return KNOWN[request.param], stack_circuits(structural)


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
    ranked = order_layers(tabulate_layers(series), 5, "released")
    paper = ranked[(ranked["policy"] == "score_change") & ranked["critical"]]
    assert paper["layer"].tolist() == known["critical"]
