"""The list of figures and tables: what each says of itself is true of its module, and each has a caption."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import circuitdrift
from circuitdrift.config.learning_rates import LearningRateSearch
from circuitdrift.config.reading import load_study
from circuitdrift.figures import catalogue
from circuitdrift.figures.modules import module_of
from circuitdrift.study import Study, read_study

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = read_study(ROOT / "config.yaml")
LISTED = [*catalogue.FIGURES, *catalogue.TABLES]
BESIDE_FILES_AND_SETTINGS = {"table", "style", "labels"}


def keywords(*functions: object) -> set[str]:
    return {name for function in functions for name in inspect.signature(function).parameters}


@pytest.mark.parametrize("figure", catalogue.FIGURES, ids=lambda figure: figure.name)
def test_a_figure_takes_what_the_list_says(figure):
    module = module_of(figure.name)
    assert set(figure.reads) <= keywords(module.tidy)
    named = keywords(module.tidy, module.draw) - BESIDE_FILES_AND_SETTINGS
    assert named == {*figure.reads, *figure.settings}


@pytest.mark.parametrize("table", catalogue.TABLES, ids=lambda table: table.name)
def test_a_table_takes_what_the_list_says(table):
    assert keywords(module_of(table.name).table) - {"labels"} == {*table.reads, *table.settings}


def test_every_figure_and_table_has_a_caption():
    wanted = {f"{figure.name}.rst" for figure in catalogue.FIGURES}
    wanted |= {f"table_{table.name}.rst" for table in catalogue.TABLES}
    assert {path.name for path in (ROOT / "docs" / "captions").glob("*.rst")} == {*wanted, "workflow.rst"}


def test_the_report_has_its_parts_in_the_order_of_the_argument():
    introduction = (ROOT / "docs" / "captions" / "workflow.rst").read_text()
    parts = [f"{place:02} {category}" for place, category in enumerate(catalogue.CATEGORIES, start=1)]
    assert sorted(parts) == parts  # Snakemake sorts by name
    assert [part for part in parts if f"\n{part} " not in introduction] == []
    assert [entry.name for entry in LISTED if entry.heading not in parts] == []


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: f"{type(entry).__name__}-{entry.name}")
def test_each_caption_says_which_command_made_the_result(entry):
    prefix = "" if isinstance(entry, catalogue.FigureEntry) else "table_"
    caption = (ROOT / "docs" / "captions" / f"{prefix}{entry.name}.rst").read_text()
    assert caption.endswith("\n\nMade by ``snakemake {{ snakemake.output[0] }}`` with the study's config.\n")


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: f"{type(entry).__name__}-{entry.name}")
def test_what_an_entry_reads_and_takes_is_known(entry):
    files = {name: catalogue.files(entry, name, DEFAULT) for name in entry.reads}
    assert set(catalogue.settings(entry, DEFAULT)) == set(entry.settings)
    if entry in catalogue.of_study(LISTED, DEFAULT):
        assert all(found for name, found in files.items() if name not in entry.may_lack)
    assert set(entry.may_lack) <= set(entry.reads)


def test_a_study_without_runs_has_neither_figures_nor_tables():
    assert catalogue.of_study(LISTED, Study(load_study({}, Path(), "empty.yaml"))) == []


def test_learning_rates_are_tabulated_where_they_are_searched_for():
    searching = DEFAULT.config.model_copy(update={"learning_rate_search": LearningRateSearch(rates=(0.5, 1.0))})
    names = [
        [table.name for table in catalogue.of_study(catalogue.TABLES, study)] for study in (DEFAULT, Study(searching))
    ]
    assert ["learning_rates" in found for found in names] == [False, True]


def test_each_scoring_benchmark_has_its_run():
    (cost,) = [table for table in catalogue.TABLES if table.name == "training_cost"]
    settings = catalogue.settings(cost, DEFAULT)
    for paths, runs in (("benchmarks", "benchmarked"), ("scoring_benchmarks", "scored")):
        pairs = zip(catalogue.files(cost, paths, DEFAULT), settings[runs], strict=True)
        assert all(f"/{run['model']}/{run['task']}/" in path for path, run in pairs)
    assert {run["method"] for run in settings["scored"]} == {"lora_r2"}


@pytest.mark.parametrize("name", ["training_cost", "method_comparisons", "verdicts"])
def test_tables_that_count_phase_1_know_the_tasks_that_a_union_needs(name):
    study = read_study(ROOT / "configs" / "tiny_quick.yaml")
    (table,) = [table for table in catalogue.TABLES if table.name == name]
    sub_tasks = {"compositional": ["compositional_add_sub", "compositional_mul_div"]}
    assert catalogue.settings(table, study)["united"] == {"circuit_lora_2_8_union": sub_tasks}


def test_the_list_is_light():
    """The Snakefile imports it at each parsing."""
    code = "import sys; from circuitdrift.figures import catalogue; print(*sys.modules)"
    folder = Path(circuitdrift.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert not {"torch", "pandas", "matplotlib", "seaborn"} & set(result.stdout.split())


@pytest.mark.parametrize(
    ("changes", "shown", "untrained"),
    [
        ({}, True, True),
        ({"perturbed_draws": 0}, True, True),
        ({"disjoint_splits": 0}, True, False),
        ({"untrained": 0}, True, False),
        ({"perturbed_draws": 0, "disjoint_splits": 0}, False, False),
    ],
)
def test_robustness_is_shown_where_it_is_measured(changes, shown, untrained):
    drift = DEFAULT.config.drift.model_copy(update=changes)
    study = Study(DEFAULT.config.model_copy(update={"drift": drift}))
    for listed in (catalogue.FIGURES, catalogue.TABLES):
        found = [entry for entry in catalogue.of_study(listed, study) if entry.name == "robustness"]
        assert bool(found) == shown
        assert all(bool(catalogue.files(entry, "untrained_robustness", study)) == untrained for entry in found)


def test_the_report_shows_verdicts_before_published_rates_and_figures_before_tables():
    labels = {(entry.heading, catalogue.label(entry)): entry for entry in LISTED}
    assert len(labels) == len(LISTED)
    shown = [labels[key] for key in sorted(labels)]
    assert [entry.name for entry in shown[:2]] == ["verdicts", "published_rates"]
    for category in catalogue.CATEGORIES:
        are_tables = [not isinstance(entry, catalogue.FigureEntry) for entry in shown if entry.category == category]
        assert are_tables == sorted(are_tables)
