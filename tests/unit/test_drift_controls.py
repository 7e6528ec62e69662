"""The controls: their circuits against the study's own tables, and what the stage scripts write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import compare_circuits
import measure_controls
import order_layers
from circuitdrift.circuits.selection import edge_count, edge_table, node_table, select_circuit, strongest_edges
from circuitdrift.config.circuits import Selection
from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.controls import circuit_membership, compare_pair, random_scores
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
    membership = circuit_membership(GRAPH, scores, FRACTION)
    writers, nodes = np.nonzero(membership.edges)
    assert {(GRAPH.writers[w], GRAPH.nodes[n]) for w, n in zip(writers, nodes, strict=True)} == merged
    assert {GRAPH.nodes[n] for n in np.nonzero(membership.nodes)[0]} == set(held)


def test_random_circuits_have_the_size_of_real_ones_and_follow_from_their_draw():
    drawn = strongest_edges(GRAPH, random_scores(GRAPH, 3), edge_count(GRAPH, FRACTION))
    assert drawn.sum() == edge_count(GRAPH, FRACTION)
    assert torch.equal(random_scores(GRAPH, 3), random_scores(GRAPH, 3))
    assert not torch.equal(random_scores(GRAPH, 3), random_scores(GRAPH, 4))


def test_random_edges_are_drawn_uniformly():
    n, draws = edge_count(GRAPH, FRACTION), 400
    counts = sum(strongest_edges(GRAPH, random_scores(GRAPH, d), n).double() for d in range(draws))[GRAPH.edge_mask]
    share = n / GRAPH.n_edges
    sigma = (draws * share * (1 - share)) ** 0.5
    assert ((counts - draws * share).abs() < 5 * sigma).all()


def test_a_pair_is_the_same_either_way_round_but_for_its_denominator():
    one, other = (circuit_membership(GRAPH, noisy_scores(seed), FRACTION) for seed in (0, 1))
    forth, back = (compare_pair("c", "10", (0, 1), pair) for pair in ((one, other), (other, one)))
    assert forth["changed"].tolist() == back["changed"].tolist()
    assert forth["jaccard"].tolist() == back["jaccard"].tolist()
    edges = forth.set_index("level").loc["edge"]
    assert edges["changed"] == (one.edges ^ other.edges).sum()
    assert edges["rate"] == edges["changed"] / one.edges.sum()


# ----------------------------------------------------------------------------------------- the stages


def write_scores(path: Path, seed: int | None, checkpoint: str, graph: Graph = GRAPH, halves: bool = True) -> Path:
    value = noisy_scores(0 if seed is None else seed) if graph is GRAPH else torch.rand(graph.edge_mask.shape)
    tensors = {"scores": value}
    if halves:
        tensors |= {"scores_half_a": value + 0.1, "scores_half_b": value.flip(1)}
    labels = {"checkpoint": checkpoint} | ({} if seed is None else {"seed": str(seed)})
    metadata = {"graph": json.dumps({"n_layers": graph.n_layers, "n_heads": graph.n_heads, "parallel": graph.parallel})}
    write_tensors(path, tensors, metadata, Provenance.detached(**labels))
    return path


def measure(tmp_path: Path, base: Path, scores: list[Path]) -> Path:
    controls = tmp_path / "controls.parquet"
    measure_controls.main(
        base_scores=base,
        scores=scores,
        controls=controls,
        fraction=FRACTION,
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
    assert pairs.size().to_dict() == {"other_seed": 3, "data_split": 4, "random_circuit": 6}
    other_seed = table.query("control == 'other_seed' and level == 'edge'")
    assert other_seed[["seed_a", "seed_b"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 2]]
    assert set(other_seed["checkpoint"]) == {"10"}
    split = table.query("control == 'data_split' and level == 'node'")
    assert sorted(split[["seed_a", "checkpoint"]].itertuples(index=False, name=None)) == [
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
    with pytest.raises(StorageError, match=r"half\.safetensors.*scores_half_a"):
        measure(tmp_path, base, [write_scores(tmp_path / "half.safetensors", 1, "10", halves=False)])


def write_circuit(folder: Path, seed: int, checkpoint: str, graph: Graph = GRAPH) -> tuple[Path, Path]:
    scores = random_scores(graph, seed)
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
