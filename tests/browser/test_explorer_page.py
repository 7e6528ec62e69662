"""The explorer in a browser: what it shows equals the Parquet files, and nothing leaves the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chromium import errors_of
from explorer_in_browser import NOTHING, Page, contrast, luminance, name_of, three_digits
from explorer_tables import draw_page, reads_of
from figure_tables import MadeUpStudy, parallel_graph
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from circuitdrift.storage import read_table

STATUSES = ("kept", "gained", "lost", "undecided")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Path]]]:
    folder = tmp_path_factory.mktemp("study")
    tasks, methods = ("add_sub_100", "lcm"), ("lora_r2", "lora_r8")
    study = MadeUpStudy(folder / "in", tasks=tasks, methods=methods, n_checkpoints=3, n_layers=3, n_heads=4)
    reads = reads_of(study)
    draw_page(folder / "explorer.html", reads)
    return folder / "explorer.html", reads


def numbers_of(row: list[str]) -> tuple[float | None, float | None]:
    """Scores before and after of a row of the list."""
    before, after = (None if text == NOTHING else float(text) for text in row[2:4])
    return before, after


def expected_counts(before: pd.DataFrame, after: pd.DataFrame, change: Callable[[Any, bool, bool], str]) -> str:
    names = before.index.union(after.index)
    statuses = [change(name, name in before.index, name in after.index) for name in names]
    counts = {status: statuses.count(status) for status in STATUSES}
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status] or status != "undecided")


def by_membership(_: Any, in_before: bool, in_after: bool) -> str:
    return "kept" if in_before and in_after else "gained" if in_after else "lost"


def test_it_opens_on_what_is_certain_from_the_base_model_to_the_last_checkpoint(page: Page) -> None:
    changes = page.changes()["change"]
    sure = expected_counts(
        page.circuit(0), page.circuit(3), lambda name, *_: c if (c := changes[name]) in STATUSES else "undecided"
    )
    assert f"From base model to checkpoint 3: edges {sure};" in page.text("#first .counts")
    assert page.text("#first .title") == "Add/Sub (100): LoRA r=2, seed 0"
    assert "resampled prompts" in page.text("#first .certainty")


def test_all_numbers_of_the_list_equal_the_files_to_three_digits(page: Page) -> None:
    page.set("size", "1")
    before, after, changes = page.circuit(0)["score"], page.circuit(3)["score"], page.changes()
    rows = page.rows()
    assert len(rows) == min(100, len(before.index.union(after.index)))
    for row in rows:
        name, certain = name_of(row), changes.loc[name_of(row)]
        assert row[1] == (certain["change"] if certain["change"] in STATUSES else "undecided")
        assert numbers_of(row) == tuple(three_digits(s[name]) if name in s.index else None for s in (before, after))
        shares = [float(text) for text in row[4].split(" → ")]
        assert shares == [three_digits(certain["included_before"]), three_digits(certain["included_after"])]
        effect = [float(text) for text in row[5].replace("[", "").replace("]", "").replace(",", "").split()]
        assert effect == [three_digits(certain[name]) for name in ("effect", "effect_lower", "effect_upper")]
        assert float(row[6]) == three_digits(certain["q_value"])
    sizes = [max(abs(score) for score in numbers_of(row) if score is not None) for row in rows]
    assert sizes == sorted(sizes, reverse=True)


def test_the_slider_and_the_comparison_move_by_the_keyboard(page: Page) -> None:
    page.press("checkpoint", Keys.ARROW_LEFT)
    assert page.text("#at") == "checkpoint 2"
    wanted = expected_counts(page.circuit(0), page.circuit(2), by_membership)
    assert f"From base model to checkpoint 2: edges {wanted};" in page.text("#first .counts")
    assert "certainty is known" in page.text("#first .certainty").lower()
    page.set("against", "before")
    wanted = expected_counts(page.circuit(1), page.circuit(2), by_membership)
    assert f"From checkpoint 1 to checkpoint 2: edges {wanted};" in page.text("#first .counts")
    assert page.browser.find_element(By.ID, "held").get_property("disabled")
    page.press("checkpoint", Keys.HOME)
    assert f"edges {len(page.circuit(0))} kept, 0 gained, 0 lost;" in page.text("#first .counts")


def test_each_filter_keeps_what_it_says(page: Page) -> None:
    page.set("size", "1")
    everything = page.rows()
    page.set("input", "q")
    assert page.rows() == [row for row in everything if row[0].endswith(" q")]
    page.set("input", "other")
    assert page.rows() == [row for row in everything if not name_of(row)[2]]
    page.set("input", "all")
    page.set("layer", "2")
    in_layer = [row for row in everything if any(end[:2] in ("a1", "m1") for end in name_of(row)[:2])]
    assert page.rows() == in_layer
    page.set("layer", "")
    page.set("least", "0.004")
    strong = [row for row in everything if max(abs(score or 0) for score in numbers_of(row)) >= 0.004]
    assert page.rows() == strong
    page.set("least", "0")
    page.set("held", "0.95")
    assert page.rows() == [row for row in everything if max(map(float, row[4].split(" → "))) >= 0.95]
    page.set("held", "0")
    page.press("show_kept", Keys.SPACE)
    assert page.rows() == [row for row in everything if row[1] != "kept"]
    page.press("show_kept", Keys.SPACE)
    assert "Drawn: all " in page.text("#first .counts")
    page.set("size", "0.1")
    assert page.rows() == everything[: -(-len(everything) // 10)]
    mass = [max(abs(score or 0) for score in numbers_of(row)) for row in everything]
    share = 100 * sum(mass[: len(page.rows())]) / sum(mass)
    assert f"with {share:.1f} % of their |score|" in page.text("#first .counts")


def test_a_click_on_a_node_lists_its_edges_and_its_neighbours_can_be_followed(page: Page) -> None:
    names = page.browser.execute_script("return first.panel.comparison.model.nodes.map((node) => node.node)")
    places = page.browser.execute_script("return first.panel.graph.places")
    canvas = page.browser.find_element(By.CSS_SELECTOR, "#first .graph")
    place = places[names.index("a1.h2")]
    x, y = (round(place[end] - canvas.size[side] / 2) for end, side in (("x", "width"), ("y", "height")))
    ActionChains(page.browser).move_to_element_with_offset(canvas, x, y).click().perform()
    assert page.text("#first .tip").startswith("a1.h2: ")
    union = page.circuit(0).index.union(page.circuit(3).index)
    touching = [name for name in union if "a1.h2" in name[:2]]
    assert {name_of(row) for row in page.rows()} == set(touching)
    ins = sum(name[1] == "a1.h2" for name in touching)
    assert page.text("#first .edges caption").startswith(f"a1.h2: {ins} in-edges, {len(touching) - ins} out-edges")
    assert page.browser.execute_script("return first.panel.graph.picked") == names.index("a1.h2")
    other = page.browser.find_element(By.CSS_SELECTOR, "#first .edges tbody button")
    followed = other.text
    other.send_keys(Keys.ENTER)
    assert page.text("#first .edges caption").startswith(f"{followed}: ")
    Select(page.browser.find_element(By.CSS_SELECTOR, "#first .node")).select_by_value("")
    assert page.text("#first .edges caption").startswith("Edges drawn")


def test_the_pointer_shows_the_numbers_of_an_edge(page: Page) -> None:
    page.set("size", "0.01")
    script = """const curve = first.panel.graph.curves[0], t = 0.5;
        const { x0, y0, x1, y1, bend } = curve;
        return [x0 + (x1 - x0) * 0.5 + 0.75 * bend, y0 + (y1 - y0) * t];"""
    x, y = page.browser.execute_script(script)
    canvas = page.browser.find_element(By.CSS_SELECTOR, "#first .graph")
    at = (round(x - canvas.size["width"] / 2), round(y - canvas.size["height"] / 2))
    ActionChains(page.browser).move_to_element_with_offset(canvas, *at).perform()
    (row, *_) = page.rows()
    told = page.text("#first .tip")
    assert told.splitlines()[:2] == [f"{row[0]}: {row[1]}", f"score {row[2]} → {row[3]} nats"]
    assert [row[4], row[5], row[6]] == [
        told.splitlines()[2].split("circuits ")[1],
        told.splitlines()[3].removeprefix("effect ").removesuffix(" cut-offs (95 % interval)"),
        told.splitlines()[4][4:],
    ]


def test_two_runs_stand_side_by_side_with_what_they_share(page: Page) -> None:
    page.set("other", "3")
    assert page.text("#second .title") == "Add/Sub (100): LoRA r=8, seed 1"
    first, second = page.circuit(3).index, page.circuit(12).index
    shared, either = len(first.intersection(second)), len(first.union(second))
    assert f"share {shared} edges: Jaccard index {shared / either:.3f}" in page.text("#shared")
    left, right = (page.browser.find_element(By.ID, name).rect for name in ("first", "second"))
    assert (left["y"], left["width"]) == (right["y"], right["width"])
    assert right["x"] > left["x"] + left["width"]
    page.press("checkpoint", Keys.ARROW_LEFT)
    for panel in ("first", "second"):
        assert "to checkpoint 2" in page.text(f"#{panel} .counts")
    page.set("other", "")
    assert not page.browser.find_element(By.ID, "second").is_displayed()


def test_charts_follow_the_run_and_the_slider(page: Page) -> None:
    def accuracies() -> set[str]:
        labels = "return [...document.querySelectorAll('#first .charts path[aria-label]')].map((p) => p.ariaLabel)"
        return {label for label in page.browser.execute_script(labels) if label.startswith("Checkpoint: ")}

    def sizes() -> list[str]:
        labels = "return [...document.querySelectorAll('#first .charts path[aria-label]')].map((p) => p.ariaLabel)"
        return [label for label in page.browser.execute_script(labels) if "Circuit size" in label]

    shown = accuracies()
    measured = read_table(page.reads["accuracy"][0], "accuracy")["accuracy"]
    assert any(f"Test accuracy (%): {round(100 * measured.iloc[-1], 2):g}" in label for label in shown)
    before = sizes()
    page.press("checkpoint", Keys.ARROW_LEFT)
    assert before
    assert sizes() != before
    page.set("run", "4")
    assert page.text("#first .title").startswith("LCM")
    assert accuracies() != shown


def test_every_control_has_a_name_and_can_be_reached(page: Page) -> None:
    selector = "form input, form select, #first select, #first .scroll"
    controls = [c for c in page.browser.find_elements(By.CSS_SELECTOR, selector) if c.is_displayed()]
    assert len(controls) > 13
    assert [control.get_attribute("id") for control in controls if not control.accessible_name] == []
    assert page.browser.find_element(By.CSS_SELECTOR, "#first .graph").aria_role == "image"
    page.browser.execute_script("document.activeElement.blur()")
    reached = set()
    for _ in range(len(controls) + 1):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        reached.add(page.browser.execute_script("return document.activeElement.id || document.activeElement.className"))
    assert reached >= {"run", "other", "checkpoint", "against", "show_lost", "layer", "held", "node", "scroll"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [700, 1300])
def test_words_stand_out_from_the_ground_and_nothing_is_wider_than_the_window(
    page: Page, scheme: str, width: int
) -> None:
    emulated = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    page.browser.set_window_size(width, 1000)
    page.set("other", "5")
    script = "return getComputedStyle(document.documentElement).getPropertyValue(`--${arguments[0]}`)"
    names = ("ink", "muted", "ground", "gained", "lost", "kept")
    ink, muted, ground, *edges = (luminance(page.browser.execute_script(script, name)) for name in names)
    assert min(contrast(ink, ground), contrast(muted, ground)) >= 4.5
    assert min(contrast(colour, ground) for colour in edges) >= 3
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page.browser.set_window_size(1300, 1000)


def test_an_empty_circuit_a_single_checkpoint_and_a_strange_name_open(browser: Chrome, tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=("lora_r2",), seeds=(0,), n_checkpoints=1, n_layers=2)
    reads = reads_of(study)
    edges, _ = parallel_graph(2, 4)
    empty = edges.assign(score=0.0, in_circuit=False)
    reads["explored_edges"][-1] = study.write("edges", empty, "edges", **next(study.runs()), checkpoint="01")
    name = "</script><script>document.title='broken'</script>@STYLE@"
    draw_page(tmp_path / "explorer.html", reads, name)
    page = Page(browser, tmp_path / "explorer.html", reads)
    assert browser.title == f"Circuit drift: {name}" == page.text("h1")
    page.set("against", "before")
    page.press("checkpoint", Keys.HOME)
    assert "From base model to base model" in page.text("#first .counts")
    page.press("checkpoint", Keys.END)
    changes = page.changes().loc[page.circuit(0).index, "change"]
    assert f"{(changes == 'lost').sum()} lost" in page.text("#first .counts")
    assert all(row[3] == NOTHING for row in page.rows())
    assert errors_of(browser) == []
