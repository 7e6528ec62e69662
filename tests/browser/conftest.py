"""Puts the made-up tables of the unit tests on the path; one browser for the tests of a module, and its page."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import chromium, errors_of, requests_of
from explorer_in_browser import Page
from selenium.webdriver import Chrome

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """A browser that is closed after the module's tests."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Chrome, drawn: tuple[Path, dict[str, list[Path]]]) -> Iterator[Page]:
    """The page of the module's fixture ``drawn``, as it opens.

    A test fails on errors on its console, and on requests for anything else.
    """
    browser.set_network_conditions(offline=True, latency=0, throughput=0)
    requests_of(browser, drawn[0]), errors_of(browser)
    yield Page(browser, *drawn)
    assert errors_of(browser) == []
    assert requests_of(browser, drawn[0]) == []
