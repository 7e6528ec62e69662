"""The profiles name only options and rules that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*/config.yaml"))


def snakemake(*options: str) -> str:
    command = [sys.executable, "-m", "snakemake", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@cache
def known_options() -> frozenset[str]:
    return frozenset(re.findall(r"--([a-z][a-z0-9-]+)", snakemake("--help")))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_names_only_options_that_snakemake_knows(path):
    profile = yaml.safe_load(path.read_text())
    assert isinstance(profile, dict)
    assert not set(profile) - known_options()


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_names_only_rules_that_exist(path, tmp_path):
    profile = yaml.safe_load(path.read_text())
    named = set(profile.get("set-resources", {})) | set(profile.get("set-threads", {}))
    if not named:
        return
    listed = snakemake(
        *("--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path)),
        *("--configfile", str(ROOT / "configs" / "smoke.yaml"), "--list-rules"),
    )
    assert not named - set(listed.split())


def test_each_key_of_the_slurm_profile_is_explained():
    page = (ROOT / "docs" / "clusters.md").read_text()
    explained = set(re.findall(r"^\| `([a-z-]+)", page, re.MULTILINE))
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    assert set(profile) | {"set-resources"} == explained
    values = [f"`{key}: {value}`" for key, value in profile.items() if not isinstance(value, bool | dict)]
    assert [value for value in values if value not in page] == []


def test_commented_lines_of_the_slurm_profile_are_valid_yaml():
    text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
    gpu = re.search(r"^  # (slurm_partition: \"'gpu'.*)\n  # (gpu: .*)$", text, re.MULTILINE)
    assert gpu is not None
    settings = yaml.safe_load("\n".join(gpu.groups()))
    for threads, partition, gpus in ((8, "gpu", 1), (1, "cpu", 0)):
        assert eval(settings["slurm_partition"], {"threads": threads}) == partition
        assert eval(settings["gpu"], {"threads": threads}) == gpus
