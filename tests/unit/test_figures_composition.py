"""Figures and tables of compositional tasks: their tidy numbers, one seed or several, and circuits too small."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from figure_tables import LABELS, METHODS, MadeUpStudy

import plot_figure
import write_table
from circuitdrift.config.figures import Figures
from circuitdrift.figures import overlaps, union_faithfulness
from circuitdrift.figures.labels import circuit_label
from circuitdrift.figures.style import theme
from circuitdrift.figures.tidy import FigureDataError
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, read_tables

STYLE = Figures(dpi=60)
SUB_TASKS = {"compositional": ["inner", "outer"]}


def made_up(folder: Path, seeds: tuple[int, ...] = (0, 1), methods: tuple[str, ...] = ("lora_r2",)) -> MadeUpStudy:
    return MadeUpStudy(folder / "in", ("compositional",), methods, seeds, n_checkpoints=2)


def drawn(folder: Path, figure: str, reads: dict[str, list[Path]], **settings: object) -> pd.DataFrame:
    files = {ending: folder / f"figure.{ending}" for ending in ("pdf", "svg", "png", "parquet")}
    plot_figure.main(figure, reads, files, settings, METHODS, STYLE, Provenance.detached())
    assert all(path.stat().st_size > 1000 for path in files.values())
    return read_table(folder / "figure.parquet", "figure")


def written(folder: Path, name: str, reads: dict[str, list[Path]], **settings: object) -> tuple[pd.DataFrame, str]:
    csv, md, tex, html = (folder / f"table.{ending}" for ending in ("csv", "md", "tex", "html"))
    write_table.main(name, reads, settings, METHODS, csv, md, tex, html)
    return pd.read_csv(csv), md.read_text()


def cells(markdown: str) -> pd.DataFrame:
    """The layout of a table, from its Markdown."""
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return pd.DataFrame(lines[2:], columns=lines[0])


def test_faithfulness_of_unions_is_that_of_the_last_checkpoint_and_the_mean_of_the_draws(tmp_path):
    study = made_up(tmp_path, methods=("lora_r2", "lora_r16"))
    table = drawn(tmp_path, "union_faithfulness", {"union_faithfulness": study.union_faithfulness()})
    assert set(table["method"]) == {"lora_r2", "lora_r16"}
    assert set(table["measure"]) == {"kl_model_circuit", "kl_from_corrupted"}
    at = table[(table["size_fraction"] == 0.05) & (table["measure"] == "kl_from_corrupted")]
    at = at[at["method"] == "lora_r2"].set_index(["circuit", "statistic"])
    means = at.xs("mean", level="statistic")[["value", "lower", "upper", "seeds"]]
    assert means.loc["union"].tolist() == pytest.approx([80.5, 80, 81, 2])
    assert means.loc["random_union"].tolist() == pytest.approx([-4.5, -5, -4, 2])
    assert at.loc[("union", "seed"), "value"].tolist() == pytest.approx([80, 81])


def test_one_seed_has_its_own_interval_and_the_range_of_its_draws(tmp_path):
    paths = made_up(tmp_path, seeds=(0,)).union_faithfulness(unrelated=False)
    table = drawn(tmp_path, "union_faithfulness", {"union_faithfulness": paths})
    means = table.query("statistic == 'mean' and size_fraction == 0.05 and measure == 'kl_model_circuit'")
    means = means.set_index("circuit")[["value", "lower", "upper"]]
    assert means.loc["union"].tolist() == pytest.approx([80, 77, 82])
    assert means.loc["random_union"].tolist() == pytest.approx([-5, -10, 0])
    assert "unrelated_union" not in means.index


def test_undefined_faithfulness_is_left_out_and_none_at_all_is_an_error(tmp_path):
    table = read_tables(made_up(tmp_path).union_faithfulness(), "union_faithfulness")
    table.loc[table["circuit"] == "union", "faithfulness"] = float("nan")
    assert "union" not in set(union_faithfulness.tidy(table)["circuit"])
    with pytest.raises(FigureDataError, match="no defined KL"):
        union_faithfulness.tidy(table.assign(faithfulness=float("nan")))


def test_the_table_of_faithfulness_has_published_numbers_beside_its_own(tmp_path):
    reads = {"union_faithfulness": made_up(tmp_path).union_faithfulness()}
    numbers, text = written(tmp_path, "union_faithfulness", reads)
    assert set(numbers["checkpoint"]) == {0, 2}
    published = numbers.dropna(subset="published")
    assert set(published["metric"]) == {"kl_from_corrupted"}
    found = published.groupby(["circuit", "size_fraction"])["published"].first()
    assert found.to_dict() == {
        ("own", 0.05): 96.86,
        ("union", 0.01): 67.4,
        ("union", 0.02): 79.4,
        ("union", 0.05): 89.18,
        ("union", 0.1): 89.7,
    }
    rows = cells(text).set_index(["Measure", "Edges (%)"])
    row = rows.loc[("From corrupted (paper)", "5")]
    assert row["Own circuit"] == "90.5 ± 0.7"
    assert row["Union of random circuits"] == "-4.5 ± 0.7"
    assert row["Union less own"] == "-10.0 [-10.0, -10.0]"
    assert row["Published, Pythia-1.4B"] == "96.9 / 89.2"
    assert rows.loc[("To the model", "5"), "Published, Pythia-1.4B"] == "\N{EN DASH}"
    assert rows.loc[("From corrupted (paper)", "1"), "Published, Pythia-1.4B"] == "\N{EN DASH} / 67.4"
    _, text = written(tmp_path, "union_faithfulness", {"union_faithfulness": reads["union_faithfulness"][:1]})
    row = cells(text).set_index(["Measure", "Edges (%)"]).loc[("To the model", "5")]
    assert (row["Own circuit"], row["Union less own"]) == ("90.0", "-10.0 [-15.0, -5.0]")


def test_overlaps_of_the_last_checkpoint_by_pair_beside_chance(tmp_path):
    table = drawn(tmp_path, "overlaps", {"overlaps": made_up(tmp_path).overlaps()}, sub_tasks=SUB_TASKS)
    means = table[table["statistic"] == "mean"].set_index(["pair", "k"])
    assert {pair: means.loc[(pair, 100), "value"] for pair in overlaps.PAIRS} == pytest.approx(
        {"union": 70.5, "intersection": 50.5, "add_sub": 60.5, "mul_div": 40.5, "sub_tasks": 30.5}
    )
    assert means["expected"].xs(200, level="k").unique().tolist() == [40]
    assert ("intersection", 300) not in means.index
    assert set(means["seeds"]) == {2}


def test_circuits_too_small_for_any_k_leave_an_empty_figure_and_table(tmp_path):
    paths = made_up(tmp_path).overlaps(sizes=())
    assert drawn(tmp_path, "overlaps", {"overlaps": paths}, sub_tasks=SUB_TASKS).empty
    _, text = written(tmp_path, "overlaps", {"overlaps": paths}, sub_tasks=SUB_TASKS)
    assert "the circuits have fewer edges than the smallest k" in text


def test_the_table_of_overlaps_has_published_numbers_beside_its_own(tmp_path):
    reads = {"overlaps": made_up(tmp_path, seeds=(0, 2)).overlaps()}
    numbers, text = written(tmp_path, "overlaps", reads, sub_tasks=SUB_TASKS)
    published = numbers.dropna(subset="published").groupby(["pair", "k"])["published"].first()
    assert published.to_dict() == {("union", 100): 69, ("sub_tasks", 100): 51}
    rows = cells(text).set_index("k")
    assert rows.loc["100"].tolist()[2:] == [
        *("71.0 ± 1.4", "51.0 ± 1.4", "61.0 ± 1.4", "41.0 ± 1.4", "31.0 ± 1.4"),
        *("10.0", "69 / 51"),
    ]
    assert rows.loc["300", "Own, intersection"] == rows.loc["300", "Published, Pythia-1.4B"] == "\N{EN DASH}"


def test_a_single_run_has_no_title_and_several_say_what_tells_them_apart(tmp_path):
    for methods, titles in ((("lora_r2",), [""]), (("lora_r2", "lora_r16"), ["LoRA r=2", "LoRA r=16"])):
        tables = read_tables(made_up(tmp_path, methods=methods).union_faithfulness(), "union_faithfulness")
        with theme(STYLE):
            figure = union_faithfulness.draw(union_faithfulness.tidy(tables), STYLE, LABELS)
            columns = len(methods)
            assert [ax.get_title() for ax in figure.axes[:columns]] == titles
            assert figure.get_figwidth() == pytest.approx(3.3 * columns)
            plt.close(figure)


def test_more_than_three_runs_take_several_rows_of_panels(tmp_path):
    methods = ("lora_r2", "lora_r8", "lora_r16", "full")
    tables = read_tables(made_up(tmp_path, methods=methods).overlaps(), "overlaps")
    with theme(STYLE):
        figure = overlaps.draw(overlaps.tidy(tables, SUB_TASKS), STYLE, LABELS)
        shown = [ax for ax in figure.axes if ax.get_visible()]
        assert sorted(ax.get_title() for ax in shown) == sorted(map(LABELS.of, methods))
        assert [ax.get_ylabel() for ax in shown] == ["Edges shared", "", "", "Edges shared"]
        assert figure.get_figwidth() == pytest.approx(7.0)
        plt.close(figure)


def test_circuits_have_names_and_sub_tasks_their_own():
    assert [circuit_label(name) for name in ("own", "random_union", "compositional_mul_div")] == [
        "Own circuit",
        "Union of random circuits",
        "Compositional Mul/Div",
    ]
