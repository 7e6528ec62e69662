"""The table of reliability, its stage, and the features of circuits against slow twins."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import measure_reliability
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.circuits.selection import edge_table, node_table, select_circuit
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.fold_circuits import features_of_circuits
from circuitdrift.drift.reliability import FoldScores
from circuitdrift.drift.reliability_table import Resampling, compare_checkpoints, tabulate_reliability
from circuitdrift.drift.series import DriftError, merge_inputs
from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS
from circuitdrift.storage import read_table

GRAPH = Graph(n_layers=2, n_heads=2, parallel=False)
CHOICE = Selection(fraction=0.5)
DESCRIBE = features_of_circuits(GRAPH, CHOICE)
FEW = Resampling(half_splits=4, exchanges=19)
SIMILARITIES = ["within_before", "within_after", "between", "paired", "excess"]


def folds_of(seed: int, noise: float = 0.5, n_folds: int = 4, size: int = 4) -> FoldScores:
    """Scores with a signal of this seed, and noise in each fold."""
    signal = np.random.default_rng(seed).standard_t(3, size=GRAPH.n_edges)
    drawn = np.random.default_rng(100 + seed).normal(size=(n_folds, GRAPH.n_edges))
    return FoldScores(signal + noise * drawn, np.full(n_folds, size))


def numbers_only(scores):
    return {("edge", "spearman"): stats.rankdata(np.abs(scores), axis=1), ("edge", "pearson"): scores}


def tabulated(checkpoints, describe):
    return tabulate_reliability(compare_checkpoints(checkpoints, describe, FEW))


def test_long_comparisons_say_how_far_they_are(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    generator = np.random.default_rng(0)
    checkpoints = {name: FoldScores(generator.normal(size=(8, 20)), np.full(8, 4)) for name in ("00", "01", "02")}
    tabulated(checkpoints, numbers_only)
    assert "comparing checkpoints, pairs: 5 of 5, 0 s left" in caplog.messages


# ----------------------------------------------------------------------------------------- the features


@pytest.mark.parametrize("selection", ["top", "greedy"])
def test_features_agree_with_the_studys_tables(selection: str) -> None:
    choice = Selection(selection=selection, fraction=0.3)
    rows = np.random.default_rng(0).normal(size=(3, GRAPH.n_edges))
    features = features_of_circuits(GRAPH, choice)(rows)
    for row, values in enumerate(rows):
        scores = torch.zeros(GRAPH.edge_mask.shape, dtype=torch.float64)
        scores[GRAPH.edge_mask] = torch.from_numpy(values)
        circuit = select_circuit(GRAPH, scores, choice)
        edges = edge_table(GRAPH, scores, circuit)
        kept = features["edge", "jaccard"][row].reshape(GRAPH.n_writers, len(GRAPH.nodes))
        held = {(GRAPH.writers[w], GRAPH.nodes[n]) for w, n in zip(*np.nonzero(kept), strict=True)}
        assert held == set(merge_inputs(edges).index)
        nodes = node_table(GRAPH, circuit)
        assert features["node", "jaccard"][row].tolist() == nodes["in_circuit"].tolist()
        outgoing = edges.assign(mass=edges["score"].abs()).groupby("source", sort=False)["mass"].sum()
        wanted = [outgoing[writer] for writer in GRAPH.writers]
        assert features["node", "pearson"][row] == pytest.approx(wanted, rel=1e-5)
        assert features["node", "ruzicka"][row] == pytest.approx(np.array(wanted) / sum(wanted), rel=1e-5)
        assert features["edge", "pearson"][row].tolist() == values.tolist()
        assert features["edge", "ruzicka"][row] == pytest.approx(np.abs(values) / np.abs(values).sum())
        assert np.argsort(features["edge", "spearman"][row]).tolist() == np.argsort(np.abs(values)).tolist()


# ----------------------------------------------------------------------------------------- the table


def test_base_against_last_at_three_numbers_of_prompts_and_neighbours_at_the_largest() -> None:
    checkpoints = {name: folds_of(seed, n_folds=8) for seed, name in enumerate(("00", "01", "02"))}
    table = tabulated(checkpoints, numbers_only)
    compared = table[["from_checkpoint", "to_checkpoint", "examples"]].drop_duplicates()
    assert compared.to_numpy().tolist() == [
        ["00", "02", 4],
        ["00", "02", 8],
        ["00", "02", 16],
        ["00", "01", 16],
        ["01", "02", 16],
    ]
    assert set(SCHEMAS["reliability"].names) <= set(table.columns)
    correlations = table["measure"] == "pearson"
    for column in ("corrected", "prompts_for_80", "prompts_for_90"):
        assert table.loc[correlations, column].notna().all()
        assert table.loc[~correlations, column].isna().all()
    mean = (table["within_before"] + table["within_after"]) / 2
    assert (mean - table["between"]).tolist() == pytest.approx(table["excess"].tolist())
    assert ((table["lower"] <= table["excess"]) & (table["excess"] <= table["upper"])).all()


def test_two_checkpoints_are_compared_once_at_each_number_of_prompts() -> None:
    table = tabulated({"00": folds_of(0), "10": folds_of(1)}, numbers_only)
    assert table.groupby("measure")["examples"].apply(list).to_dict() == {"pearson": [4, 8], "spearman": [4, 8]}


def test_identical_checkpoints_have_no_excess() -> None:
    table = tabulated({"00": folds_of(0), "10": folds_of(0)}, DESCRIBE)
    assert table["excess"].tolist() == pytest.approx([0] * len(table), abs=1e-12)
    assert table["paired"].tolist() == pytest.approx([1] * len(table))
    assert set(table["p_value"]) == {1.0}


def test_the_cosine_of_identical_checkpoints_is_one_and_stands_beside_the_correlation_of_edges_alone() -> None:
    table = tabulated({"00": folds_of(0), "10": folds_of(0)}, DESCRIBE)
    given = table["cross_validated_cosine"].notna()
    assert given.equals((table["level"] == "edge") & (table["measure"] == "pearson"))
    assert table.loc[given, "cross_validated_cosine"].tolist() == pytest.approx([1.0] * int(given.sum()))


def test_doubled_scores_change_nothing() -> None:
    before, after = folds_of(0), folds_of(1)
    doubled = FoldScores(2 * after.scores, after.sizes)
    plain, twice = (tabulated({"00": before, "10": last}, DESCRIBE) for last in (after, doubled))
    assert twice[SIMILARITIES].to_numpy() == pytest.approx(plain[SIMILARITIES].to_numpy())


@pytest.mark.parametrize(
    ("checkpoints", "message"),
    [
        ({"00": folds_of(0)}, r"at least two checkpoints; given: \['00'\]"),
        ({"00": folds_of(0), "10": folds_of(1, size=5)}, r"'10' was scored in folds of \[5, 5, 5, 5\].*'00'"),
        ({"00": folds_of(0), "10": folds_of(1, n_folds=5)}, "score all checkpoints on the same prompts"),
        ({"00": folds_of(0, n_folds=3), "10": folds_of(1, n_folds=3)}, "3 folds are too few.*raise the task's circuit"),
    ],
)
def test_what_cannot_be_compared_is_refused(checkpoints: dict[str, FoldScores], message: str) -> None:
    with pytest.raises(DriftError, match=message):
        tabulated(checkpoints, numbers_only)


# ----------------------------------------------------------------------------------------- the stage


def scored(folder: Path, checkpoint: str, seed: int, noise: float, graph: Graph = GRAPH) -> Path:
    """A score file of four folds of four prompts, with a signal that all seeds share."""
    signal = torch.randn(graph.edge_mask.shape, generator=torch.Generator().manual_seed(9))
    own = torch.randn(4, *graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed))
    by_fold = (signal + noise * own) * graph.edge_mask
    path = folder / f"{checkpoint}-{seed}.safetensors"
    origin = Provenance.detached(checkpoint=checkpoint)
    write_scores(ScoreFile(path, graph, origin, by_fold.mean(dim=0), by_fold, (4,) * 4), Attribution())
    return path


def measure(folder: Path, scores: list[Path], choice: Selection = CHOICE) -> Path:
    path = folder / "reliability.parquet"
    provenance = Provenance.detached()
    measure_reliability.main(scores, path, folder / "ratios.parquet", choice, 4, 19, provenance)
    return path


def test_the_stage_writes_the_same_bytes_again_and_has_no_warning_for_little_noise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = [scored(tmp_path, name, seed, noise=0.1) for seed, name in enumerate(("00", "01"))]
    written = measure(tmp_path, scores).read_bytes()
    path = measure(tmp_path, scores, Selection(selection="minimal", fraction=0.5, wanted_faithfulness=0.9))
    assert path.read_bytes() == written
    table = read_table(path, "reliability")
    assert len(table) == 2 * 2 * 4
    assert table["examples"].max() == 8
    assert not caplog.records


def test_the_stage_warns_of_too_few_prompts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scores = [scored(tmp_path, name, seed, noise=4.0) for seed, name in enumerate(("00", "01"))]
    with caplog.at_level(logging.WARNING):
        measure(tmp_path, scores)
    assert "checkpoints 00 and 01: a reliability of .8" in caplog.text
    assert "the task has 16" in caplog.text


def test_the_stage_refuses_scores_of_two_graphs(tmp_path: Path) -> None:
    other = Graph(n_layers=3, n_heads=2, parallel=False)
    scores = [scored(tmp_path, "00", 0, 0.1), scored(tmp_path, "01", 1, 0.1, other)]
    with pytest.raises(DriftError, match=r"00-0\.safetensors is of .*01-1\.safetensors of"):
        measure(tmp_path, scores)
