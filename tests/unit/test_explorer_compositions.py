"""Circuits of compositional tasks in the explorer: what is read equals the Parquet files, and the page holds it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from explorer_tables import draw_page, reads_of, with_compositions
from figure_tables import MadeUpStudy
from test_explorer import decoded, numbers_of, unpacked

from circuitdrift.config.reading import load_study
from circuitdrift.figures import catalogue, explorer
from circuitdrift.figures.explorer_circuits import INPUTS, Circuit
from circuitdrift.figures.explorer_compositions import PART_COLOURS, Compositions, read_compositions
from circuitdrift.figures.modules import read_files
from circuitdrift.figures.tidy import FigureDataError
from circuitdrift.storage import provenance_of, read_table
from circuitdrift.study import Study

TASKS = ("lcm", "two", "two_add_sub", "two_mul_div")
SUB_TASKS = {"two": ["two_add_sub", "two_mul_div"]}
MODEL = "tiny-neox"
KINDS = ("union", "intersection", "own")
Reads = dict[str, list[Path]]


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Reads:
    folder = tmp_path_factory.mktemp("composed")
    study = MadeUpStudy(folder, tasks=TASKS, methods=("lora_r2", "lora_r8"), n_checkpoints=2, n_layers=2, n_heads=2)
    return with_compositions(study, reads_of(study, 0.5), SUB_TASKS)


def tidied(reads: Reads) -> explorer.Explored:
    return explorer.tidy(**read_files(reads, explorer.READS_ITSELF), sub_tasks=SUB_TASKS)


def kept_in(path: Path) -> set[tuple[str, str, str, float]]:
    table = read_table(path, "edges").fillna({"qkv": ""})
    return set(table.loc[table["in_circuit"], ["source", "target", "qkv", "score"]].itertuples(index=False, name=None))


def named(circuit: Circuit, nodes: pd.DataFrame) -> set[tuple[str, str, str, float]]:
    names = nodes["node"].tolist()
    found = set()
    for number, score in zip(circuit.edges.tolist(), circuit.scores.tolist(), strict=True):
        pair, place = divmod(number, 4)
        found.add((*(names[end] for end in divmod(pair, len(names))), INPUTS[place], score))
    return found


def test_united_circuits_are_the_kept_edges_of_their_tables(reads: Reads) -> None:
    table = tidied(reads)
    shown = table.compositions.shown
    runs = [(MODEL, "two", method, seed) for method in ("lora_r2", "lora_r8") for seed in (0, 1)]
    assert [(one.run, one.kind) for one in shown] == [(run, kind) for run in runs for kind in KINDS]
    for kind, name in (("union", "explored_unions"), ("intersection", "explored_intersections")):
        circuits = [circuit for one in shown if one.kind == kind for circuit in one.circuits]
        for circuit, path in zip(circuits, reads[name], strict=True):
            assert named(circuit, table.circuits.nodes[MODEL]) == kept_in(path)
            wildcards = provenance_of(path).wildcards
            assert len(circuit.edges) > 0
            assert circuit.run == (MODEL, "two", wildcards["method"], int(wildcards["seed"]))
            assert circuit.checkpoint == wildcards["checkpoint"]
    assert all(
        one.parts == ((MODEL, "two_add_sub", *one.run[2:]), (MODEL, "two_mul_div", *one.run[2:])) for one in shown
    )
    assert all(len(one.circuits) == (0 if one.kind == "own" else 3) for one in shown)
    assert table.compositions.left_out == 0


def test_the_page_holds_united_circuits_after_those_of_runs(reads: Reads, tmp_path: Path) -> None:
    draw_page(tmp_path / "page.html", reads, sub_tasks=SUB_TASKS)
    page = (tmp_path / "page.html").read_text()
    header, _ = unpacked(page)
    table = tidied(reads)
    circuits = [*table.circuits.circuits, *table.compositions.circuits]
    assert [circuit["kept"] for circuit in header["circuits"]] == [len(circuit.edges) for circuit in circuits]
    assert [circuit["checkpoint"] for circuit in header["circuits"]] == [
        int(circuit.checkpoint) for circuit in circuits
    ]
    assert [decoded(code) for code in numbers_of(page, "scores")] == [
        float(f"{score:.2e}") for circuit in circuits for score in circuit.scores.tolist()
    ]
    assert len(header["compositions"]) == 4 * 3
    union, intersection, own = header["compositions"][3:6]
    assert [one["label"] for one in (union, intersection, own)] == [
        f"{kind}, LoRA r=2, seed 1" for kind in ("Union of sub-tasks", "Intersection of sub-tasks", "Own circuit")
    ]
    assert {one["group"] for one in header["compositions"]} == {"Two, by step"}
    assert union["part_names"] == ["Two Add/Sub", "Two Mul/Div"]
    assert header["steps"] == ["Add/Sub", "Mul/Div"]
    run = (MODEL, "two", "lora_r2", 1)
    for place, one in ((3, union), (4, intersection)):
        assert [circuits[at] for at in one["circuits"]] == table.compositions.shown[place].circuits
    assert [circuits[at] for at in own["circuits"]] == [circuits[at] for at in table.circuits.series_of(run)]
    parts = [header["runs"][at] for at in own["parts"]]
    assert [(part["task"], part["method"], part["seed"]) for part in parts] == [
        (task, "lora_r2", 1) for task in SUB_TASKS["two"]
    ]
    style = page.split("</style>")[0]
    assert all(f"--{part}: {colour};" in style for part, colour in PART_COLOURS.items())


def test_a_study_without_compositions_shows_none(reads: Reads) -> None:
    table = tidied({**reads, "explored_unions": [], "explored_intersections": []})
    assert table.compositions == Compositions([], 0)
    assert table.all_circuits == table.circuits.circuits


def test_compositions_that_would_make_the_page_too_large_are_left_out(reads: Reads) -> None:
    table = tidied(reads)
    circuits = table.circuits
    of_runs = sum(len(circuit.edges) for circuit in circuits.circuits)
    of_two = sum(len(circuit.edges) for one in table.compositions.shown[:6] for circuit in one.circuits)

    def found(limit: int) -> Compositions:
        return read_compositions(circuits, reads["explored_unions"], reads["explored_intersections"], SUB_TASKS, limit)

    assert found(of_runs + of_two).left_out == 2
    assert [(one.run[2:], one.kind) for one in found(of_runs + of_two).shown] == [
        (("lora_r2", seed), kind) for seed in (0, 1) for kind in KINDS
    ]
    assert (MODEL, "two", "lora_r2", 1) not in {one.run for one in found(of_runs + of_two - 1).shown}
    assert found(of_runs) == Compositions([], 4)


def test_compositions_are_left_out_before_runs(reads: Reads) -> None:
    table = tidied(reads)
    n_runs = len(table.circuits.changes)
    assert len(table.sizes) == n_runs + 4
    fewer = table.first(n_runs + 1)
    assert (len(fewer.circuits.changes), fewer.circuits.left_out, fewer.compositions.left_out) == (n_runs, 0, 3)
    assert [one.kind for one in fewer.compositions.shown] == list(KINDS)
    assert table.first(n_runs - 1).compositions == Compositions([], 4)
    assert sum(table.sizes) < sum(len(circuit.edges) for circuit in table.all_circuits)  # base models' are shared


def test_a_composition_whose_sub_task_is_not_on_the_page_is_left_out(reads: Reads) -> None:
    explored = tidied(reads).circuits
    del explored.changes[(MODEL, "two_mul_div", "lora_r8", 0)]
    found = read_compositions(explored, reads["explored_unions"], reads["explored_intersections"], SUB_TASKS)
    assert found.left_out == 1
    assert [one.run[2:] for one in found.shown[::3]] == [("lora_r2", 0), ("lora_r2", 1), ("lora_r8", 1)]


def test_a_union_of_another_graph_is_refused(reads: Reads, tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path, tasks=TASKS, methods=("lora_r2", "lora_r8"), n_checkpoints=2, n_layers=3)
    larger = with_compositions(study, reads_of(study, 0.5), SUB_TASKS)
    with pytest.raises(FigureDataError, match="a node that the model's nodes table lacks"):
        tidied({**reads, "explored_unions": larger["explored_unions"]})


def test_the_explorer_reads_the_united_circuits_of_a_study_run_after_run() -> None:
    raw = {
        "models": {"m": {"source": "scratch"}},
        "methods": {"a": {"kind": "lora", "rank": 1}, "b": {"kind": "lora", "rank": 2}},
        "tasks": {
            "two": {"family": "compositional"},
            "inner": {"family": "sub_task", "of": "two", "part": "add_sub"},
            "outer": {"family": "sub_task", "of": "two", "part": "mul_div", "methods": ["b"]},
        },
        "seeds": [0, 3],
        "training": {"checkpoints": 2},
    }
    study = Study(load_study(raw, Path(), "config.yaml"))
    (entry,) = [figure for figure in catalogue.FIGURES if figure.name == "explorer"]
    for name, kind in (("explored_unions", "union"), ("explored_intersections", "intersection")):
        assert catalogue.files(entry, name, study) == [
            f"{study.layout.results}/composition/m/two/b/seed-{seed}/{checkpoint}/{kind}/edges.parquet"
            for seed in (0, 3)
            for checkpoint in ("00", "01", "02")
        ]
    assert catalogue.settings(entry, study)["sub_tasks"] == {"two": ["inner", "outer"]}
