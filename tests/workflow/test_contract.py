"""What holds for the rules as text: signatures, laziness, dry runs, lint."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

from circuitdrift.figures import catalogue
from circuitdrift.provenance import digest_of_code

CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]
TARGETS = [
    "models",
    "data",
    "learning_rates",
    "train",
    "circuits",
    "drift",
    "composition",
    "recipes",
    "circuitlora",
    "figures",
    "tables",
    "imports",
    "exports",
    "peft_experiments",
    "benchmark",
    "plan",
    "clean_study",
    "report",
    "all",
]


DRIVERS = {"plot_figure": "plot_", "write_table": "tabulate_"}
"""Scripts that make every figure and every table, and how the names of their rules begin."""


def parsed_workflow(folder, **sections):
    """The workflow of the smoke study with an import, which has rules of its own, and with other sections."""
    for name in ("before.json", "after.json"):
        (folder / name).touch()
    imported = {"format": "eap-json", "checkpoints": {"00": "before.json", "01": "after.json"}}
    config = folder / "smoke.yaml"
    smoke = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text())
    config.write_text(yaml.safe_dump({**smoke, "imports": {"elsewhere": imported}, **sections}))
    with SnakemakeApi(OutputSettings(quiet=None)) as api:
        workflow = api.workflow(
            ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[config]),
            snakefile=ROOT / "Snakefile",
        )
        assert workflow._workflow.rules
        return workflow._workflow


def parsed_rules(folder, **sections):
    """The rules of that workflow that have a script, and the names of its local rules."""
    found = parsed_workflow(folder, **sections)
    return [rule for rule in found.rules if rule.script], {rule.name for rule in found.rules if found.is_local(rule)}


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    minimal = {"selection": "minimal", "wanted_faithfulness": 0.8}
    studies = (
        parsed_rules(tmp_path_factory.mktemp("rules")),
        parsed_rules(tmp_path_factory.mktemp("minimal"), circuit=minimal, recipes={}),
    )
    return [rule for found, _ in studies for rule in found]


@pytest.fixture(scope="module")
def local_rules(tmp_path_factory):
    return parsed_rules(tmp_path_factory.mktemp("local"))[1]


def test_every_rule_gives_its_script_exactly_the_keywords_of_main(rules):
    assert len(rules) > 15
    for rule in rules:
        script = Path(str(rule.script)).stem
        groups = [rule.params] if script == "plot_figure" else [rule.output, rule.params]
        groups += [] if script in DRIVERS else [rule.input]
        fields = {name for group in groups for name in group.keys()} - {"code", "benchmark"}  # noqa: SIM118
        keywords = set(inspect.signature(importlib.import_module(script).main).parameters) - {"provenance"}
        assert fields == keywords, f"{rule.name}: rule has {fields - keywords}, main has {keywords - fields}"


def test_every_rule_has_the_digest_of_its_own_script_among_its_params(rules):
    for rule in rules:
        script = ROOT / "workflow_scripts" / Path(str(rule.script)).name
        if script.stem not in DRIVERS:
            assert rule.params.get("code")(None) == digest_of_code(script), (
                f"{rule.name}: code_of() names another script"
            )


def test_params_of_figures_and_tables_hold_their_files_by_name(rules):
    """Their mains take the names as keys, so that one script serves them all; the list's test compares the keys."""
    listed = {f"plot_{f.name}": f for f in catalogue.FIGURES} | {f"tabulate_{t.name}": t for t in catalogue.TABLES}
    driven = [rule for rule in rules if Path(str(rule.script)).stem in DRIVERS]
    assert len(driven) > 12
    for rule in driven:
        entry = listed[rule.name]
        assert set(rule.input.keys()) == set(entry.reads)
        assert set(rule.params.settings(None)) == set(entry.settings)
        files = {name: rule.input.get(name)(None) for name in entry.reads}
        assert rule.params.reads(None, files) == files
        if "files" in rule.params.keys():  # noqa: SIM118
            assert rule.params.files(None, rule.output) == dict(zip(entry.formats, map(str, rule.output), strict=True))


def test_the_digest_of_a_figures_code_is_that_of_the_driver_and_of_its_own_module(rules):
    scripts = ROOT / "workflow_scripts"
    for rule in rules:
        driver = Path(str(rule.script)).stem
        if driver in DRIVERS:
            module = scripts / "circuitdrift" / "figures" / f"{rule.name.removeprefix(DRIVERS[driver])}.py"
            assert rule.params.code(None) == digest_of_code(scripts / f"{driver}.py", module), rule.name


def test_parsing_makes_no_more_paths_for_a_larger_study(tmp_path_factory):
    """Each job of a cluster parses the rules, so the files of all runs are listed where a job needs them alone."""

    def paths_of_targets(seeds):
        found = parsed_workflow(tmp_path_factory.mktemp("large"), seeds=list(range(seeds)))
        targets = [rule for rule in found.rules if not rule.has_wildcards()]
        return {rule.name: sum(isinstance(path, str) for path in rule.input) for rule in targets}

    small = paths_of_targets(seeds=2)
    assert {"all", "train", "drift", "plot_change_rates", "tabulate_controls"} <= set(small)
    assert paths_of_targets(seeds=40) == small


def test_every_script_belongs_to_the_rule_it_is_named_after(rules):
    used = set()
    for rule in rules:
        script = Path(str(rule.script)).stem
        assert rule.name == script or rule.name.startswith(DRIVERS.get(script, f"{script}_"))
        used.add(script)
    assert used == {path.stem for path in (ROOT / "workflow_scripts").glob("*.py")}


def test_every_rule_says_what_it_needs_and_where_it_logs(rules, local_rules):
    for rule in rules:
        assert rule.log, rule.name
        assert rule.conda_env == "../environment.yml", rule.name
        if rule.name not in local_rules:
            assert {"mem_mb", "runtime"} <= set(rule.resources), rule.name


def test_parsing_imports_no_torch(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--dry-run", "--configfile", str(ROOT / "configs" / "smoke.yaml"), "--directory", str(tmp_path)]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    imported = {
        line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time")
    }
    assert "circuitdrift.study" in imported
    assert not {"torch", "transformers", "peft", "matplotlib", "seaborn"} & imported


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_target_of_every_config_can_be_planned(workflow, config):
    result = workflow.call(*TARGETS, "--dry-run", config=config)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_plan_counts_the_jobs_of_a_dry_run(workflow):
    planned = workflow.call("plan")
    assert planned.returncode == 0, planned.stderr
    dry = workflow.call("--dry-run")
    total = int(re.findall(r"^total +(\d+)$", dry.stdout + dry.stderr, re.MULTILINE)[0])
    assert f"smoke: {total - 1} jobs, " in planned.stdout  # without the target `all`
    assert not (workflow.directory / "results").exists()


def test_learning_rates_are_searched_for_once_for_each_method_where_the_config_says_so(workflow, tmp_path):
    smoke = (ROOT / "configs" / "smoke.yaml").read_text()
    searching = tmp_path / "searching.yaml"
    searching.write_text(smoke + "learning_rate_search: {rates: [0.5, 1, 2]}\n")
    plan = workflow.call("--dry-run", config=searching).stdout
    trials = sorted(re.findall(r"output: results/smoke/learning_rates/(\S+)/trials.parquet", plan))
    methods = yaml.safe_load(smoke)["methods"]
    assert trials == sorted(f"toy/add_sub_100/{method}" for method in methods)
    # the ranks of an allocation are those of the study's first seed
    searched = re.findall(r"rule search_learning_rate:\n\s+input: (.*)\n", plan)
    allocations = [match for line in searched for match in re.findall(r"allocation/\S+/(seed-\d)/", line)]
    assert allocations == ["seed-0", "seed-0"]
    assert not any("test.parquet" in line for line in searched)
    without = workflow.call("--dry-run").stdout
    assert "rule finetune:" in without
    assert re.findall(r"rule search_learning_rate|trials\.parquet|tables/learning_rates", without) == []


def test_a_config_of_nothing_but_empty_sections_is_a_study_of_nothing(workflow, tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("models:\ntasks:\nmethods:\ncircuit:\nexecution:\n")
    assert workflow.rules_to_run(config=empty) == {"write_config"}


def test_lint_is_clean(workflow):
    result = workflow.call("--lint")
    assert result.returncode == 0, result.stderr + result.stdout


def test_the_conda_environment_pins_what_requirements_pin():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert next(entry["pip"] for entry in dependencies if isinstance(entry, dict)) == pinned
    assert all("==" in line for line in pinned)


def test_continuous_integration_calls_what_the_readme_names():
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for command in ("make test", "make test-slurm", "make run"):
        assert command in script
