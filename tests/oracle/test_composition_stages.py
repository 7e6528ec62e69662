"""The stages of compositional tasks on a small saved model: unions, overlaps, faithfulness, ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from naive_decoder import naive_of, whole
from peft import LoraConfig
from random_models import random_pairs, randomised, small_llama

import allocate_circuit_lora
import measure_overlaps
import measure_union_faithfulness
import unite_circuits
from circuitdrift.circuits.selection import edge_table, prune, select_circuit, tensors_of_table
from circuitdrift.config.circuits import Faithfulness, Selection
from circuitdrift.config.methods import CircuitLoraMethod, Training
from circuitdrift.decoder.anatomy import anatomy_of
from circuitdrift.decoder.graph import Graph
from circuitdrift.models.loading import load_model
from circuitdrift.models.manifest import write_manifest
from circuitdrift.provenance import Provenance
from circuitdrift.storage import provenance_of, read_table, write_table
from circuitdrift.training.checkpoints import save_checkpoint

CHOICE = Selection(fraction=0.4)
CLEAN, CORRUPTED = random_pairs(6)
TASKS = ("two", "inner", "outer")
ORIGIN = Provenance.detached(model="tiny", task="two", method="r1", seed="0")


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Manifest of a saved model, prompts, and a fully fine-tuned checkpoint of it."""
    folder = tmp_path / "models" / "tiny"
    base = small_llama().float()
    base.save_pretrained(folder)
    manifest = folder / "manifest.json"
    files = ["config.json", "model.safetensors"]
    write_manifest(manifest, source={"source": "scratch"}, folder=folder, files=files, dtype="float32")
    text = dict.fromkeys(("clean", "corrupted", "answer", "corrupted_answer"), "")
    ids = {"clean_ids": CLEAN, "corrupted_ids": CORRUPTED, "answer_ids": [[i] for i in range(6)]}
    examples = pd.DataFrame(
        {"example_id": range(6), **text, **ids, "corrupted_answer_ids": [[i + 1] for i in range(6)]}
    )
    write_table(tmp_path / "test.parquet", examples, "examples", Provenance.detached())
    save_checkpoint(randomised(base, seed=9).float(), tmp_path / "01", torch.float32, Provenance.detached())
    return manifest, tmp_path / "test.parquet", tmp_path / "01"


def graph_of(manifest: Path) -> Graph:
    return anatomy_of(load_model(manifest, torch.device("cpu"))).graph


def circuits(folder: Path, graph: Graph, seeds: dict[str, tuple[int, int]]) -> dict[str, list[Path]]:
    """Edges tables of the base model and of checkpoint 01, by task, from random scores of these seeds."""
    files: dict[str, list[Path]] = {}
    for task, of_task in seeds.items():
        for checkpoint, seed in zip(("00", "01"), of_task, strict=True):
            scores = torch.randn(graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed))
            circuit = select_circuit(graph, scores, CHOICE)
            path = folder / task / checkpoint / "edges.parquet"
            origin = Provenance.detached(checkpoint=checkpoint, task=task)
            write_table(path, edge_table(graph, scores, circuit), "edges", origin)
            files.setdefault(task, []).append(path)
    return files


SEEDS = {"two": (0, 1), "inner": (2, 3), "outer": (4, 5), "lcm": (6, 7), "function": (8, 9)}


def united(folder: Path, files: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """The stage ``unite_circuits``: the files of unions and intersections, and of the changes of the unions."""
    made = {
        f"{kind}_{table}": [folder / checkpoint / kind / f"{table}.parquet" for checkpoint in ("00", "01")]
        for kind in ("union", "intersection")
        for table in ("edges", "nodes")
    }
    changes = {name: folder / f"{name}.parquet" for name in ("transitions", "summary", "layers")}
    inner_and_outer = [*files["inner"], *files["outer"]]
    unite_circuits.main(
        edges=files["two"], sub_task_edges=inner_and_outer, **made, **changes, scale="raw", provenance=ORIGIN
    )
    return {**made, **{name: [path] for name, path in changes.items()}}


def held(path: Path) -> dict[tuple[str, str, str], float]:
    """The kept edges of a table, with their scores."""
    table = read_table(path, "edges").query("in_circuit").fillna({"qkv": ""})
    keys = zip(table["source"], table["target"], table["qkv"], strict=True)
    return dict(zip(keys, table["score"], strict=True))


def test_unions_are_ordinary_circuit_files(model: tuple[Path, Path, Path], tmp_path: Path) -> None:
    graph = graph_of(model[0])
    files = circuits(tmp_path / "circuits", graph, SEEDS)
    made = united(tmp_path / "united", files)
    for place, checkpoint in enumerate(("00", "01")):
        own, first, second = (held(files[task][place]) for task in TASKS)
        union, intersection = held(made["union_edges"][place]), held(made["intersection_edges"][place])
        assert set(union) <= {*first, *second}
        assert set(intersection) <= set(first) & set(second)
        assert 0.9 * len(own) < len(union) <= len(own)
        for edge, score in {**union, **intersection}.items():
            scores = [circuit[edge] for circuit in (first, second) if edge in circuit]
            assert score == pytest.approx(sum(scores) / len(scores), rel=1e-5)
        for kind in ("union", "intersection"):
            edges, nodes = (made[f"{kind}_{table}"][place] for table in ("edges", "nodes"))
            _, circuit = tensors_of_table(graph, read_table(edges, "edges"))
            assert torch.equal(prune(graph, circuit), circuit)
            ends = {end for source, target, _ in held(edges) for end in (source, target)}
            assert set(read_table(nodes, "nodes").query("in_circuit")["node"]) == ends
            for path in (edges, nodes):
                assert provenance_of(path).wildcards["checkpoint"] == checkpoint
    transitions = read_table(made["transitions"][0], "transitions").set_index("level")
    merged = [{(source, target) for source, target, _ in held(path)} for path in made["union_edges"]]
    assert transitions.loc["edge", ["added", "removed"]].tolist() == [
        len(merged[1] - merged[0]),
        len(merged[0] - merged[1]),
    ]


def test_overlaps_are_those_of_sets_of_the_strongest_edges(model: tuple[Path, Path, Path], tmp_path: Path) -> None:
    files = circuits(tmp_path / "circuits", graph_of(model[0]), SEEDS)
    made = united(tmp_path / "united", files)
    path, sizes = tmp_path / "overlaps.parquet", [3, 10, 20, 1000]
    measure_overlaps.main(
        edges=files["two"],
        sub_task_edges=[*files["inner"], *files["outer"]],
        union_edges=made["union_edges"],
        intersection_edges=made["intersection_edges"],
        overlaps=path,
        sub_tasks=["inner", "outer"],
        sizes=sizes,
        provenance=ORIGIN,
    )
    table = read_table(path, "overlaps")
    pairs = [("own", "union"), ("own", "intersection"), ("own", "inner"), ("own", "outer"), ("inner", "outer")]
    assert set(table[["first", "second"]].itertuples(index=False, name=None)) == set(pairs)
    assert set(table["checkpoint"]) == {"00", "01"}
    n_merged = len(read_table(files["two"][0], "edges")[["source", "target"]].drop_duplicates())
    for row in table.itertuples():
        place = int(row.checkpoint)
        named = {"own": files["two"], "inner": files["inner"], "outer": files["outer"]}
        named |= {kind: made[f"{kind}_edges"] for kind in ("union", "intersection")}
        strongest = []
        for name in (row.first, row.second):
            merged: dict[tuple[str, str], float] = {}
            for (source, target, _), score in held(named[name][place]).items():
                merged[source, target] = merged.get((source, target), 0.0) + score
            strongest.append(set(sorted(merged, key=lambda edge, of=merged: -abs(of[edge]))[: row.k]))
            assert len(strongest[-1]) == row.k
        assert row.overlap == len(strongest[0] & strongest[1])
        assert row.expected == pytest.approx(row.k**2 / n_merged)
    assert set(table["k"]) == {3, 10, 20}


def measured(
    model: tuple[Path, Path, Path], files: dict[str, list[Path]], path: Path, unrelated: tuple[str, ...] = ()
) -> pd.DataFrame:
    manifest, examples, checkpoint = model
    measure_union_faithfulness.main(
        manifest=manifest,
        examples=examples,
        edges=files["two"],
        sub_task_edges=[*files["inner"], *files["outer"]],
        unrelated_edges=[file for task in unrelated for file in files[task]],
        checkpoints=[checkpoint],
        union_faithfulness=path,
        size_fractions=[0.6],
        random_unions=2,
        scale="raw",
        choice=CHOICE,
        measure=Faithfulness(examples=5, bootstrap=100),
        device="cpu",
        provenance=ORIGIN,
    )
    return read_table(path, "union_faithfulness")


def test_unions_run_beside_controls_with_the_faithfulness_of_a_slow_decoder(
    model: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    graph = graph_of(model[0])
    files = circuits(tmp_path / "circuits", graph, SEEDS)
    made = united(tmp_path / "united", files)
    paths = [tmp_path / f"{time}.parquet" for time in range(2)]
    table, _ = (measured(model, files, path, ("lcm", "function")) for path in paths)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert provenance_of(paths[0]).device == "cpu"
    key = ["checkpoint", "circuit", "draw", "size_fraction", "metric"]
    assert not table.duplicated(key).any()
    kinds = {("own", 0), ("union", 0), ("intersection", 0), ("random_union", 0), ("random_union", 1)}
    assert {*zip(table["circuit"], table["draw"], strict=True)} == kinds | {("unrelated_union", 0)}
    assert {*zip(table["checkpoint"], table["size_fraction"], strict=True)} == {
        (checkpoint, size) for checkpoint in ("00", "01") for size in (0.4, 0.6)
    }
    own = table[table["circuit"] == "own"]
    assert own["difference"].dropna().eq(0).all()
    rows = table.set_index(key)
    models = {"00": load_model(model[0], torch.device("cpu")), "01": randomised(small_llama(), seed=9)}
    for place, checkpoint in enumerate(models):
        decoder = naive_of(models[checkpoint].double())
        for kind in ("own", "union", "intersection"):
            edges = files["two"] if kind == "own" else made[f"{kind}_edges"]
            _, circuit = tensors_of_table(graph, read_table(edges[place], "edges"))
            row = rows.loc[(checkpoint, kind, 0, 0.4, "kl_model_circuit")]
            assert row["n_edges"] == circuit.sum()
            assert row["faithfulness"] == pytest.approx(slow_faithfulness(decoder, graph, circuit), abs=1e-4)
            own_row = rows.loc[(checkpoint, "own", 0, 0.4, "kl_model_circuit")]
            assert row["difference"] == pytest.approx(row["faithfulness"] - own_row["faithfulness"], abs=1e-9)
    sizes = table.groupby(["checkpoint", "size_fraction"])["n_edges"]
    assert (sizes.max() == own.groupby(["checkpoint", "size_fraction"])["n_edges"].max()).all()


def slow_faithfulness(decoder: object, graph: Graph, circuit: torch.Tensor) -> float:
    """1 - KL(model || circuit) / KL(model || corrupted), one prompt and one edge at a time."""
    kept = {(graph.writers[u], graph.readers[v]) for u, v in circuit.nonzero().tolist()}
    of_circuit, of_corrupted = 0.0, 0.0
    for clean, corrupted in zip(CLEAN[:5], CORRUPTED[:5], strict=True):
        ablated, other = decoder.run(decoder.embedding[corrupted], whole)

        def carry(u, v, z, other=other):
            return z if (u, v) in kept else other[u]

        run, _ = decoder.run(decoder.embedding[clean], carry)
        full, _ = decoder.run(decoder.embedding[clean], whole)
        p = full.softmax(-1)
        of_circuit += float((p * (full.log_softmax(-1) - run.log_softmax(-1))).sum())
        of_corrupted += float((p * (full.log_softmax(-1) - ablated.log_softmax(-1))).sum())
    return 1 - of_circuit / of_corrupted


def test_where_all_tasks_have_one_circuit_the_union_is_that_circuit(
    model: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    files = circuits(tmp_path / "circuits", graph_of(model[0]), dict.fromkeys(TASKS, (0, 1)))
    table = measured(model, files, tmp_path / "faithfulness.parquet")
    assert "unrelated_union" not in set(table["circuit"])
    same = table[table["circuit"].isin(["union", "intersection"])]
    assert same["difference"].dropna().abs().max() < 1e-9
    random = table[(table["circuit"] == "random_union") & (table["metric"] == "kl_model_circuit")]
    assert random["difference"].abs().max() > 0.01


@pytest.mark.parametrize("allocation", ["top", "per_module"])
def test_ranks_follow_the_union_without_certainty(
    model: tuple[Path, Path, Path], tmp_path: Path, allocation: str
) -> None:
    files = circuits(tmp_path / "circuits", graph_of(model[0]), SEEDS)
    made = united(tmp_path / "united", files)
    folder = tmp_path / "allocation"
    by_module = allocation == "per_module"
    allocate_circuit_lora.main(
        manifest=model[0],
        layers=made["layers"][0],
        scores=[],
        edges=made["union_edges"] if by_module else [],
        critical_layers=folder / "critical_layers.parquet",
        module_changes=folder / "module_changes.parquet" if by_module else None,
        adapter_config=folder / "adapter_config.json",
        method=CircuitLoraMethod(
            kind="circuit_lora",
            rank=1,
            critical_rank=3,
            critical_layers=1,
            phase_1="r1",
            circuit="union",
            allocation=allocation,
        ),
        training=Training(),
        choice=CHOICE,
        resamples=100,
        provenance=ORIGIN,
    )
    ordered = read_table(folder / "critical_layers.parquet", "critical_layers")
    assert set(ordered["policy"]) == {"score_change", "score_change_normalised"}
    assert ordered[["in_top", "lower", "upper"]].isna().all(axis=None)
    changes = np.zeros(2)
    before, after = (merged_scores(path) for path in made["union_edges"])
    for edge in {*before, *after}:
        layer = 0 if edge[0] == "input" else int(edge[0].split(".")[0][1:])
        changes[layer] += abs(after.get(edge, 0.0) - before.get(edge, 0.0))
    by_layer = ordered.query("policy == 'score_change'").set_index("layer")
    assert by_layer["value"].sort_index().tolist() == pytest.approx(changes.tolist(), rel=1e-4)
    critical = int(by_layer.index[by_layer["critical"]][0])
    assert critical == int(changes.argmax())
    config = LoraConfig.from_pretrained(folder)
    if not by_module:
        assert (config.r, set(config.rank_pattern.values())) == (1, {3})
        assert all(f"layers\\.{critical}\\." in name for name in config.rank_pattern)


def merged_scores(path: Path) -> dict[tuple[str, str], float]:
    merged: dict[tuple[str, str], float] = {}
    for (source, target, _), score in held(path).items():
        merged[source, target] = merged.get((source, target), 0.0) + score
    return merged
