"""Transitions, rates and layer changes against plain-set twins, on circuits that hypothesis draws."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from drift_tables import N_LAYERS, a_circuit, layer_of, slow_merge, slow_nodes, some_circuits, tables
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from circuitdrift.drift.changes import Change, count_change, summarise, tabulate_transitions
from circuitdrift.drift.layer_order import order_layers
from circuitdrift.drift.layers import tabulate_layers, unit_mass
from circuitdrift.drift.series import CircuitSeries, DriftError, merge_inputs, stack_circuits, structural_circuit

quick = settings(max_examples=15, deadline=None)


def series_of(circuits: list[dict]) -> CircuitSeries:
    return stack_circuits(
        [structural_circuit(*tables(scores), f"{i:02d}", f"circuit {i}") for i, scores in enumerate(circuits)]
    )


def value(summary: pd.DataFrame, level: str, measure: str) -> float:
    return summary.set_index(["level", "measure"])["value"][level, measure]


# ------------------------------------------------------------------------------------------ counting


@given(arrays(bool, (2, 12)))
def test_count_change_is_what_sets_say(kept):
    before, after = ({i for i, held in enumerate(row) if held} for row in kept)
    change = count_change(kept[0], kept[1])
    assert change == Change(len(before), len(after), len(after - before), len(before - after))
    assert change.changed == len(before ^ after) == len(before | after) - len(before & after)
    assert change.final == change.initial + change.added - change.removed
    assert 0.0 <= change.jaccard <= 1.0
    assert change.jaccard == (len(before & after) / len(before | after) if before | after else 1.0)
    assert change.jaccard == count_change(kept[1], kept[0]).jaccard
    assert change.changed == count_change(kept[1], kept[0]).changed


def test_rate_of_an_empty_circuit_is_undefined():
    assert np.isnan(Change(initial=0, final=2, added=2, removed=0).rate)


# ------------------------------------------------------------------------------------------- merging


def test_merging_sums_the_signed_scores_of_the_kept_inputs_only():
    edges, _ = tables({("input", "a0.h0", "q"): 3.0, ("input", "a0.h0", "k"): -1.0, ("input", "m0", None): -2.0})
    merged = merge_inputs(edges)
    assert merged["score"].to_dict() == {("input", "a0.h0"): 2.0, ("input", "m0"): -2.0}


def test_opposite_inputs_cancel_in_score_but_the_edge_stays():
    series = series_of([{("input", "a0.h0", "q"): 1.0, ("input", "a0.h0", "v"): -1.0}, {("input", "m0", None): 1.0}])
    assert tabulate_transitions(series).query("level == 'edge'")[["initial", "removed"]].iloc[0].tolist() == [1, 1]


@quick
@given(a_circuit)
def test_merging_is_plain_addition(scores):
    merged = merge_inputs(tables(scores)[0])["score"].to_dict()
    expected = slow_merge(scores)
    assert merged.keys() == expected.keys()
    assert all(merged[edge] == pytest.approx(expected[edge], abs=1e-12) for edge in expected)


# -------------------------------------------------------------------------------------- whole tables


@quick
@given(some_circuits)
def test_transitions_are_what_sets_say(circuits):
    table = tabulate_transitions(series_of(circuits)).set_index(["from_checkpoint", "level"])
    assert len(table) == 2 * (len(circuits) - 1)
    for i, (before, after) in enumerate(pairwise(circuits)):
        node_change = slow_nodes(before) ^ slow_nodes(after)
        edge_change = slow_merge(before).keys() ^ slow_merge(after).keys()
        assert table.loc[(f"{i:02d}", "node"), "changed"] == len(node_change)
        edge_row = table.loc[(f"{i:02d}", "edge")]
        assert edge_row["changed"] == edge_row["added"] + edge_row["removed"] == len(edge_change)
        assert edge_row["initial"] == len(slow_merge(before))
        assert edge_row["node_induced"] == len([edge for edge in edge_change if set(edge) & node_change])


@quick
@given(some_circuits)
def test_layers_are_what_sets_say_and_add_up_to_the_transition(circuits):
    series = series_of(circuits)
    layers, transitions = tabulate_layers(series), tabulate_transitions(series)
    sums = layers.groupby(["from_checkpoint", "to_checkpoint", "level"])[["added", "removed"]].sum()
    counts = transitions.set_index(["from_checkpoint", "to_checkpoint", "level"])[["added", "removed"]]
    pd.testing.assert_frame_equal(sums.loc[counts.index], counts, check_dtype=False)

    before, after = slow_merge(circuits[0]), slow_merge(circuits[-1])
    mass_before, mass_after = (sum(map(abs, scores.values())) or 1.0 for scores in (before, after))
    net = layers.query("from_checkpoint == '00' and to_checkpoint == @layers.to_checkpoint.max() and level == 'edge'")
    assert net["layer"].tolist() == list(range(N_LAYERS))
    for row in net.itertuples():
        from_layer = [edge for edge in before.keys() | after.keys() if layer_of(edge[0]) == row.layer]
        change = sum(abs(after.get(edge, 0.0) - before.get(edge, 0.0)) for edge in from_layer)
        normalised = sum(
            abs(after.get(edge, 0.0) / mass_after - before.get(edge, 0.0) / mass_before) for edge in from_layer
        )
        assert row.score_change == pytest.approx(change, abs=1e-9)
        assert row.score_change_normalised == pytest.approx(normalised, abs=1e-9)
    assert 0.0 <= net["score_change_normalised"].sum() <= 2.0 + 1e-9
    assert layers.query("level == 'node'")[["score_change", "score_change_normalised"]].isna().all(axis=None)


@quick
@given(some_circuits)
def test_rates_follow_from_the_transitions(circuits):
    series = series_of(circuits)
    summary, transitions = summarise(series), tabulate_transitions(series)
    for level in ("node", "edge"):
        rows = transitions[transitions["level"] == level]
        initial = rows["initial"].iloc[0]
        assert value(summary, level, "rate_cumulative") == rows["changed"].sum() / initial
        assert value(summary, level, "rate_mean") == pytest.approx((rows["changed"] / rows["initial"]).mean())
        assert value(summary, level, "changed_net") <= value(summary, level, "changed_cumulative")
        distance = value(summary, level, "jaccard_distance_net")
        union = initial + value(summary, level, "added_net")
        assert distance == pytest.approx(value(summary, level, "changed_net") / union)
    nodes, edges = value(summary, "node", "rate_net"), value(summary, "edge", "rate_net")
    quotient = value(summary, "edge_over_node", "rate_net")
    assert np.isnan(quotient) if nodes == 0 else quotient == pytest.approx(edges / nodes)
    excess = value(summary, "edge", "excess_over_estimate_net")
    assert np.isnan(excess) if nodes == 0 else excess == pytest.approx(quotient)


@quick
@given(a_circuit)
def test_identical_circuits_change_nowhere(scores):
    series = series_of([scores, scores, scores])
    transitions, layers = tabulate_transitions(series), tabulate_layers(series)
    assert (transitions[["added", "removed", "changed", "node_induced"]] == 0).all(axis=None)
    assert (transitions["jaccard"] == 1.0).all()
    assert (layers[["added", "removed"]] == 0).all(axis=None)
    assert (layers.query("level == 'edge'")[["score_change", "score_change_normalised"]] == 0).all(axis=None)
    summary = summarise(series).query("level != 'edge_over_node'")
    rates = summary[summary["measure"].str.startswith(("rate_", "jaccard_", "changed_"))]
    assert (rates["value"] == 0).all()


@quick
@given(a_circuit, a_circuit, st.floats(0.01, 100.0))
def test_scaling_one_circuit_leaves_the_normalised_change_alone(before, after, factor):
    scaled = {edge: factor * score for edge, score in after.items()}
    plain, other = (tabulate_layers(series_of([before, end])).query("level == 'edge'") for end in (after, scaled))
    np.testing.assert_allclose(plain["score_change_normalised"], other["score_change_normalised"], atol=1e-9)
    both = tabulate_layers(series_of([{edge: factor * score for edge, score in before.items()}, scaled]))
    np.testing.assert_allclose(both.query("level == 'edge'")["score_change"], factor * plain["score_change"], atol=1e-6)


@quick
@given(a_circuit, a_circuit, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(before, after, random):
    seed = random.randrange(2**31)
    shuffled_circuits = []
    for i, scores in enumerate((before, after)):
        edges, nodes = (table.sample(frac=1.0, random_state=seed + i) for table in tables(scores))
        shuffled_circuits.append(structural_circuit(edges, nodes, f"{i:02d}", "shuffled"))
    shuffled = stack_circuits(shuffled_circuits)
    series = series_of([before, after])
    for measure in (tabulate_transitions, tabulate_layers, summarise):
        pd.testing.assert_frame_equal(measure(series), measure(shuffled), check_exact=True)


def test_unit_mass_leaves_a_circuit_of_no_mass_alone():
    assert unit_mass(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert unit_mass(np.array([1.0, -3.0])).tolist() == [0.25, -0.75]


def test_two_checkpoints_give_one_pair_and_three_give_the_net_pair_too():
    circuit = {("input", "m0", None): 1.0}
    tabulated = [tabulate_layers(series_of([circuit] * n)) for n in (2, 3)]
    pairs = [set(zip(table["from_checkpoint"], table["to_checkpoint"], strict=True)) for table in tabulated]
    assert pairs == [{("00", "01")}, {("00", "01"), ("01", "02"), ("00", "02")}]


# ------------------------------------------------------------------------------------------- ranking


def layers_table(changes: list[float], normalised: list[float]) -> pd.DataFrame:
    spans = [("00", "01", 9.0), ("00", "02", 0.0), ("01", "02", 9.0)]
    return pd.DataFrame(
        [
            {
                "from_checkpoint": first,
                "to_checkpoint": last,
                "layer": layer,
                "level": level,
                "added": 0,
                "removed": 0,
                "score_change": changes[layer] + noise * (layer % 2) if level == "edge" else np.nan,
                "score_change_normalised": normalised[layer] if level == "edge" else np.nan,
            }
            for first, last, noise in spans
            for level in ("node", "edge")
            for layer in range(len(changes))
        ]
    )


def test_ranking_uses_the_net_rows_and_breaks_ties_by_the_lower_layer():
    ranked = order_layers(layers_table([1.0, 3.0, 3.0, 0.0], [0.1, 0.1, 0.1, 0.4]), 2, "table")
    paper = ranked[ranked["policy"] == "score_change"]
    assert paper["layer"].tolist() == [1, 2, 0, 3]
    assert paper["rank_order"].tolist() == [1, 2, 3, 4]
    assert paper["critical"].tolist() == [True, True, False, False]
    assert ranked[ranked["policy"] == "score_change_normalised"]["layer"].tolist() == [3, 0, 1, 2]


def test_ranking_refuses_what_it_cannot_rank():
    table = layers_table([1.0, 2.0], [0.5, 0.5])
    with pytest.raises(DriftError, match=r"layers\.parquet: cannot call 3 of 2 layers critical; set critical_layers"):
        order_layers(table, 3, "layers.parquet")
    with pytest.raises(DriftError, match=r"layers\.parquet: has no edge rows from checkpoint '00' to '02'"):
        order_layers(table[table["from_checkpoint"] + table["to_checkpoint"] != "0002"], 1, "layers.parquet")
    with pytest.raises(DriftError, match="'score_change' has values that are not finite"):
        order_layers(table.assign(score_change=np.nan), 1, "layers.parquet")


# ----------------------------------------------------------------------------------------- bad input


def test_one_checkpoint_is_refused():
    only = structural_circuit(*tables({("input", "m0", None): 1.0}), "00", "base/edges.parquet")
    with pytest.raises(DriftError, match=r"at least two checkpoints.*given: base/edges\.parquet"):
        stack_circuits([only])
    with pytest.raises(DriftError, match="given: none"):
        stack_circuits([])


def test_circuits_of_different_graphs_are_refused_by_name_and_size():
    scores = {("input", "m0", None): 1.0}
    small = structural_circuit(*tables(scores), "00", "a/edges.parquet")
    large = structural_circuit(*tables(scores, n_heads=3), "01", "b/edges.parquet")
    with pytest.raises(DriftError, match=r"a/edges\.parquet has 11 nodes and \d+ edges, b/edges\.parquet has 14 nodes"):
        stack_circuits([small, large])


def test_graphs_of_one_size_but_other_names_are_refused():
    edges, nodes = tables({("input", "m0", None): 1.0})
    renamed = edges.replace({"a2.h1": "a2.h7"}), nodes.replace({"a2.h1": "a2.h7"})
    with pytest.raises(DriftError, match="under other names"):
        stack_circuits([structural_circuit(edges, nodes, "00", "a"), structural_circuit(*renamed, "01", "b")])


def test_a_checkpoint_given_twice_is_refused():
    circuit = structural_circuit(*tables({("input", "m0", None): 1.0}), "00", "a")
    with pytest.raises(DriftError, match="checkpoint '00' is given twice"):
        stack_circuits([circuit, circuit])


def test_broken_tables_are_refused():
    edges, nodes = tables({("input", "m0", None): 1.0})
    kept = edges[edges["in_circuit"]]
    with pytest.raises(DriftError, match=r"e\.parquet: .*the edge \['input', 'm0'.*twice"):
        structural_circuit(pd.concat([edges, kept]), nodes, "00", "e.parquet")
    with pytest.raises(DriftError, match="the table holds the node 'input' twice"):
        structural_circuit(edges, pd.concat([nodes, nodes.head(1)]), "00", "e.parquet")
    with pytest.raises(DriftError, match="has no finite score"):
        structural_circuit(edges.assign(score=np.inf), nodes, "00", "e.parquet")
    with pytest.raises(DriftError, match="belong to different circuits"):
        structural_circuit(edges, nodes.assign(in_circuit=nodes["node"] == "logits"), "00", "e.parquet")
