"""A copy of the repository without results, and a way to call Snakemake on it as a user would."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "config.yaml", "environment.yml", "configs", "docs", "profiles", "rules", "workflow_scripts")


def copy_repository(target: Path) -> Path:
    """Copy what the workflow needs, without results."""
    target.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=ignored)
        else:
            shutil.copy2(source, target / part)
    return target


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
