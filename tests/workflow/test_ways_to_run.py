"""Ways to run the workflow besides a call in its checkout: as a module, in conda, in a container; and its targets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, Workflow

sys.path.insert(0, str(ROOT / "tests" / "unit"))
from exchange_files import study_of_two_circuits

TARGETS = {"train", "circuits", "drift", "recipes", "circuitlora", "figures", "tables"}
TARGETS |= {"report", "plan", "benchmark", "clean_study", "all"}
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
ALLOCATED = "results/imported/allocation/imported/mine/adapter_config.json"

CONDA = """#!/bin/sh
case "$*" in
  *--version*) echo "conda 25.1.0" ;;
  *info*) echo '{"conda_prefix": "/opt/conda", "platform": "linux-64", "envs": []}' ;;
  *) echo '{"get": {"channel_priority": "strict"}}' ;;
esac
"""
"""Answers what Snakemake asks conda before it plans environments."""


@pytest.fixture
def with_conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conda = tmp_path / "bin" / "conda"
    conda.parent.mkdir()
    conda.write_text(CONDA)
    conda.chmod(0o755)
    monkeypatch.setenv("PATH", f"{conda.parent}:{os.environ['PATH']}")


def test_every_rule_says_what_it_does_and_the_stages_are_targets(workflow: Workflow) -> None:
    listed = workflow.call("--list-rules").stdout.splitlines()
    assert [line for line in listed if not re.fullmatch(r"\S+ \(.+\.\)", line)] == []
    assert {line.split()[0] for line in listed} >= TARGETS


# As a module

MODULE = """
configfile: "settings.yaml"


module circuitdrift:
    snakefile:
        {snakefile!r}
    config:
        config["circuitdrift"]
{prefix}

use rule * from circuitdrift as circuitdrift_*


rule ranks_as_text:
    default_target: True
    input:
        rules.circuitdrift_allocate_imported_ranks.output.adapter_config.format(name="mine"),
    output:
        "ranks.txt",
    shell:
        "cp {{input}} {{output}}"
"""


def call_module(folder: Path, *options: str, prefix: str = "") -> subprocess.CompletedProcess[str]:
    """Call a workflow in a folder that uses this one for the study of imported circuits which the folder holds."""
    study = yaml.safe_load((folder / "imports.yaml").read_text())
    (folder / "settings.yaml").write_text(yaml.safe_dump({"circuitdrift": study}))
    (folder / "Snakefile").write_text(MODULE.format(snakefile=str(ROOT / "Snakefile"), prefix=prefix))
    command = [*SNAKEMAKE, "--cores", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def test_another_workflow_uses_it_as_a_module(tmp_path: Path) -> None:
    study_of_two_circuits(tmp_path)
    result = call_module(tmp_path)
    assert result.returncode == 0, result.stderr
    for rule in ("import_circuits_mine", "compare_circuits_imported", "allocate_imported_ranks"):
        assert f"rule circuitdrift_{rule}:" in result.stderr
    assert (tmp_path / "ranks.txt").read_text() == (tmp_path / ALLOCATED).read_text()
    assert not (tmp_path / "results" / "imported" / ".in_use").exists()
    planned = call_module(tmp_path, "circuitdrift_plan")
    assert planned.returncode == 0, planned.stderr
    assert "imported: 1 jobs, " in planned.stdout  # the resolved config; the other workflow did not ask for it


def test_a_module_may_have_no_prefix(tmp_path: Path) -> None:
    study_of_two_circuits(tmp_path)
    result = call_module(tmp_path, "--list-rules", prefix='    prefix:\n        "elsewhere"\n')
    assert result.returncode == 1
    assert "prefix and replace_prefix are not supported: the key study names the folder in results" in result.stderr


# In conda and in a container


@pytest.mark.usefixtures("with_conda")
def test_jobs_can_be_planned_in_a_conda_environment(workflow: Workflow) -> None:
    result = workflow.call("models", "--dry-run", "--software-deployment-method", "conda")
    assert result.returncode == 0, result.stderr
    assert "Conda environments: ignored" not in result.stdout + result.stderr
    created = set(re.findall(r"Conda environment (\S+) will be created", result.stdout + result.stderr))
    assert {Path(file).name for file in created} == {"environment.yml"}


@pytest.mark.usefixtures("with_conda")
def test_snakemake_writes_the_recipe_of_a_container(workflow: Workflow) -> None:
    recipe = workflow.call("--containerize").stdout
    assert recipe.startswith("FROM condaforge/miniforge3")
    assert len(re.findall(r"^COPY \S*environment\.yml /conda-envs/", recipe, re.MULTILINE)) == 1


# Removal


def test_a_study_is_removed_and_nothing_else(workflow: Workflow, tmp_path: Path) -> None:
    config = study_of_two_circuits(tmp_path)
    for study in ("imported", "another"):
        for folder in ("results", "logs"):
            (workflow.directory / folder / study / "deep").mkdir(parents=True)
            (workflow.directory / folder / study / "deep" / "file").write_text("content")
    result = workflow.call("clean_study", "--cores", "1", config=config)
    assert result.returncode == 0, result.stderr
    assert "imported: results/imported: 1 files, 0.0 MB" in result.stdout
    assert "imported: removed" in result.stdout
    left = sorted(str(path.relative_to(workflow.directory)) for path in workflow.directory.glob("[rl]*/*"))
    assert left == ["logs/another", "logs/clean_study", "results/another"]
