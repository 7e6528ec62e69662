"""The controls: their circuits against the study's own tables, and what the stage scripts write and refuse."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import compare_circuits
import measure_controls
from circuitdrift.circuits import score_file as scores_file
from circuitdrift.circuits.kinds import write_scores_by_kind
from circuitdrift.circuits.score_file import ScoreFile
from circuitdrift.circuits.selection import (
    edge_table,
    node_table,
    prune,
    select_circuit,
    strongest_edges,
    structural_edges,
)
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.controls import (
    Membership,
    circuit_membership,
    comparable_kinds,
    compare_kinds,
    compare_pair,
    compare_seeds,
    compare_split_data,
    structural_membership,
)
from circuitdrift.drift.critical_layers import critical_layers_by_change
from circuitdrift.drift.fold_circuits import features_of_circuits, fold_scores, rows_of_scores
from circuitdrift.drift.random_circuits import degree_preserving_circuit, random_circuit
from circuitdrift.drift.reliability import compare_halves, draw_halves, excess_of, similarity
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


def test_no_random_circuit_matches_an_empty_one():
    with pytest.raises(DriftError, match="base circuit is empty"):
        random_circuit(GRAPH, 0, 0)
    with pytest.raises(DriftError, match="base circuit is empty"):
        degree_preserving_circuit(GRAPH, np.zeros((GRAPH.n_writers, len(GRAPH.nodes)), dtype=bool), 0)


def circuit_of(seed: int, graph: Graph = GRAPH, fraction: float = FRACTION) -> np.ndarray:
    """The structural edges of a pruned circuit."""
    scores = torch.randn(graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed))
    return structural_edges(graph, select_circuit(graph, scores, Selection(fraction=fraction))).numpy()


@pytest.mark.parametrize("graph", [GRAPH, Graph(n_layers=6, n_heads=4, parallel=False)])
@pytest.mark.parametrize("fraction", [0.2, 0.3, 1.0])
def test_swaps_keep_every_degree_and_stay_in_the_graph(graph, fraction):
    base = circuit_of(1, graph, fraction)
    allowed = structural_edges(graph, graph.edge_mask).numpy()
    drawn = [degree_preserving_circuit(graph, base, draw) for draw in range(4)]
    for edges in drawn:
        assert edges.sum(axis=0).tolist() == base.sum(axis=0).tolist()
        assert edges.sum(axis=1).tolist() == base.sum(axis=1).tolist()
        assert not (edges & ~allowed).any()
        # Nothing can be pruned, so nodes and size are those of the base circuit.
        readers = torch.from_numpy(edges)[:, graph.node_of_reader] & graph.edge_mask
        assert np.array_equal(structural_edges(graph, prune(graph, readers)).numpy(), edges)
        assert structural_membership(edges).nodes.tolist() == structural_membership(base).nodes.tolist()
    assert np.array_equal(degree_preserving_circuit(graph, base, 2), drawn[2])
    if fraction == 0.3:
        assert len({edges.tobytes() for edges in (base, *drawn)}) == 5


def test_swaps_visit_every_circuit_of_the_same_degrees_equally_often():
    """Brute force: every choice of targets for each writer, of which those count that give each node its inputs."""
    graph = Graph(n_layers=2, n_heads=2, parallel=True)
    allowed = structural_edges(graph, graph.edge_mask).numpy()
    base = np.zeros_like(allowed)
    names = {name: place for place, name in enumerate(graph.nodes)}
    edges_held = ["input a0.h0", "input a0.h1", "input m0", "input m1", "a0.h0 a1.h0", "a0.h0 logits", "a0.h1 a1.h1"]
    for edge in [*edges_held, "m0 m1", "a1.h0 logits", "a1.h1 logits", "m1 logits"]:
        source, target = edge.split()
        base[names[source], names[target]] = True
    choices = [combinations(np.flatnonzero(allowed[writer]), base[writer].sum()) for writer in range(len(base))]
    same = set()
    for chosen in product(*choices):
        edges = np.zeros_like(base)
        for writer, targets in enumerate(chosen):
            edges[writer, list(targets)] = True
        if (edges.sum(axis=0) == base.sum(axis=0)).all():
            same.add(edges.tobytes())
    assert len(same) > 5
    draws = 60 * len(same)
    visits = Counter(degree_preserving_circuit(graph, base, draw).tobytes() for draw in range(draws))
    assert set(visits) == same
    assert stats.chisquare(list(visits.values())).pvalue > 0.001


def test_a_circuit_that_its_degrees_determine_stays():
    """Where all edges are held, no swap is possible."""
    everything = structural_edges(GRAPH, GRAPH.edge_mask).numpy()
    assert np.array_equal(degree_preserving_circuit(GRAPH, everything, 0), everything)


def test_two_empty_circuits_are_not_alike():
    empty = Membership(np.zeros(4, dtype=bool), np.zeros((3, 4), dtype=bool))
    assert compare_pair("c", "10", (0, 1), (empty, empty))[["rate", "jaccard"]].isna().all(axis=None)


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


def kind(signal: int, prompts: int, n_folds: int = 8, noise: float = 0.2) -> ScoreFile:
    """Scores of one kind of prompt; kinds of one signal are alike but for their noise."""
    value = torch.randn(GRAPH.edge_mask.shape, generator=torch.Generator().manual_seed(signal))
    drawn = torch.randn(n_folds, *GRAPH.edge_mask.shape, generator=torch.Generator().manual_seed(signal + prompts))
    by_fold = (value + noise * drawn) * GRAPH.edge_mask
    sizes = tuple(prompts // n_folds + (fold < prompts % n_folds) for fold in range(n_folds))
    origin = Provenance.detached(checkpoint="00")
    return ScoreFile(Path("kinds.safetensors"), GRAPH, origin, by_fold.mean(dim=0), by_fold, sizes)


def write_kinds(path: Path, **kinds: ScoreFile) -> Path:
    write_scores_by_kind({name: replace(scored, path=path) for name, scored in kinds.items()}, Attribution())
    return path


def measure(tmp_path: Path, base: Path, scores: list[Path], **kinds: ScoreFile) -> Path:
    controls = tmp_path / "controls.parquet"
    measure_controls.main(
        base_scores=base,
        kind_scores=write_kinds(tmp_path / "kinds.safetensors", **(kinds or {"row": kind(0, 32)})),
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
    assert pairs.size().to_dict() == {
        "other_seed": 3,
        "data_split": 4 * 20,
        "random_circuit": 6,
        "degree_preserving": 6,
        "degree_preserving_base": 4,
    }
    assert pairs["n"].unique().apply(list).to_dict() == {
        "other_seed": [3],
        "data_split": [20, 60],
        "random_circuit": [6],
        "degree_preserving": [6],
        "degree_preserving_base": [4],
    }
    assert table["pairing"].notna().all()
    prompts = table.groupby("control")["examples"].unique()
    assert (list(prompts["other_seed"]), list(prompts["data_split"])) == ([32], [16])
    assert table.loc[table["checkpoint"] == "none", ["examples", "pearson"]].isna().all(axis=None)
    nodes = table[table["control"].str.startswith("degree") & (table["level"] == "node")]
    assert set(nodes["changed"]) == {0}
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
    assert set(table["control"]) == {"data_split", "random_circuit", "degree_preserving", "degree_preserving_base"}


def test_kinds_are_controls_under_their_own_names(tmp_path, caplog):
    base = write_scores(tmp_path / "base.safetensors", None, "00")
    run = write_scores(tmp_path / "0.safetensors", 0, "10")
    kinds = {"+": kind(3, 40), "-": kind(4, 80), "x": kind(3, 3, n_folds=3)}
    table = read_table(measure(tmp_path, base, [run], **kinds), "controls")
    of_kinds = table[table["control"].str.startswith("kind: ")]
    assert of_kinds.groupby("control").size().to_dict() == dict.fromkeys(
        ("kind: + and +", "kind: + and -", "kind: - and -"), 40
    )
    assert set(of_kinds["examples"]) == {20}
    assert (set(of_kinds["seed_a"]), set(of_kinds["checkpoint"])) == ({-1}, {"00"})
    assert "kinds ['x'] have too few circuit prompts" in caplog.text
    means = of_kinds.groupby(["control", "level"])[["jaccard", "ruzicka", "spearman", "pearson"]].mean()
    assert (means.loc["kind: + and -"] < means.loc["kind: + and +"]).all(axis=None)
    assert (means.loc["kind: + and -"] < means.loc["kind: - and -"]).all(axis=None)


def test_kinds_of_one_signal_are_as_alike_as_the_halves_of_each():
    describe = features_of_circuits(GRAPH, Selection(fraction=FRACTION))
    alike = {"a": kind(3, 64, noise=1.0), "b": kind(3, 72, noise=1.0)}
    edges = pd.concat(compare_kinds(alike, describe)).query("level == 'edge'")
    table = edges.groupby("control")["pearson"].mean()
    within = (table["kind: a and a"] + table["kind: b and b"]) / 2
    assert table["kind: a and b"] == pytest.approx(within, abs=0.05)


def test_kinds_that_cannot_have_equal_numbers_of_prompts_are_not_compared():
    assert comparable_kinds({"row": kind(0, 32)}) == []
    assert comparable_kinds({"a": kind(0, 400), "b": kind(1, 3, n_folds=3)}) == []
    assert comparable_kinds({"a": kind(0, 400), "b": kind(1, 100)}) == ["a", "b"]
    assert comparable_kinds({"a": kind(0, 400), "b": kind(1, 98)}) == []
    assert comparable_kinds({"c": kind(0, 40), "b": kind(1, 40), "a": kind(2, 8)}) == ["a", "b", "c"][1:]


def test_other_seeds_are_compared_as_checkpoints_are():
    """Circuits by the study's own selection, similarities one by one, and the excess of reliability."""
    describe = features_of_circuits(GRAPH, Selection(fraction=FRACTION))
    runs = {seed: replace(kind(seed + 5, 64), scores=noisy_scores(seed)) for seed in (1, 0)}
    [frame] = compare_seeds(runs, describe)
    frame = frame.set_index("level")
    circuits = [
        circuit_membership(GRAPH, select_circuit(GRAPH, noisy_scores(seed), Selection(fraction=FRACTION)))
        for seed in (0, 1)
    ]
    expected = compare_pair("other_seed", "00", (0, 1), (circuits[0], circuits[1])).set_index("level")
    assert frame[expected.columns].equals(expected)
    folds = [fold_scores(runs[seed]) for seed in (0, 1)]
    halves = draw_halves(np.arange(8), 8, 4, 20, seed=0)
    found = compare_halves(*folds, halves, describe)
    strength = [np.abs(noisy_scores(seed)[GRAPH.edge_mask].numpy()) for seed in (0, 1)]
    assert frame.loc["edge", "spearman"] == pytest.approx(stats.spearmanr(*strength).statistic)
    for (level, measure), numbers in found.items():
        assert frame.loc[level, f"excess_{measure}"] == pytest.approx(excess_of(numbers))


def test_halves_of_the_data_are_compared_one_split_after_the_other():
    describe = features_of_circuits(GRAPH, Selection(fraction=FRACTION))
    scored = kind(0, 64)
    frames = compare_split_data(scored, -1, describe)
    first, second = draw_halves(np.arange(8), 8, 4, 20, seed=0)
    assert len(frames) == 20
    for split, frame in enumerate(frames):
        means = [scored.by_fold[torch.from_numpy(half[split])].double().mean(dim=0) for half in (first, second)]
        rows = [mean[GRAPH.edge_mask].numpy()[None] for mean in means]
        circuits = [select_circuit(GRAPH, rows_of_scores(GRAPH, row)[0], Selection(fraction=FRACTION)) for row in rows]
        pair = [circuit_membership(GRAPH, circuit) for circuit in circuits]
        expected = compare_pair("data_split", "00", (-1, -1), (pair[0], pair[1]))
        assert frame[expected.columns].equals(expected)
        pearson = frame.set_index("level").loc["edge", "pearson"]
        assert pearson == pytest.approx(similarity("pearson", *rows)[0])


def test_measure_controls_refuses_what_it_cannot_compare(tmp_path):
    base = write_scores(tmp_path / "base.safetensors", None, "00")
    run = write_scores(tmp_path / "run.safetensors", 0, "10")
    with pytest.raises(DriftError, match="are both of seed 0"):
        measure(tmp_path, base, [run, run])
    with pytest.raises(DriftError, match=r"folds of \[\(4, 4, 4, 4, 4, 4, 4, 4\), \(8, 8, 8, 8, 8, 8, 8, 8\)\]"):
        compare_seeds({0: kind(0, 32), 1: kind(1, 64)}, lambda rows: {})
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
    method = CircuitLoraMethod(kind="circuit_lora", rank=2, critical_rank=4, critical_layers=2, phase_1="lora_r2")
    ranked = critical_layers_by_change(outputs["layers"], method)
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
