"""Puts the stage scripts and the library on the path, as Snakemake does for a script; one thread for each worker."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier: the folder of `tests` that it lies in."""
    for item in items:
        item.add_marker(item.path.relative_to(ROOT / "tests").parts[0])
