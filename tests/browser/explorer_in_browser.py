"""The explorer, open in a browser, as tests see it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from chromium import wait_for
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from circuitdrift.storage import read_table

KEY = ["source", "target", "qkv"]
NOTHING = "\N{EN DASH}"


class Page:
    """The explorer of a study, open in a browser, beside the tables that it was drawn from."""

    def __init__(self, browser: Chrome, path: Path, reads: dict[str, list[Path]]) -> None:
        self.browser, self.path, self.reads = browser, path, reads
        browser.get(path.as_uri())
        wait_for(browser, "document.body.dataset.ready")
        self.settle()

    def settle(self) -> None:
        """Wait until lists and charts have followed."""
        wait_for(self.browser, "[...document.querySelectorAll('.panel:not([hidden])')].every((p) => p.dataset.settled)")

    def set(self, name: str, value: str) -> None:
        """Give a control a value, as a reader does."""
        element = self.browser.find_element(By.ID, name)
        if element.tag_name == "select":
            Select(element).select_by_value(value)
        else:
            element.clear()
            element.send_keys(value)
        self.settle()

    def press(self, name: str, *keys: str) -> None:
        self.browser.find_element(By.ID, name).send_keys(*keys)
        self.settle()

    def text(self, selector: str) -> str:
        return self.browser.find_element(By.CSS_SELECTOR, selector).get_property("textContent")

    def rows(self, panel: str = "first") -> list[list[str]]:
        script = (
            "return [...document.querySelectorAll(arguments[0])].map((row) => [...row.cells].map((c) => c.textContent))"
        )
        return self.browser.execute_script(script, f"#{panel} .edges tbody tr")

    def circuit(self, place: int) -> pd.DataFrame:
        """The kept edges of a table of the first run, by their names."""
        table = read_table(self.reads["explored_edges"][place], "edges").fillna({"qkv": ""})
        return table[table["in_circuit"]].set_index(KEY)

    def changes(self) -> pd.DataFrame:
        return read_table(self.reads["explored_changes"][0], "edges_changed").fillna({"qkv": ""}).set_index(KEY)


def name_of(row: list[str]) -> tuple[str, str, str]:
    ends, _, which = row[0].replace(" → ", "|").partition(" ")
    source, target = ends.split("|")
    return source, target, which


def three_digits(number: float) -> float:
    return float(f"{number:.2e}")


def luminance(colour: str) -> float:
    """Relative luminance, after WCAG 2."""
    text = colour.strip().lstrip("#")
    text = text if len(text) == 6 else "".join(2 * digit for digit in text)
    channels = [int(text[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
