"""The controls: their circuits against the study's own tables, and what the stage scripts write and refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import compare_circuits
import measure_controls
import order_layers
from circuitdrift.circuits import score_file as scores_file
from circuitdrift.circuits.score_file import ScoreFile
from circuitdrift.circuits.selection import edge_table, node_table, prune, select_circuit, strongest_edges
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.controls import circuit_membership, compare_pair, random_circuit
from circuitdrift.drift.series import DriftError, merge_inputs
from circuitdrift.provenance import Provenance
from circuitdrift.storage import StorageError, read_table, write_table, write_tensors

GRAPH = Graph(n_layers=3, n_heads=2, parallel=True)
FRACTION = 0.3


def noisy_scores(seed: int, noise: float = 0.3) -> torch.Tensor:
    """One shared signal and each seed's own noise."""
    shape = GRAPH.edge_mask.shape
    signal = torch.randn(shape, generator=torch.Generator().manual_seed(99))
    return (signal + noise * torch.randn(shape, generator=torch.Generator().manual_seed(seed))) * GRAPH.edge_mask


@pytest.mark.parametrize("draw", range(5))
def test_membership_is_that_of_the_study_s_tables(draw):
    scores = noisy_scores(draw)
    circuit = select_circuit(GRAPH, scores, Selection(fraction=FRACTION))
    merged = set(merge_inputs(edge_table(GRAPH, scores, circuit)).index)
    held = node_table(GRAPH, circuit).query("in_circuit")["node"]
    membership = circuit_membership(GRAPH, circuit)
    writers, nodes = np.nonzero(membership.edges)
    assert {(GRAPH.writers[w], GRAPH.nodes[n]) for w, n in zip(writers, nodes, strict=True)} == merged
    assert {GRAPH.nodes[n] for n in np.nonzero(membership.nodes)[0]} == set(held)


@pytest.mark.parametrize("n_edges", [1, 5, 17, GRAPH.n_edges])
def test_random_circuits_have_the_size_asked_for_after_pruning_and_follow_from_their_draw(n_edges):
    circuits = [random_circuit(GRAPH, n_edges, draw) for draw in range(6)]
    for circuit in circuits:
        assert torch.equal(circuit, prune(GRAPH, circuit))
        assert int(circuit.sum()) >= n_edges
    assert np.median([int(circuit.sum()) for circuit in circuits]) <= n_edges + 5
    assert torch.equal(random_circuit(GRAPH, n_edges, 3), circuits[3])
    assert len({circuit.numpy().tobytes() for circuit in circuits}) == (1 if n_edges == GRAPH.n_edges else 6)


def test_random_circuits_are_the_smallest_of_their_order():
    """The slow twin: add edges in the same order, one after the other, until enough survive pruning."""
    order = 1.0 - np.random.default_rng(2).random((GRAPH.n_writers, GRAPH.n_readers))
    for n in range(1, GRAPH.n_edges + 1):
        circuit = prune(GRAPH, strongest_edges(GRAPH, torch.from_numpy(order), n))
        if int(circuit.sum()) >= 12:
            break
    assert torch.equal(random_circuit(GRAPH, 12, 2), circuit)


def test_a_pair_is_the_same_either_way_round_but_for_its_denominator():
    one, other = (
        circuit_membership(GRAPH, select_circuit(GRAPH, noisy_scores(seed), Selection(fraction=FRACTION)))
        for seed in (0, 1)
    )
    forth, back = (compare_pair("c", "10", (0, 1), pair) for pair in ((one, other), (other, one)))
    assert forth["changed"].tolist() == back["changed"].tolist()
    assert forth["jaccard"].tolist() == back["jaccard"].tolist()
    edges = forth.set_index("level").loc["edge"]
    assert edges["changed"] == (one.edges ^ other.edges).sum()
    assert edges["rate"] == edges["changed"] / one.edges.sum()


# ----------------------------------------------------------------------------------------- the stages


def write_scores(path: Path, seed: int | None, checkpoint: str, graph: Graph = GRAPH) -> Path:
    value = noisy_scores(0 if seed is None else seed) if graph is GRAPH else torch.rand(graph.edge_mask.shape)
    noise = 0.2 * torch.randn(8, *graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed or 0))
    labels = {"checkpoint": checkpoint} | ({} if seed is None else {"seed": str(seed)})
    by_fold = (value + noise) * graph.edge_mask
    file = ScoreFile(path, graph, Provenance.detached(**labels), by_fold.mean(dim=0), by_fold, (4,) * 8)
    scores_file.write_scores(file, Attribution())
    return path


def measure(tmp_path: Path, base: Path, scores: list[Path]) -> Path:
    controls = tmp_path / "controls.parquet"
    measure_controls.main(
        base_scores=base,
        scores=scores,
        controls=controls,
        choice=Selection(fraction=FRACTION),
        random_circuits=4,
        provenance=Provenance.detached(),
    )
    return controls


def test_measure_controls(tmp_path):
    base = write_scores(tmp_path / "base.safetensors", None, "00")
    scores = [write_scores(tmp_path / f"{seed}.safetensors", seed, "10") for seed in (2, 0, 1)]
    path = measure(tmp_path, base, scores)
    written = path.read_bytes()
    assert measure(tmp_path, base, scores).read_bytes() == written
    table = read_table(path, "controls")
    pairs = table[table["level"] == "edge"].groupby("control", sort=False)
    assert pairs.size().to_dict() == {"other_seed": 3, "data_split": 4 * 20, "random_circuit": 6}
    other_seed = table.query("control == 'other_seed' and level == 'edge'")
    assert other_seed[["seed_a", "seed_b"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 2]]
    assert set(other_seed["checkpoint"]) == {"10"}
    split = table.query("control == 'data_split' and level == 'node'")
    assert sorted(set(split[["seed_a", "checkpoint"]].itertuples(index=False, name=None))) == [
        (-1, "00"),
        (0, "10"),
        (1, "10"),
        (2, "10"),
    ]
    means = table[table["level"] == "edge"].groupby("control")["jaccard"].mean()
    assert means["other_seed"] > means["random_circuit"]


def test_one_seed_has_no_other_seed(tmp_path):
    base = write_scores(tmp_path / "base.safetensors", None, "00")
    table = read_table(measure(tmp_path, base, [write_scores(tmp_path / "0.safetensors", 0, "10")]), "controls")
    assert set(table["control"]) == {"data_split", "random_circuit"}


def test_measure_controls_refuses_what_it_cannot_compare(tmp_path):
    base = write_scores(tmp_path / "base.safetensors", None, "00")
    run = write_scores(tmp_path / "run.safetensors", 0, "10")
    with pytest.raises(DriftError, match="are both of seed 0"):
        measure(tmp_path, base, [run, run])
    with pytest.raises(DriftError, match=r"checkpoints \['05', '10'\]"):
        measure(tmp_path, base, [run, write_scores(tmp_path / "early.safetensors", 1, "05")])
    larger = write_scores(tmp_path / "larger.safetensors", 1, "10", Graph(n_layers=4, n_heads=2, parallel=True))
    with pytest.raises(DriftError, match=r"base\.safetensors.*n_layers=3.*larger\.safetensors.*n_layers=4"):
        measure(tmp_path, base, [run, larger])
    old = tmp_path / "old.safetensors"
    write_tensors(old, {"scores": noisy_scores(0)}, {}, Provenance.detached(seed="1", checkpoint="10"))
    with pytest.raises(StorageError, match=r"old\.safetensors.*scores_by_fold"):
        measure(tmp_path, base, [old])


def write_circuit(folder: Path, seed: int, checkpoint: str, graph: Graph = GRAPH) -> tuple[Path, Path]:
    scores = torch.rand(graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed))
    circuit = select_circuit(graph, scores, Selection(fraction=FRACTION))
    edges, nodes = folder / checkpoint / "edges.parquet", folder / checkpoint / "nodes.parquet"
    provenance = Provenance.detached(checkpoint=checkpoint)
    write_table(edges, edge_table(graph, scores, circuit), "edges", provenance)
    write_table(nodes, node_table(graph, circuit), "nodes", provenance)
    return edges, nodes


def compare(folder: Path, circuits: list[tuple[Path, Path]]) -> dict[str, Path]:
    outputs = {name: folder / f"{name}.parquet" for name in ("transitions", "summary", "layers")}
    edges, nodes = ([circuit[place] for circuit in circuits] for place in (0, 1))
    compare_circuits.main(edges=edges, nodes=nodes, **outputs, provenance=Provenance.detached())
    return outputs


def test_from_circuits_to_critical_layers(tmp_path):
    outputs = compare(tmp_path, [write_circuit(tmp_path, i, name) for i, name in enumerate(("00", "01", "02"))])
    transitions = read_table(outputs["transitions"], "transitions")
    assert transitions["from_checkpoint"].tolist() == ["00", "00", "01", "01"]
    summary = read_table(outputs["summary"], "summary")
    assert set(summary["from_checkpoint"] + summary["to_checkpoint"]) == {"0002"}
    critical = tmp_path / "critical_layers.parquet"
    method = CircuitLoraMethod(kind="circuit_lora", rank=2, critical_rank=4, critical_layers=2, phase_1="lora_r2")
    order_layers.main(outputs["layers"], critical, method, Provenance.detached())
    ranked = read_table(critical, "critical_layers")
    assert ranked.groupby("policy")["critical"].sum().to_dict() == {"score_change": 2, "score_change_normalised": 2}
    assert ranked.groupby("policy")["value"].apply(lambda v: v.is_monotonic_decreasing).all()


def test_compare_circuits_refuses_what_it_cannot_compare(tmp_path):
    base, first = (write_circuit(tmp_path, i, name) for i, name in enumerate(("00", "01")))
    with pytest.raises(DriftError, match="at least two checkpoints"):
        compare(tmp_path, [base])
    with pytest.raises(DriftError, match=r"is of checkpoint '00' but .* of '01'"):
        compare(tmp_path, [(base[0], first[1]), (first[0], base[1])])
    other = write_circuit(tmp_path, 0, "02", Graph(n_layers=4, n_heads=2, parallel=True))
    with pytest.raises(DriftError, match=r"00.edges\.parquet has 11 nodes .*02.edges\.parquet has 14 nodes"):
        compare(tmp_path, [base, other])
    with pytest.raises(StorageError, match="no such file"):
        compare(tmp_path, [base, (tmp_path / "none.parquet", first[1])])
