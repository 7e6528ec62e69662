"""A copy of the workflow that a test may edit."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkout import Workflow, copy_repository


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    return Workflow(copy_repository(tmp_path / "repository"), directory)
