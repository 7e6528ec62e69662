"""The stage scripts for circuits, on a small saved model: base and fine-tuned checkpoint in one job each."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from random_models import random_pairs, randomised, small_llama

import measure_faithfulness
import measure_functional_drift
import measure_recipe_faithfulness
import score_controls
import score_edges
import score_perturbed
import score_untrained
import select_base_circuit
import select_circuits
from circuitdrift.circuits.kinds import PREFIX, read_scores_by_kind
from circuitdrift.circuits.metrics import METRICS, SizedCircuit, faithfulness_areas, measure_circuits
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import edge_table, prune, select_circuit
from circuitdrift.config.circuits import Attribution, Faithfulness, Selection
from circuitdrift.decoder.anatomy import anatomy_of
from circuitdrift.models.loading import load_model
from circuitdrift.models.manifest import write_manifest
from circuitdrift.provenance import Provenance
from circuitdrift.storage import (
    StorageError,
    provenance_of,
    read_table,
    read_tensors,
    write_table,
    write_tensors,
)
from circuitdrift.training.checkpoints import save_checkpoint


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Manifest of a saved model, its examples, and a fully fine-tuned checkpoint of it."""
    folder = tmp_path / "models" / "tiny"
    model = small_llama().float()
    model.save_pretrained(folder)
    manifest = folder / "manifest.json"
    files = ["config.json", "model.safetensors"]
    write_manifest(manifest, source={"source": "scratch"}, folder=folder, files=files, dtype="float32")
    clean, corrupted = random_pairs(8)
    examples = pd.DataFrame(
        {
            "example_id": range(8),
            "clean": "",
            "corrupted": "",
            "answer": "",
            "corrupted_answer": "",
            "clean_ids": clean,
            "corrupted_ids": corrupted,
            "answer_ids": [[i] for i in range(8)],
            "corrupted_answer_ids": [[i + 1] for i in range(8)],
        }
    )
    write_table(tmp_path / "circuit.parquet", examples, "examples", Provenance.detached())
    save_checkpoint(randomised(model, seed=9).float(), tmp_path / "01", torch.float32, Provenance.detached())
    return manifest, tmp_path / "circuit.parquet", tmp_path / "01"


def test_stages_follow_each_other(study: tuple[Path, Path, Path], tmp_path: Path) -> None:
    manifest, examples, checkpoint = study
    provenance, recipe = Provenance.detached(), Attribution(steps=3)
    jobs = {"base": [], "01": [checkpoint]}
    changes = {table: tmp_path / f"{table}.parquet" for table in ("transitions", "summary", "layers")}
    for name, checkpoints in jobs.items():
        scores, edges, nodes, faithfulness, areas = (
            [tmp_path / name / file]
            for file in (
                "scores.safetensors",
                "edges.parquet",
                "nodes.parquet",
                "faithfulness.parquet",
                "areas.parquet",
            )
        )
        score_edges.main(manifest, examples, checkpoints, scores, recipe, "cpu", provenance)
        choice = Selection(fraction=0.2)
        if name == "base":
            select_base_circuit.main(scores[0], edges[0], nodes[0], choice, provenance)
        else:
            base = {f"base_{table}": tmp_path / "base" / f"{table}.parquet" for table in ("edges", "nodes")}
            select_circuits.main(
                **base, scores=scores, edges=edges, nodes=nodes, **changes, choice=choice, provenance=provenance
            )
        measure = Faithfulness(size_fractions=(0.5,), examples=5, bootstrap=100)
        measure_faithfulness.main(
            manifest, examples, edges, checkpoints, faithfulness, areas, measure, choice, "cpu", provenance
        )
        graph = anatomy_of(load_model(manifest, torch.device("cpu"))).graph
        tensors, metadata = read_tensors(scores[0])
        sizes = torch.tensor(json.loads(metadata["fold_sizes"]))
        mean = (tensors["scores_by_fold"] * sizes[:, None, None]).sum(dim=0) / sizes.sum()
        torch.testing.assert_close(mean, tensors["scores"])
        assert '"a0.h1<q>"' in metadata["readers"]
        table = read_table(edges[0], "edges")
        assert table["in_circuit"].sum() == select_circuit(graph, tensors["scores"], Selection(fraction=0.2)).sum()
        assert read_table(nodes[0], "nodes")["in_circuit"].sum() > 2
        curve = read_table(faithfulness[0], "faithfulness")
        assert curve["size_fraction"].unique().tolist() == [0.2, 0.5]
        wanted = "00" if name == "base" else "01"
        for path in (*edges, *nodes, *faithfulness):
            assert provenance_of(path).wildcards["checkpoint"] == wanted
    for table, path in changes.items():
        compared = read_table(path, table)
        assert set(zip(compared["from_checkpoint"], compared["to_checkpoint"], strict=True)) == {("00", "01")}
    base, tuned = (read_tensors(tmp_path / name / "scores.safetensors")[0]["scores"] for name in jobs)
    assert not torch.allclose(base, tuned)


def test_recipes_are_run_on_the_same_prompts(study: tuple[Path, Path, Path], tmp_path: Path) -> None:
    manifest, examples, _ = study
    recipes = {"own": Attribution(), "same": Attribution(), "ceap": Attribution(attribution="ceap", steps=2)}
    scores = [tmp_path / f"{name}.safetensors" for name in recipes]
    for path, recipe in zip(scores, recipes.values(), strict=True):
        score_edges.main(manifest, examples, [], [path], recipe, "cpu", Provenance.detached())
    path, areas = (tmp_path / f"recipe_{table}.parquet" for table in ("faithfulness", "areas"))
    measure = Faithfulness(examples=6, bootstrap=100, size_fractions=(1.0, 0.3, 0.1))
    choice = Selection(fraction=0.3)
    measure_recipe_faithfulness.main(
        manifest, examples, scores, list(recipes), path, areas, measure, choice, "cpu", Provenance.detached()
    )
    table = read_table(path, "recipe_faithfulness").set_index(["recipe", "metric"])
    graph = anatomy_of(load_model(manifest, torch.device("cpu"))).graph
    for name, file in zip(recipes, scores, strict=True):
        kept = select_circuit(graph, read_tensors(file)[0]["scores"], choice)
        assert table.loc[name, "n_edges"].unique().tolist() == [int(kept.sum())]
    columns = ["difference", "difference_lower", "difference_upper"]
    assert not table.loc[["own", "same"], columns].fillna(0).any(axis=None)
    expected = table.loc["ceap", "faithfulness"] - table.loc["own", "faithfulness"]
    assert table.loc["ceap", "difference"].tolist() == pytest.approx(expected.tolist(), nan_ok=True)
    assert table.loc["ceap", "difference"].abs().max() > 1e-6
    areas_of = read_table(areas, "recipe_areas").set_index(["recipe", "metric", "area"])
    assert areas_of[["n_sizes", "smallest", "largest"]].drop_duplicates().values.tolist() == [[3, 0.1, 1.0]]
    assert not areas_of.loc[["own", "same"], columns].fillna(0).any(axis=None)
    anatomy = anatomy_of(load_model(manifest, torch.device("cpu")))
    pairs = prompt_pairs(read_table(examples, "examples").head(6))
    found = read_tensors(scores[2])[0]["scores"]
    circuits = [SizedCircuit(k, select_circuit(graph, found, Selection(fraction=k)), False) for k in (0.1, 0.3, 1.0)]
    outcomes = measure_circuits(anatomy, pairs, torch.stack([circuit.edges for circuit in circuits]), measure)
    alone = faithfulness_areas(circuits, outcomes, measure).set_index(["metric", "area"])["value"]
    np.testing.assert_allclose(areas_of.loc["ceap", "value"], alone, rtol=1e-5)


def test_scoring_twice_gives_the_same_bytes(study: tuple[Path, Path, Path], tmp_path: Path) -> None:
    manifest, examples, _ = study
    paths = [tmp_path / f"{i}" / "scores.safetensors" for i in range(2)]
    for path in paths:
        score_edges.main(manifest, examples, [], [path], Attribution(), "cpu", Provenance.detached())
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_circuits_run_in_the_models_of_other_checkpoints(study: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """On the prompts that ordinary faithfulness takes, a model's own circuit has that faithfulness."""
    manifest, examples, checkpoint = study
    graph = anatomy_of(load_model(manifest, torch.device("cpu"))).graph
    measure = Faithfulness(size_fractions=(0.5,), examples=5, bootstrap=100)
    places = {"base": {"checkpoint": "00"}, "01": {"checkpoint": "01", "seed": "3"}, "other": {"seed": "4"}}
    circuits, edges = {}, {}
    for draw, (name, wildcards) in enumerate(places.items()):
        scores = torch.randn(graph.edge_mask.shape, generator=torch.Generator().manual_seed(draw))
        circuits[name] = select_circuit(graph, scores, Selection(fraction=0.6))
        edges[name] = tmp_path / name / "edges.parquet"
        table = edge_table(graph, scores, circuits[name])
        write_table(edges[name], table, "edges", Provenance.detached(**{"checkpoint": "01", **wildcards}))
    files = [tmp_path / f"{i}" / "functional.parquet" for i in range(2)]
    for file in files:
        own = [edges["base"], edges["01"]]
        origin = Provenance.detached(seed="3")
        measure_functional_drift.main(
            manifest, examples, own, [edges["other"]], [checkpoint], file, measure, "cpu", origin
        )
    assert files[0].read_bytes() == files[1].read_bytes()
    table = read_table(files[0], "functional")
    key = ["model_checkpoint", "circuit_checkpoint", "circuit_seed", "metric"]
    assert not table.duplicated(key).any()
    run = [(model, circuit, 3) for model in ("00", "01") for circuit in ("00", "01", "shared", "random")]
    expected = {(*cell, metric) for cell in [*run, ("01", "01", 4)] for metric in METRICS}
    assert set(table[key].itertuples(index=False, name=None)) == expected
    assert set(table["examples"]) == {5}
    sizes = table.groupby("circuit_checkpoint")["n_edges"].first()
    assert sizes["shared"] == prune(graph, circuits["base"] & circuits["01"]).sum()
    assert sizes["00"] == circuits["base"].sum()
    for name, checkpoints in (("base", []), ("01", [checkpoint])):
        curve, areas = ([tmp_path / name / f"{kind}.parquet"] for kind in ("curve", "areas"))
        measure_faithfulness.main(
            manifest,
            examples,
            [edges[name]],
            checkpoints,
            curve,
            areas,
            measure,
            Selection(fraction=0.6),
            "cpu",
            Provenance.detached(),
        )
        ordinary = read_table(curve[0], "faithfulness").query("own_circuit").set_index("metric")
        rows = table[(table["model_checkpoint"] == places[name]["checkpoint"]) & (table["circuit_seed"] == 3)]
        diagonal = rows[rows["circuit_checkpoint"] == rows["model_checkpoint"]]
        columns = ["faithfulness", "lower", "upper"]
        np.testing.assert_allclose(
            diagonal.set_index("metric")[columns], ordinary.loc[list(METRICS), columns], atol=1e-5
        )
        assert diagonal["difference"].dropna().eq(0).all()


def test_untrained_models_differ_by_seed_and_the_same_seed_gives_the_same_bytes(
    study: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    manifest, examples, _ = study
    paths = [[tmp_path / f"{time}" / f"seed-{seed}" / "scores.safetensors" for seed in (0, 1)] for time in range(2)]
    for scores in paths:
        score_untrained.main(manifest, examples, scores, [0, 1], Attribution(), "cpu", Provenance.detached())
    first, again = ([path.read_bytes() for path in scores] for scores in paths)
    assert first == again
    files = [read_scores(path) for path in paths[0]]
    assert [(file.checkpoint, file.origin.seed) for file in files] == [("untrained", 0), ("untrained", 1)]
    base = anatomy_of(load_model(manifest, torch.device("cpu"))).graph
    assert files[0].graph == base
    assert not torch.allclose(files[0].scores, files[1].scores, rtol=0.1, atol=0)
    assert all(file.scores[base.edge_mask].abs().max() > 0 for file in files)


def with_kinds(examples: Path, kinds: list[str]) -> Path:
    """The same examples, of these kinds."""
    path = examples.with_name("kinds.parquet")
    write_table(path, read_table(examples, "examples").assign(kind=kinds), "examples", Provenance.detached())
    return path


def test_a_kind_s_scores_are_those_of_its_prompts_alone(study: tuple[Path, Path, Path], tmp_path: Path) -> None:
    manifest, examples, _ = study
    kinds = ["+", "/", "/", "+", "+", "/", "+", "+"]
    recipe, origin = Attribution(steps=3, folds=4), Provenance.detached()
    path, reworded = tmp_path / "scores_by_kind.safetensors", tmp_path / "reworded.safetensors"
    score_controls.main(manifest, with_kinds(examples, kinds), examples, path, reworded, recipe, "cpu", origin)
    found = read_scores_by_kind(path)
    assert list(found) == ["+", "/"]
    assert {kind: scored.fold_sizes for kind, scored in found.items()} == {"+": (2, 1, 1, 1), "/": (1, 1, 1)}
    for kind, scored in found.items():
        table = read_table(examples, "examples")
        alone, scores = tmp_path / "alone.parquet", tmp_path / "alone.safetensors"
        write_table(alone, table[[name == kind for name in kinds]], "examples", origin)
        score_edges.main(manifest, alone, [], [scores], recipe, "cpu", origin)
        expected, _ = read_tensors(scores)
        assert torch.equal(scored.by_fold, expected["scores_by_fold"])
        torch.testing.assert_close(scored.scores, expected["scores"])
        assert scored.checkpoint == "00"
    score_edges.main(manifest, examples, [], [tmp_path / "all.safetensors"], recipe, "cpu", origin)
    assert reworded.read_bytes() == (tmp_path / "all.safetensors").read_bytes()


def test_a_task_of_one_kind_has_the_scores_of_all_its_prompts(study: tuple[Path, Path, Path], tmp_path: Path) -> None:
    manifest, examples, _ = study
    by_kind, scores = tmp_path / "kinds.safetensors", tmp_path / "scores.safetensors"
    one_kind = with_kinds(examples, ["row"] * 8)
    score_edges.main(manifest, one_kind, [], [scores], Attribution(), "cpu", Provenance.detached())
    score_controls.main(manifest, one_kind, None, by_kind, None, Attribution(), "cpu", Provenance.detached())
    written = by_kind.read_bytes()
    score_controls.main(manifest, one_kind, None, by_kind, None, Attribution(), "cpu", Provenance.detached())
    assert by_kind.read_bytes() == written
    assert torch.equal(read_scores_by_kind(by_kind)["row"].by_fold, read_tensors(scores)[0]["scores_by_fold"])


def test_a_file_that_is_not_of_kinds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kinds.safetensors"
    write_tensors(path, {f"{PREFIX}+": torch.zeros(1, 2, 2)}, {}, Provenance.detached())
    with pytest.raises(
        StorageError, match=r"kinds\.safetensors: not a whole file of scores by kind \(missing: \['graph'"
    ):
        read_scores_by_kind(path)
    header = {"graph": "{}", "fold_sizes": '{"-": [1]}'}
    write_tensors(path, {f"{PREFIX}+": torch.zeros(1, 2, 2)}, header, Provenance.detached())
    with pytest.raises(StorageError, match=r"its header names the kinds \['-'\]"):
        read_scores_by_kind(path)


def test_the_perturbed_split_is_scored_in_the_folds_of_the_circuit_split(
    study: tuple[Path, Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The scores are those of the train split's prompts in the order of the kinds that they replace."""
    manifest, examples, checkpoint = study
    recipe, origin = Attribution(steps=3, folds=4), Provenance.detached()
    table = read_table(examples, "examples").assign(clean=[f"prompt {i}" for i in range(8)])
    circuit, train = table.head(4).assign(kind=list("+-+-")), table.tail(4).assign(kind=list("--++"))
    files = {name: tmp_path / f"{name}.parquet" for name in ("train", "circuit", "small", "fresh")}
    written = {"train": train, "circuit": circuit, "small": train.head(3), "fresh": train.iloc[[2, 0, 3, 1]]}
    for name, split in written.items():
        write_table(files[name], split, "examples", origin)
    splits = files["train"], files["circuit"]
    for name, checkpoints in (("00", []), ("01", [checkpoint])):
        found, expected = (tmp_path / name / f"{kind}.safetensors" for kind in ("found", "expected"))
        score_perturbed.main(manifest, *splits, checkpoints, found, recipe, "cpu", origin)
        score_edges.main(manifest, files["fresh"], checkpoints, [expected], recipe, "cpu", origin)
        assert torch.equal(read_scores(found).by_fold, read_scores(expected).by_fold)
        assert read_scores(found).fold_sizes == (1, 1, 1, 1)
        assert read_scores(found).checkpoint == name
    nothing = tmp_path / "nothing.safetensors"
    with caplog.at_level(logging.WARNING):
        score_perturbed.main(manifest, files["small"], files["circuit"], [], nothing, recipe, "cpu", origin)
    assert "too few prompts of some kind" in caplog.text
    assert read_scores(nothing).fold_sizes == ()
    assert read_scores(nothing).by_fold.shape[0] == 0
