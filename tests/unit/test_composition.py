"""Unions and intersections of circuits, their overlaps, and which runs of a study have them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from circuitdrift.circuits.circuit_files import graph_of_table
from circuitdrift.circuits.selection import edge_table, prune, select_circuit, strongest_among
from circuitdrift.composition.faithfulness import TaskCircuits, united_circuits
from circuitdrift.composition.overlaps import number_of_merged_edges, tabulate_overlaps
from circuitdrift.composition.unions import ScoredCircuit, cut_to_size, intersect, unite
from circuitdrift.config.circuits import Selection
from circuitdrift.config.reading import ConfigError, load_study
from circuitdrift.decoder.graph import Graph
from circuitdrift.runs import Run
from circuitdrift.study import Study

SMALL = Graph(n_layers=1, n_heads=1, parallel=True)
GRAPH = Graph(n_layers=3, n_heads=2, parallel=False)
IN_Q, IN_MLP, IN_OUT = ("input", "a0.h0<q>"), ("input", "m0"), ("input", "logits")
HEAD_OUT, MLP_OUT = ("a0.h0", "logits"), ("m0", "logits")
FIRST = {IN_Q: 4.0, HEAD_OUT: 2.0, IN_OUT: -6.0}
SECOND = {IN_MLP: 3.0, MLP_OUT: 1.0, IN_OUT: 8.0}

Edges = dict[tuple[str, str], float]


def circuit_of(edges: Edges, graph: Graph = SMALL, outside: float = 0.0) -> ScoredCircuit:
    """A circuit of these edges; all others have the score ``outside``."""
    scores = torch.where(graph.edge_mask, outside, 0.0)
    held = torch.zeros_like(graph.edge_mask)
    for (source, target), score in edges.items():
        place = graph.writers.index(source), graph.readers.index(target)
        scores[place], held[place] = score, True
    return ScoredCircuit(scores, held)


def edges_of(circuit: Tensor, graph: Graph = SMALL) -> set[tuple[str, str]]:
    return {(graph.writers[u], graph.readers[v]) for u, v in circuit.nonzero().tolist()}


def random_circuit_of(seed: int, fraction: float = 0.5) -> ScoredCircuit:
    scores = torch.randn(GRAPH.edge_mask.shape, generator=torch.Generator().manual_seed(seed)) * GRAPH.edge_mask
    return ScoredCircuit(scores, select_circuit(GRAPH, scores, Selection(fraction=fraction)))


def slow_union(circuits: list[ScoredCircuit], size: int, wanted: int) -> tuple[Edges, set[tuple[str, str]]]:
    """Edge by edge: those of at least ``wanted`` circuits, the weakest taken away until ``size`` are left."""
    scores, held = {}, []
    for u, v in product(range(GRAPH.n_writers), range(GRAPH.n_readers)):
        found = [float(c.scores[u, v]) for c in circuits if c.edges[u, v]]
        if found:
            scores[GRAPH.writers[u], GRAPH.readers[v]] = sum(found) / len(found)
        if len(found) >= wanted:
            held.append((abs(sum(found) / len(found)), -len(held), u, v))
    held.sort(reverse=True)
    while True:
        kept = torch.zeros_like(GRAPH.edge_mask)
        for _, _, u, v in held:
            kept[u, v] = True
        pruned = prune(GRAPH, kept)
        if int(pruned.sum()) <= size:
            return scores, edges_of(pruned, GRAPH)
        held.pop()


def test_an_edge_of_both_circuits_has_the_mean_of_its_scores_and_others_their_own():
    union = unite(SMALL, [circuit_of(FIRST, outside=9.0), circuit_of(SECOND, outside=-9.0)], 7, "raw")
    assert edges_of(union.edges) == {*FIRST, *SECOND}
    assert torch.equal(union.scores, circuit_of({**FIRST, **SECOND, IN_OUT: 1.0}).scores)


def test_a_union_is_cut_by_score_and_pruned_to_at_most_the_size_wanted():
    """In order: input to q 4, input to m0 3, head to logits 2, input to logits 1, m0 to logits 1."""
    circuits = [circuit_of(FIRST), circuit_of(SECOND)]
    kept = {size: edges_of(unite(SMALL, circuits, size, "raw").edges) for size in range(7)}
    through_head = {IN_Q, HEAD_OUT}
    assert kept[0] == kept[1] == set()
    assert kept[2] == through_head
    assert kept[3] == kept[4] == {*through_head, IN_OUT}
    assert kept[5] == kept[6] == {*FIRST, *SECOND}


def test_an_intersection_holds_the_edges_of_both_circuits_alone():
    circuits = [circuit_of(FIRST), circuit_of(SECOND)]
    assert edges_of(intersect(SMALL, circuits, 7, "raw").edges) == {IN_OUT}
    assert edges_of(intersect(SMALL, circuits, 0, "raw").edges) == set()
    apart = [circuit_of(FIRST), circuit_of({IN_MLP: 3.0, MLP_OUT: 1.0})]
    assert edges_of(intersect(SMALL, apart, 7, "raw").edges) == set()


def test_scores_of_unit_mass_weigh_both_tasks_alike():
    """Ten times the scores of one task change nothing; as they are they do."""
    larger = circuit_of({edge: 10 * score for edge, score in SECOND.items()}, outside=50.0)
    found = {
        scale: [unite(SMALL, [circuit_of(FIRST), other], 3, scale) for other in (circuit_of(SECOND), larger)]
        for scale in ("raw", "unit_mass")
    }
    one, ten = found["unit_mass"]
    torch.testing.assert_close(one.scores, ten.scores)
    assert torch.equal(one.edges, ten.edges)
    assert float(one.scores[0, SMALL.readers.index("m0")]) == pytest.approx(3 / 12)
    assert float(one.scores[0, -1]) == pytest.approx((-6 / 12 + 8 / 12) / 2)
    assert edges_of(found["raw"][1].edges) == {IN_MLP, MLP_OUT, IN_OUT}
    assert edges_of(found["raw"][0].edges) == {IN_Q, HEAD_OUT, IN_OUT}


def test_empty_circuits_have_an_empty_union_of_unit_mass():
    union = unite(SMALL, [circuit_of({}), circuit_of({})], 3, "unit_mass")
    assert not union.edges.any()
    assert torch.isfinite(union.scores).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [0, 3, 17, 30, 1000])
def test_unions_and_intersections_agree_with_edges_taken_away_one_by_one(seed, size):
    circuits = [random_circuit_of(seed), random_circuit_of(seed + 100)]
    for make, wanted in ((unite, 1), (intersect, 2)):
        found = make(GRAPH, circuits, size, "raw")
        scores, edges = slow_union(circuits, size, wanted)
        assert edges_of(found.edges, GRAPH) == edges
        expected = circuit_of(scores, GRAPH).scores
        torch.testing.assert_close(found.scores, expected)
        assert torch.equal(prune(GRAPH, found.edges), found.edges)


def test_a_circuit_united_with_itself_is_itself():
    circuit = random_circuit_of(4)
    union = unite(GRAPH, [circuit, circuit], circuit.size, "raw")
    assert torch.equal(union.edges, circuit.edges)
    torch.testing.assert_close(union.scores, circuit.scores * circuit.edges)


def test_the_strongest_among_some_edges_are_no_others_even_of_score_zero():
    scores, some = torch.zeros(GRAPH.edge_mask.shape), torch.zeros_like(GRAPH.edge_mask)
    some[2, -1] = some[0, 0] = True
    assert torch.equal(strongest_among(GRAPH, scores, some, 5), some)
    assert strongest_among(GRAPH, scores, some, 1).nonzero().tolist() == [[0, 0]]
    assert not cut_to_size(GRAPH, scores, some & False, 5).any()


def test_overlaps_count_the_strongest_merged_edges():
    """Of the first, by strength: input to logits 6, input to the head 4 + 1 - 2, head to logits 2."""
    circuits = {
        "own": circuit_of({**FIRST, ("input", "a0.h0<k>"): 1.0, ("input", "a0.h0<v>"): -2.0}),
        "other": circuit_of({**SECOND, ("input", "a0.h0<v>"): -7.0}),
    }
    tables = {name: edge_table(SMALL, circuit.scores, circuit.edges) for name, circuit in circuits.items()}
    assert number_of_merged_edges(tables["own"]) == 5
    found = tabulate_overlaps(tables, [("own", "other"), ("own", "own")], [1, 2, 3, 4])
    expected = [("own", "other", 1, 1, 1 / 5), ("own", "other", 2, 2, 4 / 5), ("own", "other", 3, 2, 9 / 5)]
    expected += [("own", "own", k, k, k * k / 5) for k in (1, 2, 3)]
    assert [*found.itertuples(index=False, name=None)] == expected
    assert tabulate_overlaps(tables, [("own", "other")], [100]).empty


def test_overlaps_of_random_sets_are_by_chance_what_is_expected():
    """The mean over many pairs of random circuits, and sets counted one by one."""
    generator = np.random.default_rng(0)
    names = edge_table(GRAPH, torch.zeros(GRAPH.edge_mask.shape), GRAPH.edge_mask)
    merged = names.drop_duplicates(["source", "target"])
    overlaps, k = [], 12
    for _ in range(200):
        tables = {
            name: merged.assign(score=generator.standard_normal(len(merged)), in_circuit=True) for name in ("a", "b")
        }
        row = tabulate_overlaps(tables, [("a", "b")], [k]).iloc[0]
        strongest = [
            set(sorted(zip(table["score"].abs(), table["source"], table["target"], strict=True), reverse=True)[:k])
            for table in tables.values()
        ]
        ends = [{(source, target) for _, source, target in edges} for edges in strongest]
        assert row["overlap"] == len(ends[0] & ends[1])
        overlaps.append(row["overlap"])
    error = np.std(overlaps) / np.sqrt(len(overlaps))
    assert row["expected"] == k * k / len(merged)
    assert abs(np.mean(overlaps) - row["expected"]) < 4 * error


@pytest.mark.parametrize("graph", [SMALL, GRAPH, Graph(2, 3, True), Graph(1, 2, False)])
def test_the_graph_is_read_off_an_edges_table(graph):
    table = edge_table(graph, torch.zeros(graph.edge_mask.shape), graph.edge_mask)
    assert graph_of_table(table) == graph


CHOICE = Selection(fraction=0.5)


def task_circuits(unrelated: bool = True) -> TaskCircuits:
    own, first, second, other, another = map(random_circuit_of, range(5))
    return TaskCircuits(own, [first, second], [other, another] if unrelated else [])


def test_each_size_has_its_own_circuits_and_controls():
    circuits = task_circuits()
    found = united_circuits(GRAPH, circuits, [0.6, 0.5, 0.7], 3, "raw", CHOICE)
    kinds = ["own", "union", "intersection", *["random_union"] * 3, "unrelated_union"]
    assert [c.kind for c in found] == 3 * kinds
    assert [c.size_fraction for c in found] == [size for size in (0.5, 0.6, 0.7) for _ in kinds]
    assert [c.draw for c in found[:7]] == [0, 0, 0, 0, 1, 2, 0]
    for size in (0.5, 0.6, 0.7):
        choice = Selection(fraction=size)
        anew = [
            ScoredCircuit(c.scores, select_circuit(GRAPH, c.scores, choice))
            for c in (circuits.own, *circuits.sub_tasks)
        ]
        of_size = {c.kind: c.edges for c in found if c.size_fraction == size}
        assert torch.equal(of_size["own"], anew[0].edges)
        assert torch.equal(of_size["union"], unite(GRAPH, anew[1:], anew[0].size, "raw").edges)
        assert torch.equal(of_size["intersection"], intersect(GRAPH, anew[1:], anew[0].size, "raw").edges)
        for circuit in found:
            if circuit.size_fraction == size:
                assert torch.equal(prune(GRAPH, circuit.edges), circuit.edges)
                assert int(circuit.edges.sum()) <= anew[0].size
    random = [c for c in found if c.kind == "random_union"]
    assert len({c.edges.numpy().tobytes() for c in random if c.size_fraction == 0.5}) == 3
    sizes = [int(c.edges.sum()) for c in random if c.size_fraction == 0.5]
    assert np.mean(sizes) > 0.9 * circuits.own.size


def test_the_study_s_own_circuits_are_those_of_its_size_whatever_selected_them():
    found = united_circuits(GRAPH, task_circuits(unrelated=False), [0.6], 1, "raw", Selection(selection="greedy"))
    assert [c.size_fraction for c in found] == [0.05] * 4 + [0.6] * 4
    assert torch.equal(found[0].edges, task_circuits().own.edges)
    assert "unrelated_union" not in {c.kind for c in found}


def test_an_empty_circuit_has_no_random_twin():
    own, empty = random_circuit_of(0), ScoredCircuit(random_circuit_of(1).scores, torch.zeros_like(GRAPH.edge_mask))
    found = united_circuits(GRAPH, TaskCircuits(own, [own, empty], []), [0.5], 2, "raw", CHOICE)
    assert [c.kind for c in found] == ["own", "union", "intersection"]


METHODS = {
    "r1": {"kind": "lora", "rank": 1},
    "r2": {"kind": "lora", "rank": 2},
    "own": {"kind": "circuit_lora", "rank": 1, "critical_rank": 2, "critical_layers": 1, "phase_1": "r1"},
    "union": {
        **{"kind": "circuit_lora", "rank": 1, "critical_rank": 2, "critical_layers": 1, "phase_1": "r1"},
        "circuit": "union",
    },
}
TASKS = {
    "two": {"family": "compositional", "methods": ["union", "own"]},
    "inner": {"family": "sub_task", "of": "two", "part": "add_sub", "methods": []},
    "outer": {"family": "sub_task", "of": "two", "part": "mul_div", "methods": ["r2"]},
}


def study(tasks: dict = TASKS, methods: dict = METHODS, **sections: object) -> Study:
    raw = {"models": {"m": {"source": "scratch"}}, "tasks": tasks, "methods": methods, **sections}
    return Study(load_study(raw, Path(), "config.yaml"))


def test_a_circuit_lora_by_union_asks_for_phase_1_on_both_sub_tasks():
    found = study(drift={"methods": []})
    assert {task: found.methods_on(task) for task in TASKS} == {
        "two": ("r1", "own", "union"),
        "inner": ("r1",),
        "outer": ("r1", "r2"),
    }
    assert found.sub_tasks == {"two": ("inner", "outer")}
    assert found.composition_runs == (Run("m", "two", "r1", 0),)
    without = study(tasks={**TASKS, "two": {"family": "compositional", "methods": ["own"]}}, drift={"methods": []})
    assert without.methods_on("inner") == ()
    assert without.composition_runs == ()


def test_every_run_with_circuits_on_all_three_tasks_is_compared():
    tasks = {name: {**task, "methods": "all"} for name, task in TASKS.items()}
    methods = {name: METHODS[name] for name in ("r1", "r2", "own")}
    found = study(tasks, methods, seeds=[0, 1], drift={"methods": ["r1", "r2"]})
    assert [(run.method, run.seed) for run in found.composition_runs] == [("r1", 0), ("r1", 1), ("r2", 0), ("r2", 1)]
    lacking = {name: tasks[name] for name in ("two", "inner")}
    assert study(lacking, methods).composition_runs == ()
    assert study(lacking, methods).sub_tasks == {}


def test_unrelated_tasks_need_no_operation_of_the_compositional_task():
    tasks = {name: {**task, "methods": "all"} for name, task in TASKS.items()}
    others = {
        "sums": {"family": "add_sub"},
        "products": {"family": "mul_div"},
        "lcm": {"family": "lcm"},
        "untrained": {"family": "lcm", "methods": []},
        "function": {"family": "function"},
        "sequence": {"family": "sequence"},
    }
    methods = {"r1": METHODS["r1"]}
    run = Run("m", "two", "r1", 0)
    assert [r.task for r in study({**others, **tasks}, methods).unrelated_runs(run)] == ["lcm", "function"]
    fewer = {name: others[name] for name in ("sums", "products", "lcm")}
    assert study({**fewer, **tasks}, methods).unrelated_runs(run) == ()


@pytest.mark.parametrize(
    ("tasks", "methods", "words"),
    [
        ({**TASKS, "lcm": {"family": "lcm"}}, METHODS, ["methods.union.circuit", "['lcm']", "tasks.lcm.methods"]),
        ({n: TASKS[n] for n in ("two", "inner")}, METHODS, ["needs a sub-task mul_div of 'two'", "part: mul_div"]),
        ({"two": {"family": "compositional"}}, METHODS, ["sub-task add_sub of 'two'", "sub-task mul_div of 'two'"]),
        (
            {**TASKS, "inner": {**TASKS["inner"], "methods": "all"}},
            METHODS,
            ["['inner'] are not", "tasks.inner.methods: [...]"],
        ),
        (
            TASKS,
            {**METHODS, "union": {**METHODS["union"], "policy": "excess"}},
            ["methods.union.policy: excess", "circuit own"],
        ),
        (TASKS, {**METHODS, "union": {**METHODS["union"], "phase_1": "given"}}, ["given checkpoints are not united"]),
    ],
)
def test_a_union_without_its_circuits_is_refused(tasks, methods, words):
    with pytest.raises(ConfigError) as caught:
        study(tasks, methods)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_union_that_no_task_is_trained_by_is_no_problem():
    tasks = {"lcm": {"family": "lcm", "methods": ["r1"]}}
    assert pd.Series(study(tasks).methods_on("lcm")).tolist() == ["r1"]
