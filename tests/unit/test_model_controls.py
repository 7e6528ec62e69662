"""Controls of another wording and of untrained models, and their stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import measure_model_controls
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.fold_circuits import features_of_circuits
from circuitdrift.drift.model_controls import tabulate_model_controls
from circuitdrift.drift.reliability import FoldScores, compare_halves, draw_halves
from circuitdrift.drift.reliability_table import SEED, Resampling
from circuitdrift.drift.series import DriftError
from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS
from circuitdrift.storage import read_table

GRAPH = Graph(n_layers=2, n_heads=2, parallel=False)
CHOICE = Selection(fraction=0.5)
DESCRIBE = features_of_circuits(GRAPH, CHOICE)
FEW = Resampling(half_splits=4, exchanges=19)


def folds_of(seed: int, noise: float = 0.5, n_folds: int = 4) -> FoldScores:
    signal = np.random.default_rng(seed).standard_t(3, size=GRAPH.n_edges)
    drawn = np.random.default_rng(100 + seed).normal(size=(n_folds, GRAPH.n_edges))
    return FoldScores(signal + noise * drawn, np.full(n_folds, 4))


def test_an_identical_wording_moves_nothing() -> None:
    table = tabulate_model_controls(folds_of(0), folds_of(0), [], DESCRIBE, FEW)
    assert set(table["control"]) == {"wording"}
    assert table["paired"].tolist() == pytest.approx([1.0] * len(table))
    assert table["excess"].tolist() == pytest.approx([0.0] * len(table))
    assert (table["p_value"] == 1).all()


def test_each_control_compares_its_two_sides() -> None:
    base, reworded, untrained = folds_of(0), folds_of(1), [folds_of(2), folds_of(3), folds_of(4)]
    table = tabulate_model_controls(base, reworded, untrained, DESCRIBE, FEW)
    pairs = table[["control", "before", "after"]].drop_duplicates().to_numpy().tolist()
    models = [f"untrained-{seed}" for seed in range(3)]
    assert pairs == [
        ["wording", "base", "reworded"],
        *(["untrained", "base", name] for name in models),
        ["untrained_seeds", models[0], models[1]],
        ["untrained_seeds", models[0], models[2]],
        ["untrained_seeds", models[1], models[2]],
    ]
    halves = draw_halves(np.arange(4), 4, 2, FEW.half_splits, SEED)
    wanted = compare_halves(untrained[0], untrained[2], halves, DESCRIBE)
    found = table[(table["after"] == models[2]) & (table["before"] == models[0]) & (table["examples"] == 8)]
    for row in found.to_dict("records"):
        numbers = wanted[row["level"], row["measure"]]
        assert {name: row[name] for name in numbers} == pytest.approx(numbers)
    assert len(found) == 8


def test_folds_that_differ_are_refused() -> None:
    with pytest.raises(DriftError, match="same prompts"):
        tabulate_model_controls(folds_of(0), folds_of(1, n_folds=5), [], DESCRIBE, FEW)


def write(path: Path, scores: FoldScores, graph: Graph = GRAPH) -> Path:
    by_fold = torch.zeros(scores.n_folds, graph.n_writers, graph.n_readers)
    by_fold[:, graph.edge_mask] = torch.from_numpy(scores.scores[:, : graph.n_edges]).float()
    origin = Provenance.detached(model="m", task="t", checkpoint="00")
    file = ScoreFile(path, graph, origin, by_fold.mean(dim=0), by_fold, tuple(map(int, scores.sizes)))
    write_scores(file, Attribution())
    return path


def measured(folder: Path, base: Path, reworded: Path | None, untrained: list[Path]) -> pd.DataFrame:
    out = folder / "model_controls.parquet"
    measure_model_controls.main(base, reworded, untrained, out, CHOICE, 20, 19, Provenance.detached())
    return read_table(out, "model_controls")


def test_the_stage_writes_what_there_is(tmp_path: Path) -> None:
    base, other, third = (write(tmp_path / f"{seed}.safetensors", folds_of(seed)) for seed in range(3))
    assert set(measured(tmp_path, base, other, [])["control"]) == {"wording"}
    first = (tmp_path / "model_controls.parquet").read_bytes()
    measured(tmp_path, base, other, [])
    assert (tmp_path / "model_controls.parquet").read_bytes() == first
    table = measured(tmp_path, base, None, [other, third])
    assert set(table["control"]) == {"untrained", "untrained_seeds"}
    assert list(table.columns) == SCHEMAS["model_controls"].names


def test_the_stage_refuses_another_graph(tmp_path: Path) -> None:
    base = write(tmp_path / "base.safetensors", folds_of(0))
    other = write(tmp_path / "other.safetensors", folds_of(1), Graph(n_layers=1, n_heads=2, parallel=False))
    with pytest.raises(DriftError, match=r"other\.safetensors of Graph"):
        measured(tmp_path, base, other, [])
