"""What surrounds the workflow: the package, its dependencies and version, make, the hooks, hosted CI, the catalogue."""

from __future__ import annotations

import ast
import datetime
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, Workflow
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LIBRARY = ROOT / "workflow_scripts" / "circuitdrift"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [Requirement(dependency) for dependency in PROJECT["dependencies"]]


def recipe(target):
    """The commands of a target of the Makefile, without its prerequisites."""
    lines = (ROOT / "Makefile").read_text().split(f"\n{target}:")[1].splitlines()[1:]
    return [line.strip() for line in lines[: lines.index("")]]


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=str)
def test_each_dependency_admits_the_pinned_version(dependency):
    pinned = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line)
    assert dependency.specifier.contains(pinned[dependency.name])


def test_torch_is_pinned_exactly():
    assert [str(dependency.specifier) for dependency in DEPENDENCIES if dependency.name == "torch"] == ["==2.13.0"]


def test_whatever_the_library_imports_is_a_dependency():
    imported = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
    providers = packages_distributions()
    third_party = imported - sys.stdlib_module_names - {"circuitdrift"}
    declared = {canonicalize_name(dependency.name) for dependency in DEPENDENCIES}
    missing = {name for name in third_party if not declared & set(map(canonicalize_name, providers[name]))}
    assert not missing


def test_the_wheel_holds_the_library_alone(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "workflow_scripts", tmp_path / "workflow_scripts", ignore=ignored)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    result = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(LIBRARY.parent)) for path in LIBRARY.rglob("*.py")}
    parts = (
        path for path in (LIBRARY / "figures" / "explorer_page").iterdir() if path.suffix in {".html", ".css", ".js"}
    )
    page = {str(path.relative_to(LIBRARY.parent)) for path in parts}
    assert len(page) == 8
    assert held == modules | page | {"circuitdrift/py.typed"}


def test_citation_and_changelog_name_the_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    releases = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [release for release in releases if release != "Unreleased"]
    versions, dates = zip(*(re.fullmatch(r"(\S+) \((\S+)\)", release).groups() for release in released), strict=True)
    assert versions[0] == PROJECT["version"]
    assert sorted(dates, key=datetime.date.fromisoformat, reverse=True) == list(dates)


def test_make_alone_prints_every_target():
    result = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    assert [line.split()[0] for line in result.stdout.splitlines()] == phony


def test_each_test_has_the_tier_of_its_folder(request):
    assert request.node.get_closest_marker("workflow")
    declared = {line.split(":")[0] for line in request.config.getini("markers")}
    assert {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")} <= declared


def test_a_commit_is_checked_by_the_tools_of_make_check():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert all(hook["language"] == "system" for hook in hooks)
    tools = {hook["entry"].split()[0] for hook in hooks}
    assert tools == {command.split()[0].replace("$(BIN)", ".venv/bin") for command in recipe("check")}


def test_hosted_ci_runs_what_the_script_of_ci_runs():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    hosted = "\n".join(part["command"] for part in jobs["ci"]["strategy"]["matrix"]["include"])
    script = (ROOT / ".ci" / "run").read_text()
    call = r"make (?:run|test)\S*(?: CONFIG=\S+)?(?=[\s)]|$)"
    assert sorted(re.findall(call, hosted)) == sorted(re.findall(call, script.split("make setup")[1]))
    assert "Nothing to be done" in hosted


def test_the_catalogue_finds_what_it_asks_for():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["report"]
    assert usage["software-stack-deployment"]["conda"]
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "config" / "README.md").read_text())
    assert len(links) > 3
    assert [link for link in links if not (ROOT / "config" / link).exists()] == []


def test_the_snakefile_of_the_catalogue_plans_the_same_jobs(tmp_path):
    def plan(folder: Path):
        found = Workflow(folder, tmp_path).call("--dry-run", "-p", config=ROOT / "configs" / "smoke.yaml")
        assert found.returncode == 0, found.stderr
        return sorted(re.findall(r"^(?:(?:local)?rule \S+:|    output: .*)$", found.stdout, re.MULTILINE))

    planned = plan(ROOT)
    assert len(planned) > 80
    assert plan(ROOT / "workflow") == planned
