"""Edges one by one: slow twins, simulated studies whose truth is known, and the stage."""

from __future__ import annotations

import logging
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import classify_edges as stage
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.circuits.selection import edge_table, select_circuit, strongest_edges
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift import edge_changes
from circuitdrift.drift.edge_changes import (
    CHANGES,
    CircuitSelection,
    bound_node_changes,
    change_of,
    classify_edges,
    draw_folds,
    interval_of_mean,
    mean_pairwise_jaccard,
    p_values_beyond,
    resample,
    unit_mass_by_fold,
)
from circuitdrift.drift.fold_circuits import rows_of_scores, selection_of_circuits
from circuitdrift.drift.reliability import FoldScores
from circuitdrift.drift.series import DriftError, merge_inputs
from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS
from circuitdrift.storage import read_table

GRAPH = Graph(n_layers=2, n_heads=2, parallel=False)
CHOICE = Selection(fraction=0.4)
SELECTION = selection_of_circuits(GRAPH, CHOICE)
SIZES = np.array([3, 3, 2, 2, 2])
EQUAL = np.full(16, 25)


def folds_of(seed: int, noise: float = 0.3, sizes: np.ndarray = SIZES, n_edges: int = GRAPH.n_edges) -> FoldScores:
    """Scores with a signal of this seed and noise in each fold."""
    signal = np.random.default_rng(seed).standard_t(3, size=n_edges)
    drawn = np.random.default_rng(100 + seed).normal(size=(len(sizes), n_edges))
    return FoldScores(signal + noise * drawn / np.sqrt(sizes)[:, None], sizes)


def slow_mean(scores: FoldScores, draw: np.ndarray) -> np.ndarray:
    """Mean over the prompts of the drawn folds, prompt by prompt."""
    prompts = [
        scores.scores[fold] for fold, times in enumerate(draw) for _ in range(times) for _ in range(scores.sizes[fold])
    ]
    return np.mean(prompts, axis=0)


def slow_circuit(scores: np.ndarray) -> pd.DataFrame:
    tensor = rows_of_scores(GRAPH, scores[None])[0]
    return edge_table(GRAPH, tensor, select_circuit(GRAPH, tensor, CHOICE))


# ----------------------------------------------------------------------------------------- inclusion


@pytest.mark.parametrize("scores_at_once", [1, 3 * GRAPH.n_edges, 2**23])
def test_inclusion_agrees_with_circuits_drawn_one_by_one(scores_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_changes, "_SCORES_AT_ONCE", scores_at_once)
    scores, draws = folds_of(0), draw_folds(5, 20, seed=1)
    found = resample(scores, draws, SELECTION)
    tables = [slow_circuit(slow_mean(scores, draw)) for draw in draws]
    held = [set(merge_inputs(table).index) for table in tables]
    assert found.edges.tolist() == pytest.approx(np.mean([table["in_circuit"] for table in tables], axis=0).tolist())
    names = tables[0][["source", "target"]].apply(tuple, axis=1)
    wanted = [np.mean([name in edges for edges in held]) for name in names]
    assert found.merged[SELECTION.merged].tolist() == pytest.approx(wanted)
    indices = [len(one & other) / len(one | other) for one, other in combinations(held, 2)]
    assert found.jaccard == pytest.approx(np.mean(indices))
    assert 0 < found.jaccard < 1


def test_draws_are_of_as_many_folds_as_there_are_and_the_same_for_both_checkpoints() -> None:
    draws = draw_folds(16, 200, seed=0)
    assert (draws.sum(axis=1) == 16).all()
    assert draws.max() > 1
    assert np.array_equal(draws, draw_folds(16, 200, seed=0))
    table = classify_edges(folds_of(0), folds_of(0), SELECTION, resamples=100).edges
    assert table["included_before"].equals(table["included_after"].rename("included_before"))
    assert table["included_before"].between(0.05, 0.95).any()


def test_pairs_of_empty_circuits_have_no_jaccard_index(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.zeros((4, 20), dtype=bool)
    assert np.isnan(mean_pairwise_jaccard(np.packbits(rows, axis=1)))
    rows[0, [0, 19]] = rows[1, [0, 1, 19]] = True
    wanted = (2 / 3 + 4 * 0) / 5  # of six pairs one is of two empty circuits
    for bytes_at_once in (1, 2**13):
        monkeypatch.setattr(edge_changes, "_BYTES_AT_ONCE", bytes_at_once)
        assert mean_pairwise_jaccard(np.packbits(rows, axis=1)) == pytest.approx(wanted)


def test_classes_follow_from_the_shares_and_their_bounds_are_undecided() -> None:
    shares = {
        "gained": (0.04, 0.96),
        "lost": (0.96, 0.04),
        "kept": (0.96, 1.0),
        "outside": (0.0, 0.04),
        "undecided": (0.05, 0.95),
    }
    for change, (before, after) in shares.items():
        assert change_of(np.array([before]), np.array([after])).tolist() == [change]
    for before, after in ((0.05, 1), (0, 0.95), (0.5, 0.5), (0, 0.5), (1, 0.05)):
        assert change_of(np.array([before]), np.array([after])).tolist() == ["undecided"]


def test_nodes_are_sure_where_their_edges_leave_no_doubt() -> None:
    columns = ["source", "target", "merged_included_before", "merged_included_after"]
    rows = [("a", "x", 1.0, 0.01), ("a", "y", 0.0, 1.0), ("b", "y", 0.03, 0.97), ("b", "x", 0.03, 0.0)]
    changes = bound_node_changes(pd.DataFrame([*rows, ("c", "z", 0.02, 0.98)], columns=columns))["change"]
    assert changes.to_dict() == {
        "a": "kept",
        "b": "undecided",
        "c": "gained",
        "x": "lost",
        "y": "gained",
        "z": "gained",
    }


# ----------------------------------------------------------------------------------------- the test of scores


def test_folds_average_to_the_unit_mass_scores() -> None:
    scores = folds_of(2)
    mean = slow_mean(scores, np.ones(5, dtype=int))
    average = SIZES @ unit_mass_by_fold(scores) / SIZES.sum()
    assert average == pytest.approx(mean / np.abs(mean).sum())


def test_values_by_fold_are_what_a_little_more_of_a_fold_adds_to_the_unit_mass_scores() -> None:
    scores, step = folds_of(2), 1e-6

    def unit_mass(weights: np.ndarray) -> np.ndarray:
        mean = weights @ scores.scores / weights.sum()
        return mean / np.abs(mean).sum()

    for fold in range(5):
        more = SIZES + step * (np.arange(5) == fold)
        slope = (unit_mass(more) - unit_mass(SIZES.astype(float))) / step
        assert unit_mass_by_fold(scores)[fold] - unit_mass(SIZES) == pytest.approx(slope * SIZES.sum(), abs=1e-5)


def test_folds_that_differ_in_the_size_of_all_scores_alike_do_not_differ() -> None:
    signal = np.random.default_rng(0).normal(size=30)
    scores = FoldScores(np.array([1.0, 2, 3, 4, 5])[:, None] * signal, SIZES)
    assert unit_mass_by_fold(scores) == pytest.approx(np.tile(signal / np.abs(signal).sum(), (5, 1)))


@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_p_values_of_equal_folds_agree_with_scipys_paired_test(margin: float) -> None:
    before, after = (np.random.default_rng(seed).normal(scale=0.05, size=(8, 40)) for seed in (0, 1))
    found = p_values_beyond(after - before, np.full(8, 3), margin)
    for edge, p_value in enumerate(found):
        change = (after - before)[:, edge] * np.sign((after - before)[:, edge].mean())
        tails = [stats.ttest_1samp(change, bound, alternative="greater").pvalue for bound in (margin, -margin)]
        assert p_value == pytest.approx(sum(tails))
    if margin == 0:
        assert found == pytest.approx(stats.ttest_rel(after, before).pvalue)


def test_p_values_weight_folds_by_their_prompts() -> None:
    changes, margin = np.random.default_rng(0).normal(0.5, 1, size=(5, 30)), 0.2
    found = p_values_beyond(changes, SIZES, margin)
    for edge in range(30):
        mean = sum(SIZES[f] * changes[f, edge] for f in range(5)) / 12
        variance_of_a_prompt = sum(SIZES[f] * (changes[f, edge] - mean) ** 2 for f in range(5)) / 4
        error = (variance_of_a_prompt / 12) ** 0.5
        wanted = stats.t.sf((abs(mean) - margin) / error, 4) + stats.t.sf((abs(mean) + margin) / error, 4)
        assert found[edge] == pytest.approx(wanted)


def test_intervals_of_equal_folds_agree_with_scipys_and_hold_the_mean_as_often_as_they_say() -> None:
    changes = np.random.default_rng(0).normal(0.5, 1, size=(8, 4000))
    lower, upper = interval_of_mean(changes, np.full(8, 3))
    wanted = stats.ttest_1samp(changes, 0.0).confidence_interval(0.95)
    assert lower == pytest.approx(wanted.low)
    assert upper == pytest.approx(wanted.high)
    sizes = np.array([1, 1, 1, 2, 2, 4])
    drawn = np.random.default_rng(1).normal(size=(6, 20_000)) / np.sqrt(sizes)[:, None]
    lower, upper = interval_of_mean(drawn, sizes)
    assert ((lower < 0) & (upper > 0)).mean() == pytest.approx(0.95, abs=3 * (0.05 * 0.95 / 20_000) ** 0.5)


def test_folds_of_unequal_size_keep_the_level() -> None:
    rng, sizes = np.random.default_rng(0), np.array([1, 1, 1, 2, 2, 4])
    changes = rng.normal(size=(6, 20_000)) / np.sqrt(sizes)[:, None]
    share = (p_values_beyond(changes, sizes, 0.0) < 0.05).mean()
    assert share == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / 20_000) ** 0.5)


def test_changes_that_are_equal_in_all_folds_are_certain() -> None:
    changes = np.tile([0.0, 0.1, -0.3], (4, 1))
    assert p_values_beyond(changes, np.full(4, 2), 0.2).tolist() == [1, 1, 0]


# ----------------------------------------------------------------------------------------- simulated studies

N_EDGES, CHANGED, STUDIES = 200, 20, 1000
SIGNAL = np.linspace(0.6, 1.4, N_EDGES)[np.random.default_rng(9).permutation(N_EDGES)] / N_EDGES
SIMULATED_MARGIN = 0.1 / N_EDGES


def false_discoveries(of_no_change: float, of_changed: float) -> tuple[np.ndarray, np.ndarray]:
    """In simulated studies, the share of false discoveries, and the share of the changed edges that are found.

    Changes are in margins, half of them upwards, so that the mass stays as it is. Noise is independent by prompt, with
    a factor that all edges of a fold share, and alike before and after.

    Args:
        of_no_change: true change of the edges that count as unchanged.
        of_changed: true change of the first ``CHANGED`` edges.
    """
    rng = np.random.default_rng(0)
    signs = np.where(np.arange(N_EDGES) % 2, 1, -1)
    size = np.where(np.arange(N_EDGES) < CHANGED, of_changed, of_no_change)
    later = SIGNAL + SIMULATED_MARGIN * signs * size
    proportions, found = [], []
    for _ in range(STUDIES):
        checkpoints = []
        for signal in (SIGNAL, later):
            factor = rng.lognormal(0, 0.2, size=(16, 1))
            drawn = factor * (signal + 3 * SIMULATED_MARGIN * rng.normal(size=(16, N_EDGES)))
            checkpoints.append(unit_mass_by_fold(FoldScores(drawn, EQUAL)))
        before, after = checkpoints
        p_values = p_values_beyond(after - before, EQUAL, SIMULATED_MARGIN)
        discovered = stats.false_discovery_control(p_values) < edge_changes.FALSE_DISCOVERIES
        true = discovered & (size > 1)
        proportions.append((discovered & ~true).sum() / max(1, discovered.sum()))
        found.append(true.sum() / CHANGED)
    return np.array(proportions), np.array(found)


@pytest.mark.parametrize("of_no_change", [0.0, 1.0])
def test_the_share_of_false_discoveries_is_at_most_nominal(of_no_change: float) -> None:
    proportions, found = false_discoveries(of_no_change, of_changed=6.0)
    assert found.mean() > 0.9
    assert proportions.mean() <= 0.05 + 2 * proportions.std() / np.sqrt(STUDIES)


def test_at_the_boundary_of_the_margin_a_study_finds_something_as_often_as_it_may() -> None:
    """All edges change by the margin: any discovery is false, and the test is neither lax nor needlessly strict."""
    proportions, _ = false_discoveries(1.0, of_changed=1.0)
    assert proportions.mean() == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / STUDIES) ** 0.5)


def test_where_nothing_changed_hardly_an_edge_is_surely_gained_or_lost() -> None:
    """The plain symmetric difference of two circuits of one truth is all noise; the classes call it undecided."""

    def strongest(rows: np.ndarray) -> np.ndarray:
        kept = np.zeros(rows.shape, dtype=bool)
        np.put_along_axis(kept, np.argsort(-np.abs(rows), axis=1)[:, :20], True, axis=1)
        return kept

    names = pd.DataFrame({"source": map(str, range(N_EDGES)), "target": "m0", "qkv": None})
    selection = CircuitSelection(names, np.arange(N_EDGES), strongest, strongest)
    sure = plain = 0
    for study in range(60):
        rng = np.random.default_rng(study)
        signal = rng.standard_t(2, size=N_EDGES)
        before, after = (FoldScores(signal + 2 * rng.normal(size=(16, N_EDGES)), EQUAL) for _ in range(2))
        counts = classify_edges(before, after, selection, resamples=100).counts.iloc[0]
        sure += counts["gained"] + counts["lost"]
        plain += counts["added"] + counts["removed"]
    assert plain > 60 * 5
    assert sure < 0.03 * plain


# ----------------------------------------------------------------------------------------- the tables


def test_the_tables_say_what_their_parts_say() -> None:
    before, after = folds_of(0), folds_of(1)
    changes = classify_edges(before, after, SELECTION, resamples=100)
    table, (counts,) = changes.edges, changes.counts.to_dict("records")
    assert list(table.columns) == SCHEMAS["edges_changed"].names
    assert {*counts, "from_checkpoint", "to_checkpoint"} == set(SCHEMAS["edge_counts"].names)
    means = [slow_mean(scores, np.ones(5, dtype=int)) for scores in (before, after)]
    unit = [mean / np.abs(mean).sum() for mean in means]
    selected = strongest_edges(GRAPH, rows_of_scores(GRAPH, means[0][None])[0], round(0.4 * GRAPH.n_edges - 0.5))
    cutoff = np.abs(unit[0])[selected[GRAPH.edge_mask].numpy()].min()
    assert counts["cutoff"] == pytest.approx(cutoff)
    assert table["effect"].tolist() == pytest.approx(((unit[1] - unit[0]) / cutoff).tolist())
    ends = interval_of_mean(unit_mass_by_fold(after) - unit_mass_by_fold(before), SIZES)
    assert table["effect_lower"].tolist() == pytest.approx((ends[0] / cutoff).tolist())
    assert table["effect_upper"].tolist() == pytest.approx((ends[1] / cutoff).tolist())
    assert ((table["effect_lower"] < table["effect"]) & (table["effect"] < table["effect_upper"])).all()
    assert np.abs(table["score_before"]).sum() == pytest.approx(1, rel=1e-5)
    assert (table["change"] == change_of(table["included_before"], table["included_after"])).all()
    assert set(table["change"]) > {"gained", "lost", "undecided"}
    merged = table.drop_duplicates(["source", "target"])
    assert {change: (merged["merged_change"] == change).sum() for change in CHANGES} == {
        change: counts[change] for change in CHANGES
    }
    for change in ("gained", "lost"):
        rows = merged[merged["merged_change"] == change]
        assert set(counts[f"{change}_edges"]) == set(rows["source"] + " -> " + rows["target"])
    held = [set(merge_inputs(slow_circuit(mean)).index) for mean in means]
    assert counts["in_both"] == len(held[0] & held[1])
    assert (counts["added"], counts["removed"]) == (len(held[1] - held[0]), len(held[0] - held[1]))
    assert counts["changed_beyond_margin"] == (table["q_value"] < 0.05).sum()
    assert (counts["n_edges"], counts["n_merged_edges"]) == (GRAPH.n_edges, len(merged))


def test_identical_checkpoints_find_nothing() -> None:
    changes = classify_edges(folds_of(0), folds_of(0), SELECTION, resamples=100)
    assert (changes.edges["q_value"] == 1).all()
    assert (changes.edges["effect"] == 0).all()
    assert set(changes.edges["change"]) <= {"kept", "outside", "undecided"}
    assert changes.counts[["gained", "lost", "added", "removed", "changed_beyond_margin"]].to_numpy().tolist() == [
        [0] * 5
    ]


def test_doubled_scores_change_nothing() -> None:
    before = folds_of(0)
    doubled = classify_edges(before, FoldScores(2 * before.scores, SIZES), SELECTION, resamples=100)
    same = classify_edges(before, before, SELECTION, resamples=100)
    pd.testing.assert_frame_equal(doubled.edges, same.edges)
    pd.testing.assert_frame_equal(doubled.counts, same.counts)


def test_strong_edges_that_come_and_go_are_found_and_no_others() -> None:
    """Two edges change places, in a circuit whose other edges keep all nodes on paths."""
    ends = [tuple(edge) for edge in GRAPH.edge_mask.nonzero().tolist()]
    lost, gained = (ends.index((writer, GRAPH.mlp_reader(1))) for writer in (1, 2))
    signal = np.array([5.0 if writer == 0 or reader == GRAPH.n_readers - 1 else 0.1 for writer, reader in ends])
    edges, rng = np.arange(GRAPH.n_edges), np.random.default_rng(0)
    before, after = (
        FoldScores(np.where(edges == strong, 4, signal) + 0.3 * rng.normal(size=(16, GRAPH.n_edges)), EQUAL)
        for strong in (lost, gained)
    )
    selection = selection_of_circuits(GRAPH, Selection(fraction=0.479))  # 22 edges: 21 of them strong at both
    table = classify_edges(before, after, selection, resamples=100).edges
    assert (table.loc[lost, "change"], table.loc[gained, "change"]) == ("lost", "gained")
    assert (table.loc[[lost, gained], "q_value"] < 1e-3).all()
    assert table.loc[lost, "effect"] == pytest.approx(-3.9 / 4, abs=0.1)
    assert table.loc[gained, "effect"] == pytest.approx(3.9 / 4, abs=0.1)
    others = table.drop(index=[lost, gained])
    assert set(others["change"]) == {"kept", "outside"}
    assert (others["q_value"] > 0.05).all()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (folds_of(0), folds_of(1, sizes=np.full(5, 3)), r"folds of \[3, 3, 2, 2, 2\].*score both on the same prompts"),
        (folds_of(0, sizes=SIZES[:3]), folds_of(1, sizes=SIZES[:3]), "3 folds are too few.*raise the task's circuit"),
        (folds_of(0), folds_of(1, n_edges=9), "those after of 9.*take the scores of one model"),
        (folds_of(0), FoldScores(0 * folds_of(1).scores, SIZES), "all scores of a checkpoint are zero"),
        (
            FoldScores(folds_of(0).scores * (np.arange(GRAPH.n_edges) < 3), SIZES),
            folds_of(1),
            "one whose score is zero",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(before: FoldScores, after: FoldScores, message: str) -> None:
    with pytest.raises(DriftError, match=message):
        classify_edges(before, after, SELECTION, resamples=100)


def test_a_circuit_without_edges_has_no_scale() -> None:
    selection = selection_of_circuits(GRAPH, Selection(selection="threshold", threshold=1e6))
    with pytest.raises(DriftError, match="keeps no edge of the circuit before"):
        classify_edges(folds_of(0), folds_of(1), selection, resamples=100)


# ----------------------------------------------------------------------------------------- the stage


def scored(folder: Path, checkpoint: str, noise: float, graph: Graph = GRAPH) -> Path:
    """A score file of eight folds of four prompts, with a signal that all checkpoints share."""
    signal = torch.randn(graph.edge_mask.shape, generator=torch.Generator().manual_seed(9))
    own = torch.randn(8, *graph.edge_mask.shape, generator=torch.Generator().manual_seed(int(checkpoint)))
    by_fold = (signal + noise * own) * graph.edge_mask
    path = folder / f"{checkpoint}.safetensors"
    file = ScoreFile(path, graph, Provenance.detached(checkpoint=checkpoint), by_fold.mean(dim=0), by_fold, (4,) * 8)
    write_scores(file, Attribution())
    return path


def classified(folder: Path, before: Path, after: Path, choice: Selection = CHOICE) -> tuple[Path, Path]:
    paths = (folder / "edges_changed.parquet", folder / "edge_counts.parquet")
    stage.main(before, after, *paths, choice=choice, resamples=100, provenance=Provenance.detached())
    return paths


def test_the_stage_writes_the_same_bytes_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scores = [scored(tmp_path, name, noise=0.01) for name in ("00", "10")]
    written = [path.read_bytes() for path in classified(tmp_path, *scores)]
    minimal = Selection(selection="minimal", fraction=0.4, wanted_faithfulness=0.9)
    paths = classified(tmp_path, *scores, minimal)
    assert [path.read_bytes() for path in paths] == written
    assert len(read_table(paths[0], "edges_changed")) == GRAPH.n_edges
    (counts,) = read_table(paths[1], "edge_counts").to_dict("records")
    assert (counts["from_checkpoint"], counts["to_checkpoint"], counts["examples"]) == ("00", "10", 32)
    assert not caplog.records


def test_the_stage_warns_of_circuits_that_depend_on_the_prompts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        classified(tmp_path, scored(tmp_path, "00", noise=0.01), scored(tmp_path, "10", noise=5.0))
    assert len(caplog.records) == 1
    assert "checkpoint 10: circuits of resampled prompts have a mean Jaccard index of 0." in caplog.text


def test_the_stage_refuses_scores_of_two_graphs(tmp_path: Path) -> None:
    other = Graph(n_layers=3, n_heads=2, parallel=False)
    with pytest.raises(DriftError, match=r"00\.safetensors is of .*10\.safetensors of"):
        classified(tmp_path, scored(tmp_path, "00", 0.1), scored(tmp_path, "10", 0.1, other))
