"""Figures and tables of robustness, of where circuits change and of early signals: their numbers and drawings."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_tables import LABELS, METHODS, MadeUpStudy
from scipy import stats

import plot_figure
import write_table
from circuitdrift.config.figures import Figures
from circuitdrift.figures import early_signal, robustness, where_changes
from circuitdrift.figures.drift_reliability import interval_over_seeds
from circuitdrift.figures.layout import EMPTY
from circuitdrift.figures.style import theme
from circuitdrift.provenance import Provenance
from circuitdrift.schemas import SCHEMAS
from circuitdrift.storage import read_table, read_tables

STYLE = Figures(dpi=60)


@pytest.fixture
def study(tmp_path: Path) -> MadeUpStudy:
    methods = ("lora_r2", "lora_r16")
    return MadeUpStudy(tmp_path / "in", tasks=("add_sub_100", "lcm"), methods=methods, n_checkpoints=2)


def drawn(folder: Path, figure: str, reads: dict[str, list[Path]]) -> pd.DataFrame:
    """Draw a figure into a folder and read its table."""
    files = {ending: folder / f"{figure}.{ending}" for ending in ("pdf", "svg", "png", "parquet")}
    plot_figure.main(figure, reads, files, {}, METHODS, STYLE, Provenance.detached())
    assert all(path.stat().st_size > 1000 for path in files.values())
    return read_table(files["parquet"], "figure")


def written(folder: Path, table: str, reads: dict[str, list[Path]], **settings: object) -> tuple[pd.DataFrame, str]:
    """Write a table into a folder; its numbers and its Markdown."""
    files = {ending: folder / f"{table}.{ending}" for ending in ("csv", "md", "tex", "html")}
    write_table.main(table, reads, settings, METHODS, **files)
    return pd.read_csv(files["csv"]), files["md"].read_text()


# ----------------------------------------------------------------------------------------- robustness


def robustness_rows(highest: float) -> list[tuple[object, ...]]:
    """Similarity falls by .1 for each tenth that is replaced, intervals reach .05; splits have half of the highest."""
    levels = product(("edge", "node"), ("jaccard", "pearson"))
    return [
        (*control, *point, value, value - 0.05, value + 0.05)
        for point in levels
        for *control, value in [
            *(("perturbed", share / 10, 20, 160, highest - 0.1 * share) for share in (1, 5, 9)),
            ("disjoint_splits", np.nan, 20, 30, highest / 2),
        ]
    ]


def write_robustness(study: MadeUpStudy) -> tuple[list[Path], list[Path]]:
    """The base model from .95, seed s of a run from .9 - .02 s; untrained models of two seeds from .6 and .7."""
    columns = SCHEMAS["robustness"].names[1:]
    paths, untrained = [], []
    for run in study.runs():
        ends = {"00": 0.95, study.checkpoints[-1]: 0.9 - 0.02 * int(run["seed"])}
        frames = [pd.DataFrame(robustness_rows(high), columns=columns).assign(checkpoint=c) for c, high in ends.items()]
        paths.append(study.write("robustness", pd.concat(frames), "robustness", **run))
    for model, task in product(study.models, study.tasks):
        frames = [
            pd.DataFrame(robustness_rows(0.6 + seed / 10), columns=columns).assign(untrained_seed=seed)
            for seed in range(2)
        ]
        table = pd.concat(frames).query("control == 'disjoint_splits'")
        untrained.append(study.write("untrained_robustness", table, "untrained_robustness", model=model, task=task))
    return paths, untrained


def test_no_interval_of_a_similarity_exceeds_1() -> None:
    rows = pd.DataFrame(robustness_rows(0.95), columns=SCHEMAS["robustness"].names[1:])
    rows = rows.assign(
        model="m", task="t", method="lora_r2", seed=0, checkpoint="04", similarity=0.98, lower=0.9, upper=1.06
    )
    found = robustness.over_seeds(rows, [])
    assert set(found["upper"]) == {1.0}
    assert found["lower"].tolist() == pytest.approx([0.9] * len(found))


def test_robustness_shows_the_base_model_once_and_means_over_seeds(study: MadeUpStudy, tmp_path: Path) -> None:
    paths, untrained = write_robustness(study)
    table = drawn(tmp_path, "robustness", {"robustness": paths, "untrained_robustness": untrained})
    assert set(table["measure"]) == {"jaccard"}
    rows = table[(table["level"] == "edge") & (table["task"] == "lcm")].set_index(["method", "control"])
    assert rows.loc[("base", "perturbed"), "similarity"].tolist() == pytest.approx([0.85, 0.45, 0.05])
    assert rows.loc[("base", "perturbed"), "seeds"].tolist() == [1, 1, 1]
    assert rows.loc[("base", "perturbed"), "lower"].tolist() == pytest.approx([0.80, 0.40, 0.0])
    assert rows.loc[("lora_r2", "perturbed"), "similarity"].tolist() == pytest.approx([0.79, 0.39, -0.01])
    assert rows.loc[("lora_r2", "perturbed"), "share"].tolist() == [0.1, 0.5, 0.9]
    of_seeds = pd.DataFrame({"excess": [0.45, 0.44]}).assign(
        lower=lambda f: f - 0.05, upper=lambda f: f["excess"] + 0.05
    )
    splits = rows.loc[[("lora_r2", "disjoint_splits")]].iloc[0]
    assert (splits["lower"], splits["upper"]) == pytest.approx(interval_over_seeds(of_seeds))
    assert rows.loc[[("untrained", "disjoint_splits")], "similarity"].tolist() == pytest.approx([0.325])
    assert ("untrained", "perturbed") not in rows.index


def test_the_table_of_robustness_names_circuits_and_prompts(study: MadeUpStudy, tmp_path: Path) -> None:
    paths, untrained = write_robustness(study)
    numbers, text = written(tmp_path, "robustness", {"robustness": paths, "untrained_robustness": untrained})
    assert set(numbers["measure"]) == {"jaccard", "pearson"}
    rows = [line for line in text.splitlines() if line.startswith("| LCM")]
    assert any("| base model | edges | 1 | 0.850 [0.80, 0.90] | 0.450 [0.40, 0.50] |" in row for row in rows)
    assert any(
        f"| untrained models | nodes | 2 | {EMPTY} | {EMPTY} | {EMPTY} | 0.325 " in row and "(30 prompts)" in row
        for row in rows
    )
    assert sum("LoRA r=16, last checkpoint" in row for row in rows) == 2


def test_robustness_without_untrained_models_and_of_nothing(study: MadeUpStudy, tmp_path: Path) -> None:
    paths, _ = write_robustness(study)
    table = drawn(tmp_path, "robustness", {"robustness": paths, "untrained_robustness": []})
    assert set(table["method"]) == {"base", "lora_r2", "lora_r16"}
    nothing = read_tables(paths, "robustness").head(0)
    with theme(STYLE):
        robustness.draw(robustness.tidy(nothing, []), STYLE, LABELS)
    assert "nothing was measured" in robustness.table(nothing, [], LABELS).layout.iloc[0, 0]


# ----------------------------------------------------------------------------------------- where circuits change


def write_where(study: MadeUpStudy) -> list[Path]:
    """Layer l adds l + 1 + s and removes 2 parts; the base circuit holds 5 of 10 nodes and 30 of 120 edges in each."""
    paths = []
    for run in study.runs():
        rows = [
            (layer, level, held, possible, possible - held, layer + 1 + int(run["seed"]), 2, 3.5)
            for level, held, possible in (("node", 5, 10), ("edge", 30, 120))
            for layer in range(study.n_layers)
        ]
        table = pd.DataFrame(rows, columns=SCHEMAS["where"].names)
        paths.append(study.write("where", table, "where", **run))
    return paths


def test_where_changes_are_means_over_seeds_with_saturation(study: MadeUpStudy, tmp_path: Path) -> None:
    paths = write_where(study)
    table = drawn(tmp_path, "where_changes", {"where": paths}).query("statistic == 'mean' and method == 'lora_r2'")
    edges = table[(table["level"] == "edge") & (table["task"] == "lcm")].sort_values("layer")
    assert edges["added"].tolist() == pytest.approx([1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
    assert edges["saturation"].tolist() == pytest.approx([0.25] * 6)
    numbers, text = written(tmp_path, "where_changes", {"where": paths})
    assert "| LCM | LoRA r=2 | edges | 1 | 30 of 120 | 25.0 | 2.5 | 3.5 | 2.0 |" in text
    assert len(numbers.query("statistic == 'seed'")) == 2 * 2 * 2 * 2 * 6


def test_layers_are_categories_with_bars_that_touch_no_other_layer(study: MadeUpStudy) -> None:
    table = where_changes.tidy(read_tables(write_where(study), "where"))
    with theme(STYLE):
        figure = where_changes.draw(table, STYLE, LABELS)
        ax = figure.axes[2]  # below, where layers are named
        middles = sorted(bar.get_x() + bar.get_width() / 2 for bar in ax.patches)
        assert [label.get_text() for label in ax.get_xticklabels()] == list("012345")
        assert all(abs(middle - round(middle)) < 0.4 for middle in middles)
        assert len(middles) == 6 * 2 * 2  # layers, methods, added and removed
        assert not ax.lines[1:]  # nothing joins the layers: the one line is zero


def test_the_table_of_changed_nodes(study: MadeUpStudy, tmp_path: Path) -> None:
    paths = []
    for run in study.runs():
        numbers = (40, 10 + 2 * int(run["seed"]), 12.0, 11.0, 13.0, 20.0)
        table = pd.DataFrame([numbers], columns=SCHEMAS["node_induced"].names)
        paths.append(study.write("node_induced", table, "node_induced", **run))
    numbers, text = written(tmp_path, "node_induced", {"node_induced": paths})
    assert "| LCM | LoRA r=2 | 2 | 40.0 | 11.0 | 12.0 [11.0, 13.0] | 20.0 |" in text
    assert numbers["node_induced"].tolist() == [11.0] * 4


# ----------------------------------------------------------------------------------------- early signals


VALUES = {
    ("add_sub_100", "lora_r2", 0): ([6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1]),
    ("add_sub_100", "lora_r2", 1): ([6, 5, 4, 3, 2, 1], [6, 4, 5, 3, 2, 1]),
    ("lcm", "lora_r2", 0): ([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]),
    ("lcm", "lora_r2", 1): ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
    ("add_sub_100", "lora_r16", 0): ([6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6]),
    ("add_sub_100", "lora_r16", 1): ([6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6]),
}
"""Changes of six layers after one epoch and after two."""


def write_orders(study: MadeUpStudy) -> list[Path]:
    paths = []
    for (task, method, seed), changes in VALUES.items():
        frames = [
            pd.DataFrame({"layer": range(6), "value": np.array(values, dtype=float)}).assign(
                checkpoint=f"{place:02d}", epoch=float(place), policy="score_change", rank_order=range(1, 7)
            )
            for place, values in enumerate(changes, start=1)
        ]
        run = {"model": "tiny-neox", "task": task, "method": method, "seed": str(seed)}
        paths.append(study.write("layer_orders", pd.concat(frames), "layer_orders", **run))
    return paths


def test_early_signals_compare_epochs_ranks_tasks_and_seeds(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers, text = written(tmp_path, "early_signal", {"layer_orders": write_orders(study)}, top_layers=2)
    rows = numbers.set_index(["comparison", "task", "method"]).to_dict("index")
    swapped = stats.spearmanr([6, 5, 4, 3, 2, 1], [6, 4, 5, 3, 2, 1]).statistic
    epochs = rows[early_signal.EPOCH, "add_sub_100", "lora_r2"]
    assert epochs["correlation"] == pytest.approx((1 + swapped) / 2)
    assert epochs["overlap"] == pytest.approx((2 + 1) / 2)
    half = stats.t.ppf(0.975, 1) * np.std([2, 1], ddof=1) / np.sqrt(2)
    assert (epochs["overlap_lower"], epochs["overlap_upper"]) == pytest.approx((1.5 - half, 1.5 + half))
    assert [row["expected"] for row in rows.values()] == pytest.approx([4 / 6] * len(rows))
    ranks = rows[early_signal.RANKS, "add_sub_100", "lora_r2 and lora_r16"]
    assert (ranks["overlap"], ranks["seeds"], ranks["pairs"]) == (0, 2, 2)
    assert ranks["correlation"] == pytest.approx((-1 - swapped) / 2)
    tasks = rows[early_signal.TASKS, "all", "lora_r2"]
    assert tasks["correlation"] == pytest.approx((1 - swapped) / 2)
    seeds = rows[early_signal.SEEDS, "lcm", "lora_r2"]
    assert (seeds["correlation"], seeds["pairs"], seeds["seeds"]) == (pytest.approx(-1), 1, 2)
    assert np.isnan(seeds["correlation_lower"])
    assert "LoRA r=2 and LoRA r=16" in text
    assert epochs["overlap_upper"] > 2
    assert "1.50 [0.00, 2.00] of 2" in text
    assert "| tasks | LoRA r=2 | every two |" in text


def test_several_pairs_of_tasks_are_one_value_of_their_seed() -> None:
    pairs = pd.DataFrame({"seed_a": [0, 0, 1, 1], "seed_b": [0, 0, 1, 1], "layers": 6, "expected": 0.5})
    pairs = pairs.assign(correlation=[0.2, 0.4, 0.6, 0.8], overlap=[1, 1, 2, 2])
    found = early_signal.over_seeds(pairs)
    half = stats.t.ppf(0.975, 1) * np.std([0.3, 0.7], ddof=1) / np.sqrt(2)
    assert found["correlation_upper"] - found["correlation"] == pytest.approx(half)
    assert (found["pairs"], found["seeds"]) == (4, 2)


def test_random_orders_have_no_early_signal(study: MadeUpStudy) -> None:
    """Of many runs with random orders, the mean overlap is that by chance, and no correlation is left."""
    generator = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"layer": range(6), "value": generator.permutation(np.arange(1.0, 7))})
        .assign(
            checkpoint=f"{place:02d}",
            epoch=float(place),
            policy="score_change",
            model="m",
            task="lcm",
            method="lora_r2",
        )
        .assign(seed=seed)
        for seed in range(60)
        for place in (1, 2)
    ]
    pairs = pd.DataFrame(early_signal.compared_pairs(pd.concat(frames), 2, LABELS))
    found = early_signal.over_seeds(pairs[pairs["comparison"] == early_signal.EPOCH])
    assert found["seeds"] == 60
    assert found["expected"] == pytest.approx(2 / 3)
    assert found["overlap_lower"] < 2 / 3 < found["overlap_upper"]
    assert found["correlation_lower"] < 0 < found["correlation_upper"]


def test_one_run_has_nothing_to_compare(study: MadeUpStudy) -> None:
    one = read_tables(write_orders(study), "layer_orders").query("task == 'lcm' and seed == 0 and checkpoint == '02'")
    assert "nothing to compare" in early_signal.table(one, 2, LABELS).layout.iloc[0, 0]
