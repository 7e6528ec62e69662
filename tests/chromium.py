"""Chromium without a screen, driven by Selenium; tests that need it skip where it is missing."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

WAIT = 30
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--force-device-scale-factor=1"),
)


@contextmanager
def chromium(width: int = 1300, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile, which keeps a log of its console and of its requests."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            yield browser
        finally:
            browser.quit()


def wait_for(browser: webdriver.Chrome, script: str, *arguments: Any) -> Any:
    """The value of an expression in JavaScript, once it is true."""
    end = time.monotonic() + WAIT
    while not (value := browser.execute_script(f"return {script}", *arguments)):
        assert time.monotonic() < end, f"not within {WAIT} s: {script}"
        time.sleep(0.02)
    return value


def errors_of(browser: webdriver.Chrome) -> list[str]:
    """Errors on the console since the last call."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def requests_of(browser: webdriver.Chrome, page: Path) -> list[str]:
    """Addresses asked for since the last call, but for the page, data inside it, and the browser's own first tab."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    inside = (page.as_uri(), "data:", "blob:", "chrome:", "chrome-untrusted:")
    return [url for url in sent if not url.startswith(inside)]
