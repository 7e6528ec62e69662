"""Robustness of circuits to other prompts: replaced prompts, disjoint splits, and their stages."""

from __future__ import annotations

import logging
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import measure_robustness
import measure_untrained_robustness
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.circuits.selection import edge_table, select_circuit
from circuitdrift.config.circuits import Attribution, Drift, Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.fold_circuits import features_of_circuits, rows_of_scores
from circuitdrift.drift.reliability import MEASURES, FoldScores
from circuitdrift.drift.robustness import DEALINGS, draw_orders, numbers_replaced, rotations, tabulate_robustness
from circuitdrift.drift.series import DriftError, merge_inputs
from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS
from circuitdrift.storage import read_table
from circuitdrift.tasks.perturbed import perturbed_split

GRAPH = Graph(n_layers=2, n_heads=2, parallel=False)
CHOICE = Selection(fraction=0.5)
DESCRIBE = features_of_circuits(GRAPH, CHOICE)


def folds_of(seed: int, n_folds: int = 8, noise: float = 1.0) -> FoldScores:
    """Scores of one signal, with the noise of some prompts in each fold."""
    signal = np.random.default_rng(0).standard_t(3, size=GRAPH.n_edges)
    drawn = np.random.default_rng(100 + seed).normal(size=(n_folds, GRAPH.n_edges))
    return FoldScores(signal + noise * drawn, np.full(n_folds, 2))


# ----------------------------------------------------------------------------------------- counted by hand


def above_zero(rows):
    return {("edge", "jaccard"): rows > 0}


ONE_EDGE_OF_EACH_FOLD = FoldScores(np.eye(4, 9), np.ones(4, dtype=int))
"""Edge f in fold f of the circuit split; edge 4 + f in the fold that replaces it."""
ITS_FRESH_FOLDS = FoldScores(np.eye(4, 9, k=4), np.ones(4, dtype=int))


def test_each_replaced_fold_takes_one_edge_for_another() -> None:
    table = tabulate_robustness(ONE_EDGE_OF_EACH_FOLD, ITS_FRESH_FOLDS, 20, 0, above_zero)
    assert table["control"].unique().tolist() == ["perturbed"]
    assert table["share"].tolist() == [0.25, 0.5, 0.75]
    assert table["draws"].tolist() == [4, 6, 4]  # all sets of one, two and three folds
    assert table["examples"].tolist() == [4, 4, 4]
    assert table["similarity"].tolist() == pytest.approx([3 / 5, 2 / 6, 1 / 7])
    assert table["lower"].tolist() == pytest.approx(table["similarity"].tolist())  # every fold does the same


def test_disjoint_groups_share_what_all_folds_have() -> None:
    shared = FoldScores(ONE_EDGE_OF_EACH_FOLD.scores + np.eye(1, 9, k=8), ONE_EDGE_OF_EACH_FOLD.sizes)
    [row] = tabulate_robustness(shared, None, 20, 2, above_zero).to_dict("records")
    assert (row["control"], row["draws"], row["examples"]) == ("disjoint_splits", DEALINGS, 2)
    assert row["similarity"] == pytest.approx(1 / 5)
    assert np.isnan(row["share"])
    three = tabulate_robustness(shared, None, 20, 3, above_zero)  # one fold in each group, one left over
    assert (three["examples"].item(), three["similarity"].item()) == (1, pytest.approx(1 / 3))


def test_the_numbers_replaced_are_nearest_to_tenths() -> None:
    assert numbers_replaced(16) == [2, 3, 5, 6, 8, 10, 11, 13, 14]
    assert numbers_replaced(10) == list(range(1, 10))
    assert numbers_replaced(8) == list(range(1, 8))
    assert numbers_replaced(4) == [1, 2, 3]


@pytest.mark.parametrize(("number", "found"), [(1, 16), (2, 20), (15, 16)])
def test_no_two_draws_replace_the_same_folds(number: int, found: int) -> None:
    orders = draw_orders(16, number, 20)
    assert len({frozenset(order[:number].tolist()) for order in orders}) == len(orders) == found
    assert all(sorted(order.tolist()) == list(range(16)) for order in orders)


def test_each_fold_comes_once_at_each_place_of_the_rotations() -> None:
    orders = rotations(7)
    assert all(sorted(orders[:, place].tolist()) == list(range(7)) for place in range(7))
    assert all(sorted(order.tolist()) == list(range(7)) for order in orders)


# ----------------------------------------------------------------------------------------- slow twins


def structural(row: np.ndarray) -> set[tuple[str, str]]:
    """The merged edges of the circuit that the study selects from one row of scores, by its tables."""
    scores = rows_of_scores(GRAPH, row[None])[0]
    return set(merge_inputs(edge_table(GRAPH, scores, select_circuit(GRAPH, scores, CHOICE))).index)


def similar(one: np.ndarray, other: np.ndarray, level: str, measure: str) -> float:
    """Two rows of scores compared, by plain sets and scipy."""
    if measure == "jaccard":
        first, second = structural(one), structural(other)
        if level == "node":
            first, second = ({end for edge in edges for end in edge} for edges in (first, second))
        return len(first & second) / len(first | second)
    if level == "node":
        writers = GRAPH.edge_ends[0].numpy()
        one, other = (np.bincount(writers, weights=np.abs(row)) for row in (one, other))
    if measure == "pearson":
        return float(stats.pearsonr(one, other).statistic)
    one, other = np.abs(one), np.abs(other)
    if measure == "spearman":
        return float(stats.spearmanr(one, other).statistic)
    return float(
        np.minimum(one / one.sum(), other / other.sum()).sum() / np.maximum(one / one.sum(), other / other.sum()).sum()
    )


@pytest.mark.parametrize("level", ["edge", "node"])
@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_is_that_of_plain_sets_and_scipy(level: str, measure: str) -> None:
    clean, fresh = folds_of(1), folds_of(2)
    table = tabulate_robustness(clean, fresh, 5, 3, DESCRIBE).query("level == @level and measure == @measure")
    for number in (1, 6):
        values = []
        for order in draw_orders(8, number, 5):
            replaced = clean.scores.copy()
            replaced[order[:number]] = fresh.scores[order[:number]]
            values.append(similar(clean.scores.mean(axis=0), replaced.mean(axis=0), level, measure))
        assert table.set_index("share").loc[number / 8, "similarity"] == pytest.approx(np.mean(values))
    generator = np.random.default_rng(0)
    values = []
    for _ in range(DEALINGS):
        groups = generator.permutation(8)[:6].reshape(3, 2)
        means = [clean.scores[group].mean(axis=0) for group in groups]
        values += [similar(*pair, level, measure) for pair in combinations(means, 2)]
    splits = table[table["control"] == "disjoint_splits"]
    assert splits["similarity"].item() == pytest.approx(np.mean(values))


def test_the_interval_is_a_jackknife_over_folds() -> None:
    clean, fresh = folds_of(1), folds_of(2)
    row = tabulate_robustness(clean, fresh, 5, 0, DESCRIBE).query(
        "level == 'edge' and measure == 'pearson' and share == 0.5"
    )
    replicates = []
    for fold in range(8):
        values = []
        for order in rotations(8):
            replaced = clean.scores.copy()
            replaced[order[:4]] = fresh.scores[order[:4]]
            kept = [f for f in range(8) if f != fold]
            values.append(stats.pearsonr(clean.scores[kept].mean(axis=0), replaced[kept].mean(axis=0)).statistic)
        replicates.append(np.mean(values))
    error = np.sqrt(7 / 8 * ((replicates - np.mean(replicates)) ** 2).sum())
    width = stats.t.ppf(0.975, 7) * error
    assert row["upper"].item() - row["similarity"].item() == pytest.approx(width)
    assert row["similarity"].item() - row["lower"].item() == pytest.approx(width)


def test_the_same_prompts_again_change_nothing_and_noise_lowers_every_measure() -> None:
    same = tabulate_robustness(folds_of(1), folds_of(1), 5, 0, DESCRIBE)
    assert same["similarity"].tolist() == pytest.approx([1.0] * len(same))
    fresh = tabulate_robustness(folds_of(1), folds_of(2), 5, 0, DESCRIBE).query("measure == 'pearson'")
    by_share = fresh[fresh["level"] == "edge"].sort_values("share")["similarity"]
    assert by_share.is_monotonic_decreasing
    assert by_share.iloc[0] < 1


def test_the_true_similarity_is_mostly_in_the_interval() -> None:
    """Of a similarity of scores, over samples of prompts; the truth is the mean over all samples."""
    found = [tabulate_robustness(folds_of(s), folds_of(500 + s), 5, 4, DESCRIBE) for s in range(60)]
    for where in ("control == 'perturbed' and share == 0.5", "control == 'disjoint_splits'"):
        rows = pd.concat(found).query(f"level == 'edge' and measure == 'pearson' and ({where})")
        covered = rows["similarity"].mean()
        assert ((rows["lower"] <= covered) & (covered <= rows["upper"])).mean() > 0.85


def test_folds_of_other_sizes_and_too_few_folds() -> None:
    with pytest.raises(DriftError, match=r"folds of \[1, 1, 1, 1\]"):
        tabulate_robustness(folds_of(1, n_folds=4), ITS_FRESH_FOLDS, 5, 0, DESCRIBE)
    nothing = tabulate_robustness(folds_of(1, n_folds=4), None, 5, 5, DESCRIBE)
    assert nothing.empty
    assert set(nothing.columns) == set(SCHEMAS["robustness"].names) - {"checkpoint"}
    as_many = tabulate_robustness(folds_of(1, n_folds=4), None, 5, 4, DESCRIBE)
    assert as_many[["lower", "similarity", "upper"]].notna().all(axis=None)  # replicates have a group less


def test_one_split_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing to compare"):
        Drift(disjoint_splits=1)
    assert Drift(disjoint_splits=0).disjoint_splits == 0


# ----------------------------------------------------------------------------------------- fresh prompts


def prompts(kinds: str, first: int) -> pd.DataFrame:
    return pd.DataFrame({"example_id": range(first, first + len(kinds)), "kind": list(kinds)}).assign(
        clean=lambda frame: "prompt " + frame["example_id"].astype(str)
    )


def test_fresh_prompts_have_the_kinds_of_those_that_they_replace() -> None:
    circuit, train = prompts("+-+-+", 0), prompts("---++++-", 10)
    split = perturbed_split(train, circuit)
    assert split is not None
    assert split["kind"].tolist() == list("+-+-+")
    assert split["example_id"].tolist() == [13, 10, 14, 11, 15]
    assert list(split.columns) == list(train.columns)


def test_no_fresh_prompt_is_in_the_circuit_split_or_comes_twice() -> None:
    circuit, train = prompts("++", 0), prompts("+++++", 10)
    train["clean"] = ["prompt 1", "a", "a", "b", "c"]
    split = perturbed_split(train, circuit)
    assert split is not None
    assert split["clean"].tolist() == ["a", "b"]
    train["clean"] = ["prompt 1", "prompt 0", "a", "a", "a"]
    assert perturbed_split(train, circuit) is None
    assert perturbed_split(train.head(0), circuit) is None


# ----------------------------------------------------------------------------------------- stages


def write(path: Path, scores: FoldScores | None, checkpoint: str) -> Path:
    n_folds = scores.n_folds if scores else 0
    by_fold = torch.zeros(n_folds, GRAPH.n_writers, GRAPH.n_readers)
    if scores:
        by_fold[:, GRAPH.edge_mask] = torch.from_numpy(scores.scores).float()
    origin = Provenance.detached(model="m", task="t", checkpoint=checkpoint)
    sizes = tuple(map(int, scores.sizes)) if scores else ()
    write_scores(ScoreFile(path, GRAPH, origin, by_fold.sum(dim=0), by_fold, sizes), Attribution())
    return path


def measured(folder: Path, scores: list[Path], perturbed: list[Path], splits: int = 4) -> pd.DataFrame:
    out = folder / "robustness.parquet"
    measure_robustness.main(scores, perturbed, out, CHOICE, 3, splits, Provenance.detached())
    return read_table(out, "robustness")


def test_the_stage_writes_both_ends_of_a_run(tmp_path: Path) -> None:
    scores = [write(tmp_path / f"{name}.safetensors", folds_of(int(name)), name) for name in ("00", "05")]
    fresh = [write(tmp_path / f"{name}-fresh.safetensors", folds_of(50 + int(name)), name) for name in ("00", "05")]
    table = measured(tmp_path, scores, fresh)
    first = (tmp_path / "robustness.parquet").read_bytes()
    measured(tmp_path, scores, fresh)
    assert (tmp_path / "robustness.parquet").read_bytes() == first
    assert list(table.columns) == SCHEMAS["robustness"].names
    assert len(table) == 2 * (7 + 1) * 2 * len(MEASURES)
    assert table.groupby("checkpoint", sort=False).size().to_dict() == {"00": len(table) // 2, "05": len(table) // 2}
    assert table.loc[table["control"] == "disjoint_splits", "share"].isna().all()
    assert set(measured(tmp_path, scores, [])["control"]) == {"disjoint_splits"}
    assert set(measured(tmp_path, scores, fresh, splits=0)["control"]) == {"perturbed"}


def test_the_stage_leaves_out_what_prompts_are_lacking_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scores = [write(tmp_path / f"{name}.safetensors", folds_of(int(name)), name) for name in ("00", "05")]
    fresh = [write(tmp_path / f"{name}-fresh.safetensors", None, name) for name in ("00", "05")]
    assert set(measured(tmp_path, scores, fresh)["control"]) == {"disjoint_splits"}
    with caplog.at_level(logging.WARNING):
        assert measured(tmp_path, scores, fresh, splits=9).empty
    assert "8 folds cannot be dealt into 9 splits" in caplog.text


def test_the_stage_refuses_other_checkpoints(tmp_path: Path) -> None:
    scores = [write(tmp_path / f"{name}.safetensors", folds_of(int(name)), name) for name in ("00", "05")]
    with pytest.raises(DriftError, match="not of the checkpoints"):
        measured(tmp_path, scores, scores[::-1])


def test_the_stage_of_untrained_models_names_their_seeds(tmp_path: Path) -> None:
    scores = [write(tmp_path / f"{seed}.safetensors", folds_of(seed), "untrained") for seed in range(2)]
    out = tmp_path / "untrained_robustness.parquet"
    measure_untrained_robustness.main(scores, out, CHOICE, 4, Provenance.detached())
    table = read_table(out, "untrained_robustness")
    assert list(table.columns) == SCHEMAS["untrained_robustness"].names
    assert table["untrained_seed"].unique().tolist() == [0, 1]
    assert set(table["control"]) == {"disjoint_splits"}
    alone = tabulate_robustness(folds_of(1), None, 0, 4, DESCRIBE)
    own = table[table["untrained_seed"] == 1]["similarity"].tolist()
    assert own == pytest.approx(alone["similarity"].tolist(), rel=1e-5)
