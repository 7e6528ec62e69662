"""CircuitLoRA's layers among all sets of layers: the table by value, the figure drawn, and what is refused."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import pandas as pd
import pytest
from pydantic import TypeAdapter

import plot_figure
import write_table
from circuitdrift.config.figures import Figures
from circuitdrift.config.methods import MethodConfig
from circuitdrift.figures import critical_layers, layer_sets, method_comparisons
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.tidy import FigureDataError
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table
from circuitdrift.storage import write_table as store

_RANKS = {"rank": 2, "critical_rank": 8, "critical_layers": 2}
SETS = {f"layers_{a}_{b}": [a, b] for a, b in combinations(range(4), 2)}
METHODS = TypeAdapter(dict[str, MethodConfig]).validate_python(
    {
        "lora": {"kind": "lora", "rank": 2},
        "circuit_lora": {"kind": "circuit_lora", "phase_1": "lora", **_RANKS},
        **{name: {"kind": "random_lora", **_RANKS, "include_layers": own} for name, own in SETS.items()},
    }
)
LABELS = MethodLabels(METHODS)
REFERENCE = {"circuit_lora": SETS}
# Seed 0 drifts most in layers 0 and 1, seed 1 in layers 0 and 2. Later pairs are better, so that 0 and 1 are worst.
DRIFT = {0: [8.0, 4.0, 2.0, 1.0], 1: [8.0, 2.0, 4.0, 1.0]}
RUNS = list(product(("lcm", "compositional"), (0, 1)))


def accuracy_tables() -> pd.DataFrame:
    rows = [
        (task, method, seed, (place if method in SETS else 0) / 10 + 0.1)
        for (task, seed), (place, method) in product(RUNS, enumerate([*SETS, "circuit_lora"]))
    ]
    table = pd.DataFrame(rows, columns=["task", "method", "seed", "accuracy"]).assign(model="m", checkpoint="02", n=100)
    bounds = {"lower": table["accuracy"] - 0.1, "upper": table["accuracy"] + 0.1, "split": "test", "step": 1}
    return table.assign(**bounds, trainable_parameters=100, trainable_share=0.1)


def layer_tables() -> pd.DataFrame:
    tables = []
    for task, seed in RUNS:
        one = pd.DataFrame({"layer": range(4), "value": DRIFT[seed], "policy": "score_change"})
        order = one["value"].rank(ascending=False).astype(int)
        one = one.assign(rank_order=order, critical=order <= 2, model="m", task=task, name="circuit_lora", seed=seed)
        one = one.assign(credit="source", above_threshold=False, in_top=0.5, lower=0.0, upper=20.0)
        normalised = one.assign(policy="score_change_normalised", critical=order > 2)
        given = one.assign(policy="random", name="layers_0_1", critical=[True, True, False, False])
        tables += [one, normalised, given]
    return pd.concat(tables, ignore_index=True)


def test_each_set_is_a_row_with_its_drift_and_the_chosen_ones_marked() -> None:
    table = layer_sets.tidy(accuracy_tables(), layer_tables(), REFERENCE, LABELS)
    assert len(table) == 4 * 6
    one = table[(table["task"] == "lcm") & (table["seed"] == 1)].set_index("layers")
    assert one.index.tolist() == ["0, 1", "0, 2", "0, 3", "1, 2", "1, 3", "2, 3"]
    assert one["drift"].tolist() == [10, 12, 9, 6, 3, 5]
    assert one.index[one["chosen"]].tolist() == ["0, 2"]
    assert one["accuracy"].tolist() == pytest.approx([10, 20, 30, 40, 50, 60])


def test_places_and_p_values_are_those_counted_by_hand() -> None:
    made = layer_sets.table(accuracy_tables(), layer_tables(), REFERENCE, LABELS)
    tests = made.tidy.set_index(["task", "seeds"])
    assert tests.index.tolist() == [
        ("lcm", "0"), ("lcm", "1"), ("lcm", "all"),
        ("compositional", "0"), ("compositional", "1"), ("compositional", "all"), ("all tasks", "all"),
    ]  # fmt: skip
    assert tests.loc[("lcm", "0"), ["layers", "accuracy", "place", "p_value"]].tolist() == ["0, 1", 10, 6, 1]
    assert tests.loc[("lcm", "1"), ["layers", "place", "p_value"]].tolist() == ["0, 2", 5, pytest.approx(5 / 6)]
    both = tests.loc[("lcm", "all")]
    assert (both["layers"], both["accuracy"], both["place"]) == ("0, 1; 0, 2", pytest.approx(15), 5.5)
    # Two sets that share one layer are worth 10 + 20 here, and no other such two are worth as little.
    assert both["p_value"] == 1
    assert both[["best", "median", "worst"]].tolist() == pytest.approx([60, 35, 10])
    assert both["correlation"] < -0.8
    assert both["correlation_p_value"] > 0.9
    assert (made.layout["Layers"] == tests["layers"].tolist()).all()
    assert "never below 0.167" in made.note


def test_files_are_written_and_the_figure_shows_the_tidy_table(tmp_path: Path) -> None:
    origin = {"model": "m"}
    reads: dict[str, list[Path]] = {"accuracy": [], "critical_layers": []}
    for name, table in (("accuracy", accuracy_tables()), ("critical_layers", layer_tables())):
        reads[name].append(tmp_path / f"{name}.parquet")
        store(reads[name][0], table, name, Provenance.detached(**origin))
    files = {ending: tmp_path / f"figure.{ending}" for ending in ("pdf", "svg", "png", "parquet")}
    settings = {"layer_sets": REFERENCE}
    plot_figure.main("layer_sets", reads, files, settings, METHODS, Figures(dpi=60), Provenance.detached())
    drawn = read_table(files["parquet"], "figure")
    pd.testing.assert_frame_equal(drawn, layer_sets.tidy(accuracy_tables(), layer_tables(), REFERENCE, LABELS))
    assert all(path.stat().st_size > 1000 for path in files.values())
    written = {ending: tmp_path / f"table.{ending}" for ending in ("csv", "md", "tex", "html")}
    write_table.main("layer_sets", reads, settings, METHODS, **written)
    assert (
        "| LCM | CircuitLoRA (2, 8) | 0 | 0, 1 | 10.0 | 60.0, 35.0, 10.0 | 6.0 of 6 | 1.000 |"
        in written["md"].read_text()
    )


def test_a_missing_run_and_a_model_with_other_layers_are_refused() -> None:
    accuracy, layers = accuracy_tables(), layer_tables()
    lacking = (accuracy["method"] == "layers_1_2") & (accuracy["seed"] == 1)
    with pytest.raises(FigureDataError, match="no run of layers_1_2 on lcm with seed 1"):
        layer_sets.tidy(accuracy[~lacking], layers, REFERENCE, LABELS)
    deeper = layers[layers["layer"] == 3].assign(layer=4, critical=False)
    with pytest.raises(FigureDataError, match="m has 5 layers, but the study trains 6 sets of 2"):
        layer_sets.tidy(accuracy, pd.concat([layers, deeper]), REFERENCE, LABELS)


def test_sets_are_neither_compared_pair_by_pair_nor_listed_as_ranked_layers() -> None:
    accuracy = accuracy_tables()
    predictions = accuracy[["model", "task", "method", "seed", "checkpoint"]].assign(example_id=0, correct=True)
    logs = predictions[["model", "task", "method", "seed"]].assign(flops=1.0)
    compared = method_comparisons.table(accuracy, predictions, logs, {}, {}, {}, LABELS).tidy
    assert len(compared) == 2 * 7 * 6 / 2
    assert method_comparisons.table(accuracy, predictions, logs, REFERENCE, {}, {}, LABELS).tidy.empty
    assert set(critical_layers.table(layer_tables(), REFERENCE, LABELS).tidy["name"]) == {"circuit_lora"}
    assert "layers_0_1" in set(critical_layers.table(layer_tables(), {}, LABELS).tidy["name"])
