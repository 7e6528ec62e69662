"""Where circuits change: by layer, at nodes that come or go, and in the order of the layers at each checkpoint."""

from __future__ import annotations

from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import locate_changes
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.circuits.selection import edge_table, node_table, select_circuit
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.checkpoint_orders import epochs_of_checkpoints
from circuitdrift.drift.early_signal import (
    nearest_to_first_epoch,
    rank_correlation,
    shared_by_chance,
    shared_layers,
)
from circuitdrift.drift.layer_order import order_layers
from circuitdrift.drift.layers import tabulate_layers
from circuitdrift.drift.series import stack_circuits, structural_circuit
from circuitdrift.drift.where import MergedCircuit, merged_circuit, tabulate_node_induced, tabulate_where
from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS
from circuitdrift.storage import read_table, write_table

SMALL = Graph(n_layers=2, n_heads=1, parallel=False)
GRAPH = Graph(n_layers=3, n_heads=2, parallel=True)


def circuit_of(*edges: str) -> MergedCircuit:
    """A circuit of the small graph, by its edges such as ``input a0.h0``."""
    held = np.zeros((SMALL.n_writers, len(SMALL.nodes)), dtype=bool)
    nodes = np.zeros(len(SMALL.nodes), dtype=bool)
    for edge in edges:
        ends = [SMALL.nodes.index(end) for end in edge.split()]
        held[ends[0], ends[1]] = True
        nodes[ends] = True
    return MergedCircuit(nodes, held, held.astype(float))


BEFORE = circuit_of("input a0.h0", "a0.h0 logits", "input m0", "m0 logits")
AFTER = circuit_of("input a0.h0", "a0.h0 m1", "m1 logits")


def test_changes_of_each_layer_counted_by_hand() -> None:
    table = tabulate_where(SMALL, BEFORE, AFTER)
    assert list(table.columns) == SCHEMAS["where"].names
    rows = table.set_index(["level", "layer"]).to_dict("index")
    names = ("present_before", "possible", "addable", "added", "removed")
    found = {key: tuple(row[name] for name in names) for key, row in rows.items()}
    assert found == {
        ("node", 0): (3, 3, 0, 0, 1),
        ("node", 1): (0, 2, 2, 1, 0),
        ("edge", 0): (4, 12, 8, 1, 3),
        ("edge", 1): (0, 3, 3, 1, 0),
    }
    expected = [rows[level, layer]["expected_added"] for level in ("node", "edge") for layer in (0, 1)]
    assert expected == pytest.approx([0, 1, 2 * 8 / 11, 2 * 3 / 11])


def test_a_full_circuit_leaves_nothing_to_add() -> None:
    every = merged_circuit(GRAPH, edge_table(GRAPH, torch.ones(GRAPH.edge_mask.shape), GRAPH.edge_mask))
    table = tabulate_where(GRAPH, every, every)
    assert table["addable"].tolist() == [0] * len(table)
    assert table["expected_added"].tolist() == [0] * len(table)
    possible = table[table["level"] == "edge"]["possible"]
    merged = GRAPH.edge_mask.sum() - 2 * sum(GRAPH.n_heads * GRAPH.n_writers_before_heads(layer) for layer in range(3))
    assert possible.sum() == merged


def test_edges_at_changed_nodes_counted_by_hand() -> None:
    [row] = tabulate_node_induced(SMALL, BEFORE, AFTER, 10).to_dict("records")
    assert (row["changed"], row["node_induced"]) == (5, 4)  # m0 goes, m1 comes; a0.h0 logits touches neither
    assert row["node_based_estimate"] == pytest.approx(2 * 4 / 4)
    # The two circuits with the degrees of BEFORE have two edges at m0 each, and AFTER is the only one with its degrees.
    assert (row["expected"], row["lower"], row["upper"]) == (4, 4, 4)


def degrees(edges: tuple[tuple[int, int], ...]) -> tuple[list[int], list[int]]:
    ends = np.array(edges)
    return np.bincount(ends[:, 0], minlength=6).tolist(), np.bincount(ends[:, 1], minlength=6).tolist()


def test_the_expectation_is_the_mean_over_all_circuits_of_the_same_degrees() -> None:
    before = circuit_of("input a0.h0", "a0.h0 m0", "m0 logits", "input a1.h0", "a1.h0 logits")
    after = circuit_of("input a1.h0", "a1.h0 logits")
    order = {name: place for place, name in enumerate(SMALL.nodes)}
    possible = list(combinations(range(6), 2))  # a sequential graph of one head has every pair in order
    own = tuple(zip(*np.nonzero(before.edges), strict=True))
    same = [edges for edges in combinations(possible, 5) if degrees(edges) == degrees(own)]
    assert len(same) > 3
    gone = {order["a0.h0"], order["m0"]}
    touching = [sum(bool(gone & set(edge)) for edge in edges) for edges in same]
    [row] = tabulate_node_induced(SMALL, before, after, 400).to_dict("records")
    assert row["node_induced"] == 3  # the two nodes that go are joined, so one edge counts for both
    assert row["expected"] == pytest.approx(np.mean(touching), abs=0.1)
    assert (row["lower"], row["upper"]) == (min(touching), max(touching))
    assert row["expected"] > 3.2


def test_empty_circuits_have_no_degrees_to_keep() -> None:
    nothing = circuit_of()
    [row] = tabulate_node_induced(SMALL, nothing, AFTER, 3).to_dict("records")
    assert (row["changed"], row["node_induced"], row["expected"]) == (3, 3, 3)
    assert np.isnan(row["node_based_estimate"])
    assert tabulate_where(SMALL, nothing, nothing)["expected_added"].tolist() == [0] * 4


# ----------------------------------------------------------------------------------------- the stage


def stage_files(folder: Path, checkpoints: tuple[str, ...], n_folds: int = 4) -> dict[str, list[Path]]:
    """Score files and edges tables of a run, and what it wrote of its training: two steps for each checkpoint."""
    signal = np.random.default_rng(0).standard_t(3, size=GRAPH.edge_mask.shape)
    files: dict[str, list[Path]] = {"edges": [], "scores": []}
    for place, name in enumerate(checkpoints):
        drawn = np.random.default_rng(place).normal(size=(n_folds, *GRAPH.edge_mask.shape))
        by_fold = torch.from_numpy(signal + drawn).float() * GRAPH.edge_mask
        scores, origin = by_fold.mean(dim=0), Provenance.detached(model="m", task="t", checkpoint=name)
        paths = folder / f"{name}.safetensors", folder / f"{name}.parquet"
        write_scores(ScoreFile(paths[0], GRAPH, origin, scores, by_fold, (2,) * n_folds), Attribution())
        circuit = select_circuit(GRAPH, scores, Selection(fraction=0.4))
        write_table(paths[1], edge_table(GRAPH, scores, circuit), "edges", origin)
        write_table(folder / f"nodes-{name}.parquet", node_table(GRAPH, circuit), "nodes", origin)
        files["scores"].append(paths[0])
        files["edges"].append(paths[1])
    steps = range(0, 2 * len(checkpoints), 2)
    unused = dict.fromkeys(("n", "accuracy", "lower", "upper"), 1)
    accuracy = pd.DataFrame({"checkpoint": checkpoints, "step": steps, "split": "test"}).assign(**unused)
    write_table(folder / "accuracy.parquet", accuracy, "accuracy", Provenance.detached())
    unused = dict.fromkeys(("loss", "learning_rate", "gradient_norm", "tokens", "seconds"), 1)
    log = pd.DataFrame({"step": range(1, 2 * len(checkpoints))}).assign(**unused)
    write_table(folder / "log.parquet", log.assign(epoch=log["step"] / 4), "training_log", Provenance.detached())
    return files


def located(folder: Path, files: dict[str, list[Path]], *, known: bool) -> dict[str, pd.DataFrame]:
    names = ("where", "node_induced", "layer_orders")
    out = {name: folder / f"{name}.parquet" for name in names}
    given = {"accuracy": folder / "accuracy.parquet", "training_log": folder / "log.parquet"}
    locate_changes.main(
        **files,
        **(given if known else dict.fromkeys(given)),
        **out,
        random_circuits=3,
        provenance=Provenance.detached(),
    )
    return {name: read_table(path, name) for name, path in out.items()}


def test_the_stage_agrees_with_the_tables_of_changes(tmp_path: Path) -> None:
    checkpoints = ("00", "01", "02")
    files = stage_files(tmp_path, checkpoints)
    tables = located(tmp_path, files, known=True)
    assert {name: list(table.columns) for name, table in tables.items()} == {
        name: SCHEMAS[name].names for name in tables
    }
    circuits = [
        structural_circuit(
            read_table(edges, "edges"), read_table(tmp_path / f"nodes-{name}.parquet", "nodes"), name, name
        )
        for name, edges in zip(checkpoints, files["edges"], strict=True)
    ]
    layers = tabulate_layers(stack_circuits([circuits[0], circuits[2]])).set_index(["level", "layer"])
    where = tables["where"].set_index(["level", "layer"])
    assert where[["added", "removed"]].astype(int).equals(layers.loc[where.index, ["added", "removed"]].astype(int))
    orders = tables["layer_orders"]
    assert orders.groupby(["checkpoint", "policy"], sort=False).size().to_dict() == {
        (name, policy): 3 for name in ("01", "02") for policy in ("score_change", "score_change_normalised", "excess")
    }
    assert orders.groupby("checkpoint")["epoch"].first().to_dict() == {"01": 0.5, "02": 1.0}
    for place, name in ((1, "01"), (2, "02")):
        changes = tabulate_layers(stack_circuits([circuits[0], circuits[place]]))
        wanted = order_layers(changes, 1, "test").sort_values(["policy", "layer"])
        own = orders[(orders["checkpoint"] == name) & (orders["policy"] != "excess")].sort_values(["policy", "layer"])
        assert own["value"].tolist() == pytest.approx(wanted["value"].tolist())
        assert own["rank_order"].tolist() == wanted["rank_order"].tolist()
    first = {name: (tmp_path / f"{name}.parquet").read_bytes() for name in tables}
    located(tmp_path, files, known=True)
    assert {name: (tmp_path / f"{name}.parquet").read_bytes() for name in tables} == first


def test_a_run_that_was_trained_elsewhere_has_no_epochs(tmp_path: Path) -> None:
    orders = located(tmp_path, stage_files(tmp_path, ("00", "01")), known=False)["layer_orders"]
    assert orders["epoch"].isna().all()
    assert len(orders) == 3 * 3


def test_a_checkpoint_has_the_epoch_of_its_step() -> None:
    accuracy = pd.DataFrame({"checkpoint": ["00", "01", "01", "02"], "step": [0, 10, 10, 20]})
    log = pd.DataFrame({"step": [10, 20], "epoch": [0.5, 1.0]})
    assert epochs_of_checkpoints(accuracy, log) == {"01": 0.5, "02": 1.0}


# ----------------------------------------------------------------------------------------- orders of layers


def test_the_correlation_is_spearmans() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        one, other = generator.integers(0, 5, size=(2, 8)).astype(float)  # with ties
        assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
    assert rank_correlation(np.arange(4.0), np.exp(np.arange(4.0))) == pytest.approx(1)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))


def test_layers_are_shared_where_both_orders_have_them_on_top() -> None:
    one, other = np.array([5.0, 4, 3, 2, 1, 0.5]), np.array([1.0, 9, 3, 2, 8, 0.5])
    assert shared_layers(one, other, 2) == 1
    assert shared_layers(one, other, 3) == 2  # 0 1 2 and 1 4 2
    assert shared_by_chance(one, other, 2) == pytest.approx(4 / 6)
    changed_once = np.array([0.0, 7, 0, 0, 0, 0])
    assert shared_layers(changed_once, other, 3) == 1
    assert shared_by_chance(changed_once, other, 3) == pytest.approx(1 * 3 / 6)
    assert shared_layers(np.zeros(6), other, 3) == 0


@pytest.mark.parametrize("top", [1, 2, 3, 5])
def test_random_orders_share_as_many_layers_as_chance_says(top: int) -> None:
    """Over all orders of five layers the overlap beyond chance is 0, and so is the correlation."""
    one = np.array([3.0, 1, 4, 1.5, 9])
    orders = [np.array(order) for order in permutations([2.0, 7, 1, 8, 2.5])]
    beyond = [shared_layers(one, order, top) - shared_by_chance(one, order, top) for order in orders]
    assert np.mean(beyond) == pytest.approx(0)
    assert np.mean([rank_correlation(one, order) for order in orders]) == pytest.approx(0)
    assert top == 5 or np.std(beyond) > 0


def test_the_checkpoint_nearest_to_the_first_epoch() -> None:
    assert nearest_to_first_epoch([0.4, 0.8, 1.2, 1.6, 2.0]) == 1
    assert nearest_to_first_epoch([0.5, 1.5, 2.5]) == 0
    assert nearest_to_first_epoch([0.25, 0.5]) is None
    assert nearest_to_first_epoch([np.nan, np.nan]) is None
    assert nearest_to_first_epoch([]) is None
