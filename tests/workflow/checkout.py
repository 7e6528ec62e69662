"""A copy of the repository without results."""

from __future__ import annotations

import shutil
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
