"""Puts the made-up tables of the unit tests on the path; one browser for the tests of a module."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import chromium
from selenium.webdriver import Chrome

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """A browser that is closed after the module's tests."""
    with chromium() as opened:
        yield opened
