"""A copy of the workflow that tests may edit, and a way to call Snakemake on it as a user would."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkout import ROOT as ROOT
from checkout import copy_repository as copy_repository


@dataclass(frozen=True)
class Workflow:
    """A checkout and a working directory elsewhere."""

    repository: Path
    directory: Path

    def call(self, *options: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run snakemake with a config file (the smoke study's by default)."""
        config = config or self.repository / "configs" / "smoke.yaml"
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.repository / "Snakefile")]
        command += [*options, "--directory", str(self.directory), "--configfile", str(config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=self.directory)

    def rules_to_run(self, *options: str, config: Path | None = None) -> set[str]:
        """Names of the rules that a dry run would execute."""
        result = self.call("--dry-run", *options, config=config)
        assert result.returncode == 0, result.stderr
        return set(re.findall(r"^(?:local)?rule (\S+):$", result.stdout + result.stderr, re.MULTILINE)) - {"all"}


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    return Workflow(copy_repository(tmp_path / "repository"), directory)
