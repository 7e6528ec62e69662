"""The comparison of recipes of scoring: reliability against slow twins, and its stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import measure_recipe_reliability
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.fold_circuits import features_of_circuits
from circuitdrift.drift.recipes import jackknife_error, similarity_and_replicates, tabulate_recipe_reliability
from circuitdrift.drift.reliability import FoldScores, Halves, draw_halves, leave_folds_out
from circuitdrift.drift.reliability_table import SEED, SPLITS_OF_A_REPLICATE
from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS
from circuitdrift.storage import read_table

GRAPH = Graph(n_layers=2, n_heads=2, parallel=False)
CHOICE = Selection(fraction=0.3)
DESCRIBE = features_of_circuits(GRAPH, CHOICE)
SIGNAL = np.random.default_rng(1).standard_t(3, size=GRAPH.n_edges)


def folds_of(noise: float, n_folds: int = 8, size: int = 5) -> FoldScores:
    """One signal, with the same noise in each fold times a factor."""
    drawn = np.random.default_rng(0).normal(size=(n_folds, GRAPH.n_edges))
    return FoldScores(SIGNAL + noise * drawn, np.full(n_folds, size))


def numbers_only(rows):
    return {("edge", "spearman"): stats.rankdata(np.abs(rows), axis=1), ("edge", "pearson"): rows}


def mean_by_hand(scores: FoldScores, halves: Halves) -> dict[str, float]:
    """Mean correlations of two halves, one half-split after the other."""
    pearson, spearman = [], []
    for one, other in zip(*halves, strict=True):
        means = [np.mean([scores.scores[fold] for fold in np.flatnonzero(half)], axis=0) for half in (one, other)]
        pearson.append(stats.pearsonr(*means).statistic)
        spearman.append(stats.spearmanr(*map(np.abs, means)).statistic)
    return {"pearson": float(np.mean(pearson)), "spearman": float(np.mean(spearman))}


@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_similarity_of_halves_and_its_replicates_are_means_over_splits(size: int) -> None:
    scores = folds_of(0.5)
    within, replicates = similarity_and_replicates(scores, size, 10, numbers_only)
    own = mean_by_hand(scores, draw_halves(np.arange(8), 8, size, 10, SEED))
    left_out = leave_folds_out(8, size, SPLITS_OF_A_REPLICATE, SEED)
    without_fold = [mean_by_hand(scores, halves) for halves in left_out]
    for measure in ("pearson", "spearman"):
        assert within["edge", measure] == pytest.approx(own[measure])
        assert replicates["edge", measure] == pytest.approx([numbers[measure] for numbers in without_fold])


def test_the_jackknife_error_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(2).normal(size=12)
    replicates = np.array([np.delete(values, i).mean() for i in range(12)])
    assert jackknife_error(replicates) == pytest.approx(values.std(ddof=1) / np.sqrt(12))


def test_each_recipe_at_three_numbers_of_prompts() -> None:
    table = tabulate_recipe_reliability({"own": folds_of(0.5), "other": folds_of(2.0)}, DESCRIBE, 10)
    assert set(table.columns) == set(SCHEMAS["recipe_reliability"].names)
    assert table["examples"].unique().tolist() == [5, 10, 20]
    assert len(table) == 3 * 2 * 8
    own = table[table["recipe"] == "own"]
    for column in ("difference", "difference_lower", "difference_upper"):
        assert own[column].tolist() == [0] * len(own)
    assert own["similarity_to_own"].tolist() == pytest.approx([1] * len(own))
    given = table["prompts_for_80"].notna()
    assert given.equals(table["measure"] == "pearson")
    assert ((table["lower"] <= table["within"]) & (table["within"] <= table["upper"])).all()


def test_a_noisier_recipe_is_less_reliable_and_one_that_scales_its_scores_is_equal() -> None:
    plain = folds_of(0.5)
    recipes = {"own": plain, "noisier": folds_of(2.0), "doubled": FoldScores(2 * plain.scores, plain.sizes)}
    table = tabulate_recipe_reliability(recipes, DESCRIBE, 20)
    largest = table[(table["examples"] == 20) & (table["level"] == "edge")]
    noisier = largest[(largest["recipe"] == "noisier") & (largest["measure"] != "jaccard")]
    assert (noisier["difference_upper"] < 0).all()
    own = largest[(largest["recipe"] == "own") & (largest["measure"] == "pearson")]
    assert noisier["prompts_for_80"].max() > own["prompts_for_80"].max()
    doubled = table[table["recipe"] == "doubled"]
    for column in ("difference", "difference_lower", "difference_upper"):
        assert doubled[column].tolist() == pytest.approx([0] * len(doubled), abs=1e-9)


def test_empty_circuits_have_no_similarity() -> None:
    """A share of which no path survives pruning leaves every circuit empty."""
    describe = features_of_circuits(GRAPH, Selection(fraction=0.011))
    table = tabulate_recipe_reliability({"own": folds_of(0.5)}, describe, 4)
    assert table.loc[table["measure"] == "jaccard", "within"].isna().all()
    assert table.loc[table["measure"] == "pearson", "within"].notna().all()


def test_the_stage_writes_the_same_bytes_again(tmp_path: Path) -> None:
    scores = []
    for recipe, noise in (("own", 0.5), ("ceap", 0.2)):
        by_fold = torch.zeros(8, *GRAPH.edge_mask.shape)
        by_fold[:, GRAPH.edge_mask] = torch.from_numpy(folds_of(noise).scores).float()
        origin = Provenance.detached(checkpoint="00")
        path = tmp_path / f"{recipe}.safetensors"
        write_scores(ScoreFile(path, GRAPH, origin, by_fold.mean(dim=0), by_fold, (5,) * 8), Attribution())
        scores.append(path)
    written = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.parquet"
        measure_recipe_reliability.main(scores, ["own", "ceap"], path, CHOICE, 10, Provenance.detached())
        written.append(path.read_bytes())
    assert written[0] == written[1]
    table = read_table(tmp_path / "one.parquet", "recipe_reliability")
    assert table["recipe"].unique().tolist() == ["own", "ceap"]
    ceap = table[(table["recipe"] == "ceap") & (table["measure"] == "pearson") & (table["level"] == "edge")]
    assert (ceap["difference"] > 0).all()
