"""Changes of layers from scores by fold: against loops over edges, and on simulated scores of known drift."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import allocate_circuit_lora as stage
from circuitdrift.allocation.architectures import shape_of_architecture
from circuitdrift.allocation.policies import AllocationError, critical_layers, layer_weights
from circuitdrift.circuits.score_file import ScoreFile, write_scores
from circuitdrift.circuits.selection import edge_table, node_table, select_circuit
from circuitdrift.config.circuits import Attribution, Selection
from circuitdrift.config.methods import CircuitLoraMethod, Credit, Training
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift import layer_certainty
from circuitdrift.drift.critical_layers import critical_layers_of_run
from circuitdrift.drift.fold_circuits import rows_of_scores
from circuitdrift.drift.layer_certainty import (
    draw_folds,
    excess_by_layer,
    fold_products,
    intervals_of,
    resample_layers,
    top_shares,
)
from circuitdrift.drift.layer_order import order_layers
from circuitdrift.drift.layers import tabulate_layers
from circuitdrift.drift.places import in_order, is_top
from circuitdrift.drift.reliability import FoldScores
from circuitdrift.drift.series import DriftError, stack_circuits, structural_circuit
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_json, read_table, write_table

GRAPH = Graph(n_layers=3, n_heads=2, parallel=True)
HALF = Selection(fraction=0.5)
SIZES = np.array([3, 3, 2, 2, 2])
every_credit = pytest.mark.parametrize("credit", ["source", "target", "both", "counts"])
SOURCE_LAYER = GRAPH.layer_of_node[GRAPH.edge_mask.nonzero()[:, 0]].numpy()


def random_folds(seed: int, sizes: np.ndarray = SIZES) -> FoldScores:
    return FoldScores(np.random.default_rng(seed).standard_t(3, size=(len(sizes), GRAPH.n_edges)), sizes)


def layer_of(node: str) -> int | None:
    """Read off the name; ``logits`` have none."""
    return None if node == "logits" else 0 if node == "input" else int(node[1:].split(".")[0])


def slow_merge(row: np.ndarray, kept: np.ndarray) -> dict[tuple[str, str], float]:
    """The kept edges' scores, with the inputs of a head added up."""
    merged: dict[tuple[str, str], float] = {}
    for position, (writer, reader) in enumerate(GRAPH.edge_mask.nonzero().tolist()):
        edge = (GRAPH.writers[writer], GRAPH.readers[reader].split("<")[0])
        if kept[position]:
            merged[edge] = merged.get(edge, 0.0) + row[position]
    return merged


def slow_unit_mass(scores: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    mass = sum(map(abs, scores.values()))
    return {edge: score / mass for edge, score in scores.items()}


def slow_credit(changes: dict[tuple[str, str], float], credit: Credit) -> list[float]:
    """Edge by edge, each end's share to its layer."""
    shares = {"source": (1, 0), "counts": (1, 0), "target": (0, 1), "both": (0.5, 0.5)}[credit]
    credited = [0.0] * GRAPH.n_layers
    for edge, change in changes.items():
        for node, share in zip(edge, shares, strict=True):
            layer = layer_of(node)
            if layer is not None:
                credited[layer] += share * change
    return credited


def slow_changes(before: np.ndarray, after: np.ndarray, policy: str) -> dict[tuple[str, str], float]:
    """The change of each edge between the circuits from two rows of scores."""
    sides = []
    for row in (before, after):
        kept = select_circuit(GRAPH, rows_of_scores(GRAPH, row[None])[0], HALF)[GRAPH.edge_mask].numpy()
        sides.append(slow_merge(row, kept))
    if policy == "counts":
        return dict.fromkeys(sides[0].keys() ^ sides[1].keys(), 1.0)
    if policy == "score_change_normalised":
        sides = [slow_unit_mass(side) for side in sides]
    return {edge: abs(sides[1].get(edge, 0.0) - sides[0].get(edge, 0.0)) for edge in sides[0].keys() | sides[1].keys()}


def slow_excess(before: FoldScores, after: FoldScores, weights: list[int], credit: Credit) -> list[float]:
    """Products of different folds, one after the other."""
    every = np.ones(GRAPH.n_edges, dtype=bool)
    scaled = [[slow_unit_mass(slow_merge(row, every)) for row in side.scores] for side in (before, after)]
    pairs = list(permutations(range(len(weights)), 2))
    total = sum(weights[f] * weights[g] for f, g in pairs)
    changes = {
        edge: sum(
            weights[f]
            * weights[g]
            * (scaled[1][f][edge] - scaled[0][f][edge])
            * (scaled[1][g][edge] - scaled[0][g][edge])
            for f, g in pairs
        )
        / total
        for edge in scaled[0][0]
    }
    return slow_credit(changes, credit)


@every_credit
def test_credits_and_shares_are_those_of_loops(credit: Credit, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = random_folds(1), random_folds(2)
    monkeypatch.setattr(layer_certainty, "NUMBERS_AT_ONCE", 7 * GRAPH.edge_mask.numel())
    found = resample_layers(GRAPH, before, after, HALF, credit, 100, seed=4)
    drawn = draw_folds(len(SIZES), 100, 4)
    assert (drawn.sum(axis=1) == len(SIZES)).all()
    policies = ["score_change"] if credit == "counts" else ["score_change", "score_change_normalised", "excess"]
    assert list(found.by_policy) == policies
    for policy in policies:
        slow = []
        for counts in drawn[:30]:
            weights = counts * SIZES
            if policy == "excess":
                slow.append(slow_excess(before, after, weights.tolist(), credit))
                continue
            rows = [
                sum(w * row for w, row in zip(weights, side.scores, strict=True)) / weights.sum()
                for side in (before, after)
            ]
            slow.append(slow_credit(slow_changes(*rows, "counts" if credit == "counts" else policy), credit))
        assert found.by_policy[policy][:30] == pytest.approx(np.array(slow), rel=1e-9, abs=1e-12)
        times = [0] * GRAPH.n_layers
        for values in found.by_policy[policy].tolist():
            ordered = sorted(range(GRAPH.n_layers), key=lambda layer, values=values: (-values[layer], layer))
            for layer in ordered[:2]:
                times[layer] += values[layer] > 0
        assert top_shares(found.by_policy[policy], 2).tolist() == pytest.approx([n / 100 for n in times])
    if credit != "counts":
        assert found.excess == pytest.approx(np.array(slow_excess(before, after, SIZES.tolist(), credit)), abs=1e-12)


def test_layers_without_change_are_never_among_the_first() -> None:
    values = np.array([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 1.0, -1.0]])
    assert in_order(values).tolist() == [[0, 1, 2], [1, 0, 2], [0, 1, 2]]
    assert is_top(values, 2).tolist() == [[False] * 3, [False, True, False], [True, True, False]]
    lower, upper = intervals_of(np.arange(101.0)[:, None])
    assert (lower[0], upper[0]) == pytest.approx((2.5, 97.5))


def test_every_draw_has_two_different_folds() -> None:
    assert ((draw_folds(2, 200, 0) > 0).sum(axis=1) == 2).all()


def test_a_doubled_checkpoint_changes_nothing_but_the_raw_scores() -> None:
    before = random_folds(3)
    found = resample_layers(GRAPH, before, FoldScores(2 * before.scores, SIZES), HALF, "both", 100)
    assert found.excess == pytest.approx(np.zeros(3), abs=1e-18)
    assert np.abs(found.by_policy["score_change_normalised"]).max() < 1e-12
    assert (found.by_policy["score_change"].sum(axis=1) > 0).all()


# ----------------------------------------------------------------------------------------------- simulated drift


def simulated(signal: np.ndarray, noise: float, generator: np.random.Generator) -> FoldScores:
    return FoldScores(signal + noise * generator.normal(size=(16, len(signal))), np.full(16, 10))


def test_excess_of_noise_is_zero_on_average_and_no_layer_is_sure() -> None:
    """The noise of both checkpoints has a part in common, as on the same prompts, and a scale of its own by fold."""
    generator = np.random.default_rng(0)
    signal = generator.standard_t(3, size=GRAPH.n_edges)
    excess, sure = [], []
    for draw in range(300):
        common = 0.5 * generator.normal(size=(16, GRAPH.n_edges))
        scale = np.exp(0.3 * generator.normal(size=(16, 1)))
        before, after = (
            FoldScores(scale * (signal + common + generator.normal(size=common.shape)), np.full(16, 10))
            for _ in range(2)
        )
        products = fold_products(GRAPH, before, after, "source")
        excess.append(excess_by_layer(products, before.sizes[None])[0])
        sure.append(top_shares(excess_by_layer(products, draw_folds(16, 100, draw)), 1) >= 0.95)
    values = np.array(excess)
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(axis=0)) < 4 * errors).all()
    assert (np.mean(values > 0, axis=0) < 0.7).all()
    assert np.mean(sure, axis=0).max() < 0.08


def test_drift_of_one_layer_is_found_where_raw_changes_name_another() -> None:
    generator = np.random.default_rng(1)
    signal = 3 * generator.standard_t(3, size=GRAPH.n_edges)
    moved = signal + np.where(SOURCE_LAYER == 1, 2 * generator.normal(size=GRAPH.n_edges), 0)
    found, shares = [], []
    for draw in range(20):
        before, after = (simulated(scores, 2.0, generator) for scores in (signal, moved))
        resampled = resample_layers(GRAPH, before, after, Selection(fraction=1.0), "source", 100, seed=draw)
        found.append({policy: values.mean(axis=0).argmax() for policy, values in resampled.by_policy.items()})
        shares.append(top_shares(resampled.by_policy["excess"], 1)[1])
    assert np.mean([first["excess"] == 1 for first in found]) > 0.9
    assert np.median(shares) >= 0.95
    assert np.mean([first["score_change"] == 0 for first in found]) > 0.9  # the noise of layer 0's many edges


# ------------------------------------------------------------------------------------------- from a run's files


def made(folder: Path, before: np.ndarray, after: np.ndarray) -> tuple[Path, list[Path], list[Path]]:
    """The files of two checkpoints with these scores by fold: the layers' changes, the scores, and the edges tables."""
    circuits, scores, edges = [], [], []
    for name, by_fold in (("00", before), ("02", after)):
        mean = rows_of_scores(GRAPH, by_fold.mean(axis=0)[None])[0].float()
        kept = select_circuit(GRAPH, mean, HALF)
        tables = edge_table(GRAPH, mean, kept), node_table(GRAPH, kept)
        circuits.append(structural_circuit(*tables, name, name))
        origin = Provenance.detached(checkpoint=name)
        file = ScoreFile(
            folder / f"{name}.safetensors",
            GRAPH,
            origin,
            mean,
            rows_of_scores(GRAPH, by_fold).float(),
            (2,) * len(by_fold),
        )
        write_scores(file, Attribution())
        scores.append(file.path)
        edges.append(folder / f"{name}.parquet")
        write_table(edges[-1], tables[0], "edges", origin)
    layers = folder / "layers.parquet"
    write_table(layers, tabulate_layers(stack_circuits(circuits)), "layers", Provenance.detached())
    return layers, scores, edges


def written(
    folder: Path, before: np.ndarray, after: np.ndarray, **settings: object
) -> tuple[pd.DataFrame, CircuitLoraMethod]:
    """The table of critical layers, as its file holds it, and the method that asks for it."""
    layers, scores, _ = made(folder, before, after)
    method = CircuitLoraMethod(
        kind="circuit_lora", rank=2, critical_rank=8, critical_layers=2, phase_1="lora", **settings
    )
    path = folder / "critical_layers.parquet"
    table = critical_layers_of_run(layers, method, scores, HALF, 100)
    write_table(path, table, "critical_layers", Provenance.detached(seed="0"))
    return read_table(path, "critical_layers"), method


def two_checkpoints() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    before = generator.standard_t(3, size=GRAPH.n_edges) + 0.3 * generator.normal(size=(8, GRAPH.n_edges))
    return before, before + np.where(SOURCE_LAYER == 1, generator.normal(size=GRAPH.n_edges), 0)


@every_credit
def test_the_table_has_each_layer_once_for_each_policy(tmp_path, credit: Credit) -> None:
    table, method = written(tmp_path, *two_checkpoints(), credit=credit)
    policies = 1 if credit == "counts" else 3
    assert table.groupby("policy")["layer"].apply(sorted).tolist() == [[0, 1, 2]] * policies
    assert set(table["credit"]) == {credit}
    assert table["in_top"].between(0, 1).all()
    assert (table["lower"] <= table["upper"]).all()
    for _, rows in table.groupby("policy"):
        assert rows["value"].is_monotonic_decreasing
        assert rows["critical"].tolist() == ((rows["rank_order"] <= 2) & (rows["value"] > 0)).tolist()
        threshold = rows["value"].mean() + rows["value"].std(ddof=0)
        assert rows["above_threshold"].tolist() == (rows["value"] > threshold).tolist()
    assert len(critical_layers(table, method.policy, 2)) == 2
    if credit == "source":
        assert table[table["policy"] == "excess"].iloc[0][["layer", "in_top"]].tolist() == [1, 1.0]


def test_counts_are_the_edges_that_came_or_went(tmp_path) -> None:
    before, after = two_checkpoints()
    table, _ = written(tmp_path, before, after, credit="counts")
    float32 = [scores.mean(axis=0).astype("float32").astype("float64") for scores in (before, after)]
    expected = slow_credit(slow_changes(*float32, "counts"), "counts")
    assert table.sort_values("layer")["value"].tolist() == expected
    assert sum(expected) > 0


@pytest.mark.parametrize("allocation", ["top", "per_module"])
def test_the_stage_allocates_from_a_run_s_files(tmp_path, monkeypatch, allocation: str) -> None:
    layers, scores, edges = made(tmp_path, *two_checkpoints())
    shape = shape_of_architecture("gpt_neox", GRAPH.n_layers)
    monkeypatch.setattr(stage, "load_shape", lambda manifest: shape)
    monkeypatch.setattr(stage, "base_model_name", lambda manifest: ("tiny", None))
    method = CircuitLoraMethod(
        kind="circuit_lora", rank=2, critical_rank=8, critical_layers=1, phase_1="lora", allocation=allocation
    )
    by_module = allocation == "per_module"
    files = {name: tmp_path / f"{name}.parquet" for name in ("critical_layers", "module_changes")}
    stage.main(
        manifest=tmp_path, layers=layers, scores=scores, edges=edges if by_module else [],
        critical_layers=files["critical_layers"], module_changes=files["module_changes"] if by_module else None,
        adapter_config=tmp_path / "adapter_config.json", method=method, training=Training(), choice=HALF,
        resamples=100, provenance=Provenance.detached(seed="0"),
    )  # fmt: skip
    critical = read_table(files["critical_layers"], "critical_layers")
    assert critical["in_top"].between(0, 1).all()
    ranks = read_json(tmp_path / "adapter_config.json")["rank_pattern"]
    if by_module:
        assert len(read_table(files["module_changes"], "module_changes")) > 0
        assert {rank % 2 for rank in ranks.values()} == {0, 1}
    else:
        assert not files["module_changes"].exists()
        [layer] = critical[critical["critical"] & (critical["policy"] == "score_change")]["layer"]
        assert all(rf"\.{layer}\." in name for name in ranks)
        assert set(ranks.values()) == {8}


def test_where_nothing_changed_no_layer_is_critical_and_no_rank_is_allocated(tmp_path, caplog) -> None:
    before, _ = two_checkpoints()
    table, method = written(tmp_path, before, before)
    assert not table["critical"].any()
    assert (table["in_top"] == 0).all()
    assert "policy score_change: nothing changed: no layer has a change above zero" in caplog.text
    with pytest.raises(AllocationError, match=r"nothing changed .*train phase_1 longer, import circuits that differ"):
        critical_layers(table, method.policy, 2)


def test_fewer_changed_layers_than_asked_for_are_named() -> None:
    changes = pd.DataFrame({"layer": range(3), "score_change": [0.0, 2.0, 0.0], "score_change_normalised": 0.1})
    changes = changes.assign(from_checkpoint="00", to_checkpoint="01", level="edge", added=0, removed=0)
    table = order_layers(changes, 2, "layers")
    assert table[table["critical"] & (table["policy"] == "score_change")]["layer"].tolist() == [1]
    with pytest.raises(AllocationError, match=r"marks 1 layers as critical .*\(a layer without change is never"):
        critical_layers(table, "score_change", 2)
    assert table["in_top"].isna().all()
    with pytest.raises(DriftError, match=r"no columns .*score_change_at_target.* credit target needs"):
        order_layers(changes, 2, "layers", "target")


def test_scores_on_other_prompts_are_refused(tmp_path) -> None:
    before, after = two_checkpoints()
    with pytest.raises(DriftError, match="score all checkpoints on the same prompts"):
        written(tmp_path, before, after[:6])


def test_a_negative_excess_has_no_weight() -> None:
    table = pd.DataFrame({"layer": [1, 0, 2], "policy": "excess", "value": [3.0, 1.0, -2.0], "rank_order": [1, 2, 3]})
    assert layer_weights(table, "excess", "proportional", 1) == {1: 3.0, 0: 1.0, 2: 0.0}
    assert layer_weights(table, "excess", "inverted", 1) == {1: 0.0, 0: 0.0, 2: 1.0}
    with pytest.raises(AllocationError, match="zero or below"):
        layer_weights(table.assign(value=-1.0), "excess", "proportional", 1)
