"""Figures: what their tidy tables say, that files are reproducible, and that one seed or task suffices."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_tables import LABELS, METHODS, MadeUpStudy

import plot_figure
from circuitdrift.config.figures import Figures
from circuitdrift.figures import (
    accuracy_and_faithfulness,
    change_rates,
    circuit_before_after,
    drift_and_noise,
    edge_changes,
    faithfulness_by_size,
    functional_drift,
    layer_certainty,
    layer_changes,
    method_accuracy,
    tidy,
    transition_changes,
)
from circuitdrift.figures.style import INK, group_title, save_figure, theme
from circuitdrift.figures.tidy import FigureDataError
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, read_tables

STYLE = Figures(dpi=60)


@pytest.fixture
def small(tmp_path: Path) -> MadeUpStudy:
    return MadeUpStudy(
        tmp_path / "in", tasks=("add_sub_100",), methods=("lora_r2", "circuit_lora_8_32"), n_checkpoints=2, n_layers=3
    )


def outputs(folder: Path) -> dict[str, Path]:
    return {ending: folder / f"figure.{ending}" for ending in ("pdf", "svg", "png", "parquet")}


def drawn(folder: Path, figure: str, reads: dict[str, list[Path]], **settings: object) -> pd.DataFrame:
    """Draw a figure into a folder and read its table."""
    plot_figure.main(figure, reads, outputs(folder), settings, METHODS, STYLE, Provenance.detached())
    return read_table(folder / "figure.parquet", "figure")


def test_mean_over_seeds_spans_the_seeds_whatever_their_intervals() -> None:
    table = pd.DataFrame({"task": "t", "seed": [0, 1], "value": [1.0, 3.0], "lower": [0.0, 2.0], "upper": [2.0, 6.0]})
    mean = tidy.with_seed_means(table, ["task"], ["value"]).query("statistic == 'mean'").iloc[0]
    assert (mean["value"], mean["lower"], mean["upper"], mean["seeds"]) == (2.0, 1.0, 3.0, 2)


def test_mean_of_one_seed_keeps_its_interval() -> None:
    table = pd.DataFrame({"task": ["t", "u", "u"], "seed": [0, 0, 1], "value": [1.0, 5.0, 7.0]})
    table = table.assign(lower=table["value"] - 3, upper=table["value"] + 4)
    means = tidy.with_seed_means(table, ["task"], ["value"]).query("statistic == 'mean'").set_index("task")
    assert means.loc["t", ["value", "lower", "upper", "seeds"]].tolist() == [1, -2, 5, 1]
    assert means.loc["u", ["value", "lower", "upper", "seeds"]].tolist() == [6, 5, 7, 2]


def test_mean_over_seeds_spans_the_seeds_where_they_have_no_interval() -> None:
    table = pd.DataFrame({"task": "t", "seed": [0, 1, 2], "value": [1.0, 3.0, 8.0]})
    mean = tidy.with_seed_means(table, ["task"], ["value"]).query("statistic == 'mean'").iloc[0]
    assert (mean["value"], mean["lower"], mean["upper"]) == (4.0, 1.0, 8.0)


def test_each_run_gets_the_base_models_rows() -> None:
    base = {"model": "m", "task": "t", "method": None, "seed": np.nan, "checkpoint": "00", "faithfulness": 0.5}
    runs = [{**base, "method": method, "seed": seed, "checkpoint": "01"} for method in ("a", "b") for seed in (0, 1)]
    spread = tidy.spread_base(pd.DataFrame([base, *runs]))
    assert len(spread) == 8
    assert spread["seed"].dtype == "int64"
    assert set(map(tuple, spread.loc[spread["checkpoint"] == "00", ["method", "seed"]].to_numpy())) == {
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    }


def test_accuracy_and_faithfulness_start_at_the_base_model(small: MadeUpStudy, tmp_path: Path) -> None:
    reads = {"accuracy": small.accuracy(), "faithfulness": small.faithfulness()}
    table = drawn(tmp_path, "accuracy_and_faithfulness", reads)
    means = table[table["statistic"] == "mean"]
    assert set(means["measure"]) == {"accuracy", "kl_model_circuit", "kl_from_corrupted"}
    assert (means.groupby(["method", "measure"])["checkpoint"].apply(list).map(tuple) == ("00", "01", "02")).all()
    assert means["value"].between(-100, 101).all()
    assert all(path.stat().st_size > 1000 for path in outputs(tmp_path).values())


def test_faithfulness_by_size_shows_the_base_model_once_and_the_last_checkpoint_of_each_method(
    small: MadeUpStudy, tmp_path: Path
) -> None:
    paths = small.faithfulness()
    table = drawn(tmp_path, "faithfulness_by_size", {"base_and_last_faithfulness": paths})
    last = table[table["method"] != tidy.BASE_MODEL]
    assert set(last["method"]) == set(small.methods)
    assert set(last["checkpoint"]) == {"02"}
    base = table[(table["method"] == tidy.BASE_MODEL) & (table["statistic"] == "seed")]
    measured = read_tables(paths, "faithfulness").query("checkpoint == '00' and metric == 'logit_difference'")
    shown = base[base["measure"] == "logit_difference"].sort_values("size_fraction")
    assert shown["value"].tolist() == pytest.approx((100 * measured["faithfulness"]).tolist())
    assert all(path.stat().st_size > 1000 for path in outputs(tmp_path).values())


def test_faithfulness_by_size_leaves_out_sizes_and_measures_that_some_curve_lacks(small: MadeUpStudy) -> None:
    curves = read_tables(small.faithfulness(), "faithfulness")
    lacking = (curves["method"] == "lora_r2") & (curves["seed"] == 1) & (curves["size_fraction"] == 0.05)
    curves.loc[curves["metric"] == "logit_difference", "faithfulness"] = np.nan
    table = faithfulness_by_size.tidy(curves[~lacking])
    assert set(table["size_fraction"]) == {0.01, 0.02, 0.1, 0.2, 0.5}
    assert set(table["measure"]) == {"kl_model_circuit"}
    with pytest.raises(FigureDataError, match="no size that all circuits have"):
        faithfulness_by_size.tidy(curves.assign(faithfulness=np.nan))


def test_a_task_without_answers_keeps_its_place_beside_tasks_with_answers(tmp_path: Path) -> None:
    """Both tasks are of a model as it is, so that no run has a method."""
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm", "own"), methods=(), n_checkpoints=1)
    curves = read_tables(study.faithfulness(), "faithfulness")
    without = (curves["task"] == "own") & ~curves["metric"].str.startswith("kl")
    table = faithfulness_by_size.tidy(curves[~without])
    assert {task: set(of_task["measure"]) for task, of_task in table.groupby("task")} == {
        "lcm": {"kl_model_circuit", "logit_difference"},
        "own": {"kl_model_circuit"},
    }
    figure = faithfulness_by_size.draw(table, STYLE, LABELS)
    empty = [ax for ax in figure.axes if any(text.get_text() == "no answers" for text in ax.texts)]
    assert len(empty) == 1


def test_tables_without_the_studys_own_circuit_are_refused(small: MadeUpStudy) -> None:
    curves = read_tables(small.faithfulness(), "faithfulness").assign(own_circuit=False)
    with pytest.raises(FigureDataError, match="no row of the study's own circuit"):
        accuracy_and_faithfulness.tidy(read_tables(small.accuracy(), "accuracy"), curves)


def test_transition_figure_ignores_the_net_pair(small: MadeUpStudy, tmp_path: Path) -> None:
    paths = small.transitions()
    frame = read_tables(paths, "transitions")
    net = frame[frame["to_checkpoint"] == "02"].assign(from_checkpoint="00")
    table = drawn(tmp_path, "transition_changes", {"transitions": paths})
    assert len(transition_changes.tidy(pd.concat([frame, net]))) == len(table)
    mean = table[table["statistic"] == "mean"]
    assert np.allclose(mean["changed"], mean["added"] + mean["removed"])


def test_change_rates_are_means_in_percent_beside_the_controls(small: MadeUpStudy, tmp_path: Path) -> None:
    summary, controls = small.summary(), small.controls()
    table = drawn(tmp_path, "change_rates", {"summary": summary, "controls": controls})
    table = table.set_index(["name", "measure", "level"])
    raw = read_tables(summary, "summary").query("method == 'lora_r2' and measure == 'rate_net' and level == 'edge'")
    assert table.loc[("lora_r2", "rate_net", "edge"), "value"] == pytest.approx(100 * raw["value"].mean())
    assert table.loc[("lora_r2", "rate_net", "edge"), "lower"] == pytest.approx(100 * raw["value"].min())
    labels = set(table.loc[table["kind"] == "control", "label"])
    assert labels == {
        "Other seed",
        "Other data split, base model",
        "Other data split, checkpoint 02",
        "Random circuits",
    }


def test_axes_of_change_rates_end_a_little_beyond_the_highest_rate(small: MadeUpStudy) -> None:
    summary = read_tables(small.summary(), "summary")
    quotients = summary[summary["measure"] == "rate_net"].assign(level="edge_over_node", value=9.0)
    controls = read_tables(small.controls(), "controls")
    table = change_rates.tidy(pd.concat([summary, quotients]), controls, LABELS)
    assert set(table["level"]) == {"node", "edge"}
    shown = table[(table["measure"] == "rate_net") & (table["name"] != "random_circuit")]
    figure = change_rates.draw(table, STYLE, LABELS)
    assert figure.axes[0].get_xlim()[1] == pytest.approx(1.3 * shown["upper"].max())


def test_change_rates_leave_kinds_of_prompts_to_the_table_of_controls(small: MadeUpStudy) -> None:
    summary, controls = read_tables(small.summary(), "summary"), read_tables(small.controls(), "controls")
    of_kinds = controls[controls["control"] == "other_seed"].assign(control="kind: + and -")
    against_base = of_kinds.assign(control="degree_preserving_base")
    more = pd.concat([controls, of_kinds, against_base], ignore_index=True)
    assert change_rates.tidy(summary, more, LABELS).equals(change_rates.tidy(summary, controls, LABELS))


def test_change_rates_do_without_a_second_seed(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("own",), methods=("lora_r2",), seeds=(3,), n_checkpoints=1)
    controls = read_tables(study.controls(), "controls").query("control == 'random_circuit'")
    rates = change_rates.tidy(read_tables(study.summary(), "summary"), controls, LABELS)
    assert set(rates.loc[rates["kind"] == "control", "label"]) == {"Random circuits"}


def test_drift_and_noise_shows_three_parts_of_the_reliability_tables(small: MadeUpStudy, tmp_path: Path) -> None:
    table = drawn(tmp_path, "drift_and_noise", {"reliability": small.reliability()})
    means = table[table["statistic"] == "mean"].set_index(["part", "method", "quantity", "examples", "to_checkpoint"])
    assert set(table.loc[table["part"] == "prompts", "examples"]) == {25, 50, 100}
    between = means.loc[("prompts", "lora_r2", "between", 50, "02")]
    assert (between["value"], between["lower"], between["upper"]) == pytest.approx((0.495, 0.49, 0.5))
    excess = table[table["part"] == "excess"]
    assert len(excess) == 2 * 2 * 2  # methods, seeds, levels
    assert set(excess["statistic"]) == {"seed"}
    assert (excess["upper"] - excess["lower"]).tolist() == pytest.approx([0.1] * 8)
    assert set(excess["examples"]) == {100}
    transitions = table[table["part"] == "transitions"]
    assert set(transitions["to_checkpoint"]) == {"01", "02"}
    assert set(transitions["quantity"]) == {"corrected", "paired"}
    assert all(path.stat().st_size > 1000 for path in outputs(tmp_path).values())


def test_drift_and_noise_draws_one_transition_and_numbers_that_are_undefined(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("own",), methods=("lora_r2",), seeds=(3,), n_checkpoints=1)
    undefined = ["within_after", "between", "paired", "excess", "lower", "upper", "corrected"]
    table = read_tables(study.reliability(), "reliability").assign(**dict.fromkeys(undefined, np.nan))
    drift_and_noise.draw(drift_and_noise.tidy(table), STYLE, LABELS)
    with pytest.raises(FigureDataError, match="jaccard"):
        drift_and_noise.tidy(table[table["measure"] == "pearson"])


def test_functional_drift_shows_every_circuit_in_every_model(small: MadeUpStudy, tmp_path: Path) -> None:
    table = drawn(tmp_path, "functional_drift", {"functional": small.functional()})
    means = table[table["statistic"] == "mean"].set_index(["method", "circuit", "model_checkpoint"])
    assert len(means) == 2 * (3 * (3 + 2) + 1)  # methods; models of checkpoints, shared and random; other seed
    base_in_last = means.loc[("lora_r2", "00", "02")]
    assert base_in_last[["faithfulness", "lower", "upper"]].tolist() == pytest.approx([0.605, 0.6, 0.61])
    assert base_in_last["difference"] == pytest.approx(-0.195)
    assert means.loc[("lora_r2", "01", "01"), "difference"] == 0
    assert means.loc[("lora_r2", "other_seed", "02"), "faithfulness"] == pytest.approx(0.705)
    assert means.loc[("lora_r2", "shared", "00"), "n_edges"] == 30
    text = (tmp_path / "figure.svg").read_text()
    assert all(f"<!-- {label} -->" in text for label in ("base", "other seed", "shared", "random", ".60", ".80"))


def test_functional_drift_takes_one_seed_eleven_checkpoints_and_cells_without_a_number(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", methods=("lora_r2",), seeds=(3,), n_checkpoints=10)
    functional = read_tables(study.functional(), "functional")
    functional.loc[functional["model_checkpoint"] == "04", "faithfulness"] = np.nan
    functional.loc[functional["circuit_checkpoint"] == "random", "faithfulness"] = -1e-4
    table = functional_drift.tidy(functional)
    assert set(table["circuit"]) == {*study.checkpoints, "shared", "random"}
    # The interval of one seed stays.
    assert (table["upper"] - table["lower"]).tolist() == pytest.approx([0.08] * len(table))
    figure = functional_drift.draw(table, STYLE, LABELS)
    written = {text.get_text() for ax in figure.axes for text in ax.texts}
    assert ".00" in written
    assert "-.00" not in written
    assert "nan" not in written
    with pytest.raises(FigureDataError, match="kl_model_circuit"):
        functional_drift.tidy(functional[functional["metric"] == "accuracy"])


def test_summary_without_rates_is_refused(small: MadeUpStudy) -> None:
    summary = read_tables(small.summary(), "summary").assign(measure="initial")
    controls = read_tables(small.controls(), "controls").head(0)
    with pytest.raises(FigureDataError, match="rate_net"):
        change_rates.tidy(summary, controls, LABELS)


def test_critical_layers_are_the_top_of_the_net_change(small: MadeUpStudy, tmp_path: Path) -> None:
    paths = small.layers()
    mean = drawn(tmp_path, "layer_changes", {"layers": paths}, top_layers=1).query("statistic == 'mean'")
    for _, run in mean.groupby("method"):
        assert run.loc[run["critical"], "layer"].tolist() == [run.loc[run["score_change"].idxmax(), "layer"]]
    raw = read_tables(paths, "layers").query("from_checkpoint == '00' and to_checkpoint == '02' and level == 'edge'")
    assert mean["added"].sum() == pytest.approx(raw["added"].sum() / len(small.seeds))


def test_bars_of_every_task_end_within_their_panel(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path, tasks=("lcm", "sequence"), methods=("lora_r2",), n_checkpoints=2, n_layers=3)
    table = layer_changes.tidy(read_tables(study.layers(), "layers"), 1)
    scores = ["score_change", "score_change_normalised"]
    table.loc[table["task"] == "sequence", scores] *= 1000
    table.loc[table["task"] == "lcm", scores] *= 2
    figure = layer_changes.draw(table, STYLE, LABELS)
    for ax in figure.axes:
        lowest, highest = ax.get_ylim()
        assert all(lowest <= y <= highest for bar in ax.patches for y in (bar.get_y(), bar.get_y() + bar.get_height()))
    assert max(ax.get_ylim()[1] for ax in figure.axes) > table[scores].to_numpy().max()


def test_titles_of_narrow_panels_have_lines_that_fit() -> None:
    groups = [("m", "compositional_add_sub"), ("m", "lcm")]
    assert group_title(groups[0], groups, 3.0) == "Compositional Add/Sub"
    assert group_title(groups[0], groups, 1.5) == "Compositional\nAdd/Sub"
    assert group_title(groups[0], [*groups, ("other", "lcm")], 1.5) == "Compositional\nAdd/Sub\nm"


def test_accuracy_has_no_panel_for_a_task_with_nothing_to_compare(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path, tasks=("lcm", "sequence"), methods=("lora_r2", "lora_r16"), n_checkpoints=2)
    table = method_accuracy.tidy(read_tables(study.accuracy(), "accuracy"))
    compared = table[(table["task"] == "lcm") | (table["method"] == "lora_r2")]
    assert [ax.get_title() for ax in method_accuracy.draw(compared, STYLE, LABELS).axes] == ["LCM"]
    alone = table[table["method"] == "lora_r2"]
    assert [ax.get_title() for ax in method_accuracy.draw(alone, STYLE, LABELS).axes] == ["LCM", "Sequence"]


def test_a_layer_without_change_is_not_marked(small: MadeUpStudy) -> None:
    layers = read_tables(small.layers(), "layers").assign(score_change=0.0)
    assert not layer_changes.tidy(layers, 1)["critical"].any()


def test_layer_certainty_shows_each_seed_and_the_mean_share(small: MadeUpStudy, tmp_path: Path) -> None:
    paths = small.critical_layers()
    table = drawn(tmp_path, "layer_certainty", {"circuit_lora_layers": paths})
    assert len(table) == 3 * 2 * 3  # policies, seeds, layers
    assert table["certainty"].value_counts().to_dict() == {"in": 6, "undecided": 12}
    raw = read_tables(paths, "critical_layers").query("policy == 'excess'")
    shown = table[table["policy"] == "excess"].groupby("layer")["in_top_mean"].first()
    assert shown.to_dict() == pytest.approx(raw.groupby("layer")["in_top"].mean().to_dict())
    counts = raw.groupby("layer")["critical"].sum()
    assert table[table["policy"] == "excess"].groupby("layer")["seeds_critical"].first().to_dict() == counts.to_dict()
    assert (table["seeds"] == 2).all()
    assert all(path.stat().st_size > 1000 for path in outputs(tmp_path).values())


@pytest.mark.parametrize(("n_layers", "seeds"), [(4, (0,)), (32, (0, 1))])
def test_layer_certainty_draws_few_and_many_layers(tmp_path: Path, n_layers: int, seeds: tuple[int, ...]) -> None:
    methods = ("circuit_lora_8_32",)
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=methods, seeds=seeds, n_layers=n_layers)
    table = layer_certainty.tidy(read_tables(study.critical_layers(), "critical_layers"))
    counts = table[table["policy"] == "score_change"].assign(credit="counts")
    for shown, titles in ((table, 3), (counts, 1)):
        figure = layer_certainty.draw(shown, STYLE, LABELS)
        assert len(figure.axes) == titles
        assert figure.axes[0].get_ylim() == (n_layers - 0.5, -0.5)
        marked = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == INK]
        assert len(marked) >= 2 * len(seeds)


def test_final_accuracy_is_the_last_checkpoints(small: MadeUpStudy, tmp_path: Path) -> None:
    paths = small.accuracy()
    table = drawn(tmp_path, "method_accuracy", {"accuracy": paths})
    table = table.query("statistic == 'mean'").set_index("method")
    raw = read_tables(paths, "accuracy").query("checkpoint == '02'").groupby("method")["accuracy"]
    for column, found in {"accuracy": raw.mean(), "sd": raw.std(), "lower": raw.min(), "upper": raw.max()}.items():
        assert table[column].to_dict() == pytest.approx((100 * found).to_dict())
    assert table.loc["circuit_lora_8_32", "trainable_parameters"] == 196_608


def test_final_accuracy_needs_the_number_of_parameters(small: MadeUpStudy) -> None:
    accuracy = read_tables(small.accuracy(), "accuracy").drop(columns="trainable_parameters")
    with pytest.raises(FigureDataError, match="trainable_parameters"):
        tidy.final_accuracy(accuracy)


def test_edge_changes_are_means_of_both_ways_to_compare(small: MadeUpStudy, tmp_path: Path) -> None:
    table = drawn(tmp_path, "edge_changes", {"edge_counts": small.edge_counts()})
    means = table.query("statistic == 'mean'").set_index(["method", "part", "change"]).sort_index()
    for part, wanted in (
        ("resampled prompts", {"kept": 40, "lost": 4, "gained": 6.5, "undecided": 30}),
        ("all prompts at once", {"kept": 50, "lost": 18, "gained": 20}),
    ):
        assert means.loc[("lora_r2", part), "value"].to_dict() == wanted
    gained = means.loc[("circuit_lora_8_32", "resampled prompts", "gained")]
    assert (gained["lower"], gained["upper"]) == (6, 7)
    assert all(path.stat().st_size > 1000 for path in outputs(tmp_path).values())


def test_edge_changes_are_drawn_where_nothing_is_in_a_circuit(small: MadeUpStudy) -> None:
    counts = read_tables(small.edge_counts(), "edge_counts")
    nothing = dict.fromkeys(["kept", "gained", "lost", "undecided", "in_both", "added", "removed"], 0)
    figure = edge_changes.draw(edge_changes.tidy(counts.assign(**nothing)), STYLE, LABELS)
    assert figure.axes[0].get_xlim()[1] > 0


def test_the_circuit_of_a_model_as_it_is_is_drawn_with_its_merged_edges(small: MadeUpStudy, tmp_path: Path) -> None:
    edges, nodes = (
        small.write(name, read_table(path, name), name, model="toy", task="own")
        for name, path in zip(("edges", "nodes"), small.circuit("00"), strict=True)
    )
    table = drawn(tmp_path, "circuit", {"base_edges": [edges], "base_nodes": [nodes]})
    kept = read_table(edges, "edges").query("in_circuit").groupby(["source", "target"])["score"].sum()
    found = table[table["part"] == "edge"].set_index(["source", "target"])["score"].sort_index()
    pd.testing.assert_series_equal(found.astype("float32"), kept.astype("float32").sort_index())
    drawn_nodes = table[table["part"] == "node"].set_index("node")["in_circuit"].astype(bool)
    assert drawn_nodes.to_dict() == read_table(nodes, "nodes").set_index("node")["in_circuit"].to_dict()
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_circuit_map_agrees_with_sets_of_edges_and_their_classes(small: MadeUpStudy, tmp_path: Path) -> None:
    (before_edges, before_nodes), (after_edges, after_nodes) = small.circuit("00"), small.circuit("02")
    edges_changed = small.edges_changed(before_edges, after_edges)
    reads = {
        "before_edges": [before_edges],
        "after_edges": [after_edges],
        "before_nodes": [before_nodes],
        "after_nodes": [after_nodes],
        "edges_changed": [edges_changed],
    }
    table = drawn(tmp_path, "circuit_before_after", reads)

    def edge_set(path: Path) -> set[tuple[str, str]]:
        kept = read_table(path, "edges").query("in_circuit")
        return set(zip(kept["source"], kept["target"], strict=True))

    edges = table[table["part"] == "edge"]
    for path, circuit in ((before_edges, "in_before"), (after_edges, "in_after")):
        rows = edges[edges[circuit].astype(bool)]
        assert set(zip(rows["source"], rows["target"], strict=True)) == edge_set(path)
    classes = read_table(edges_changed, "edges_changed").groupby(["source", "target"])["merged_change"].first()
    wanted = [classes[edge] for edge in zip(edges["source"], edges["target"], strict=True)]
    assert edges["status"].tolist() == wanted
    assert set(wanted) == {"kept", "gained", "lost", "undecided"}
    nodes = table[table["part"] == "node"].set_index("node")
    absent = ~(nodes["in_before"].astype(bool) | nodes["in_after"].astype(bool))
    assert ((nodes["status"] == "absent") == absent).all()
    assert nodes.loc["input", "y"] < nodes.loc["a0.h0", "y"] < nodes.loc["m0", "y"] < nodes.loc["logits", "y"]


def test_an_edge_that_few_resampled_circuits_hold_is_undecided_in_the_map(small: MadeUpStudy) -> None:
    (before, before_nodes), (after, after_nodes) = small.circuit("00"), small.circuit("02")
    changed = read_table(small.edges_changed(before, after), "edges_changed")
    shares = dict.fromkeys(["merged_included_before", "merged_included_after"], 0.0)
    tables = [read_table(path, "edges") for path in (before, after)]
    tables += [read_table(path, "nodes") for path in (before_nodes, after_nodes)]
    table = circuit_before_after.tidy(*tables, changed.assign(**shares, merged_change="outside"))
    assert set(table["status"]) <= {"undecided", "absent"}
    assert set(table.loc[table["part"] == "edge", "status"]) == {"undecided"}


def test_circuits_of_two_models_are_refused(small: MadeUpStudy) -> None:
    edges_path, nodes_path = small.circuit("00")
    edges, nodes = read_table(edges_path, "edges"), read_table(nodes_path, "nodes")
    changed = read_table(small.edges_changed(edges_path, edges_path), "edges_changed")
    with pytest.raises(FigureDataError, match="different graphs"):
        circuit_before_after.tidy(edges, edges, nodes, nodes.head(4), changed)
    with pytest.raises(FigureDataError, match="edges_changed: a table of another graph"):
        circuit_before_after.tidy(edges, edges, nodes, nodes, changed.head(4))


def test_the_same_tables_give_the_same_bytes(small: MadeUpStudy, tmp_path: Path) -> None:
    paths = small.accuracy()
    for folder in ("one", "two"):
        drawn(tmp_path / folder, "method_accuracy", {"accuracy": paths})
    for one, two in zip(outputs(tmp_path / "one").values(), outputs(tmp_path / "two").values(), strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_two_models_are_told_apart(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=("lora_r2",), models=("one", "two"), n_checkpoints=1)
    table = drawn(tmp_path, "method_accuracy", {"accuracy": study.accuracy()})
    assert set(table["model"]) == {"one", "two"}


def test_no_label_of_a_figure_ends_its_text_or_is_typeset_by_latex(tmp_path: Path) -> None:
    with mpl.rc_context({"text.usetex": True}), theme(STYLE):
        figure, axes = plt.subplots()
        axes.set_title("</text>--><script>alert(1)</script>")
        axes.set_xlabel(r"\input{/etc/passwd} \immediate\write18{touch x}")
        for fonts in ("path", "none"):
            with mpl.rc_context({"svg.fonttype": fonts}):
                save_figure(figure, tmp_path / "a.pdf", tmp_path / "a.svg", tmp_path / "a.png")
            ElementTree.fromstring((tmp_path / "a.svg").read_text())
            assert "<script" not in (tmp_path / "a.svg").read_text()


def test_of_a_large_circuit_the_strongest_edges_are_drawn_with_their_share_of_the_score() -> None:
    edges = pd.DataFrame({"score": [(-1.0) ** n * (1 if n < 400 else 0.1) for n in range(1000)]}).sample(
        frac=1, random_state=0
    )
    drawn = circuit_before_after.strongest_edges(edges, "score")
    assert sorted(drawn.index) == list(range(400))
    assert circuit_before_after.what_is_drawn(drawn, edges, "score").endswith("strongest 400, 87 % of |score|")
    few = edges.head(3)
    assert circuit_before_after.what_is_drawn(circuit_before_after.strongest_edges(few, "score"), few, "score") == ""
