"""Circuits of compositional tasks in the explorer: their edges, parts and scores equal the Parquet files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from explorer_in_browser import KEY, NOTHING, Page, contrast, luminance, name_of, three_digits
from explorer_tables import draw_page, reads_of, with_compositions
from figure_tables import MadeUpStudy
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from circuitdrift.storage import provenance_of, read_table

TASKS = ("compositional", "compositional_add_sub", "compositional_mul_div")
SUB_TASKS = {TASKS[0]: list(TASKS[1:])}
NAMES = ("Compositional Add/Sub", "Compositional Mul/Div")
WORDS = ("of both steps", "of Add/Sub alone", "of Mul/Div alone", "of neither")
N_RUNS = 3 * 2 * 2
UNION, INTERSECTION, OWN = (str(N_RUNS + place) for place in range(3))
"""Of the first run, by their values in the list of runs and circuits."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Path]]]:
    folder = tmp_path_factory.mktemp("study")
    study = MadeUpStudy(
        folder / "in", tasks=TASKS, methods=("lora_r2", "lora_r8"), n_checkpoints=3, n_layers=2, n_heads=4
    )
    reads = with_compositions(study, reads_of(study, 0.5), SUB_TASKS)
    draw_page(folder / "explorer.html", reads, sub_tasks=SUB_TASKS)
    return folder / "explorer.html", reads


def kept(page: Page, group: str, checkpoint: str, **wildcards: str) -> pd.Series:
    """Scores of the kept edges of the one table of a group with these wildcards."""
    wanted = {**wildcards, "checkpoint": checkpoint}
    if checkpoint == "00" and group == "explored_edges":
        wanted = {"task": wildcards["task"], "checkpoint": checkpoint}
    (path,) = (p for p in page.reads[group] if wanted.items() <= provenance_of(p).wildcards.items())
    table = read_table(path, "edges").fillna({"qkv": ""})
    return table[table["in_circuit"]].set_index(KEY)["score"]


def circuits_at(page: Page, checkpoint: str) -> dict[str, pd.Series]:
    """The three circuits of the first run on the compositional task, and those of its sub-tasks."""
    run = {"method": "lora_r2", "seed": "0"}
    own, first, second = (kept(page, "explored_edges", checkpoint, task=task, **run) for task in TASKS)
    united = {"union": "explored_unions", "intersection": "explored_intersections"}
    found = {kind: kept(page, group, checkpoint, task=TASKS[0], **run) for kind, group in united.items()}
    return {**found, "own": own, "first": first, "second": second}


def part_of(name: tuple[str, str, str], first: pd.Series, second: pd.Series) -> str:
    return {(True, True): WORDS[0], (True, False): WORDS[1], (False, True): WORDS[2], (False, False): WORDS[3]}[
        (name in first.index, name in second.index)
    ]


def counted(words: list[str]) -> str:
    return ", ".join(f"{words.count(word)} {word}" for word in WORDS if word != WORDS[3] or word in words)


@pytest.mark.parametrize(("value", "kind"), [(UNION, "union"), (INTERSECTION, "intersection"), (OWN, "own")])
@pytest.mark.parametrize("checkpoint", ["03", "00"])
def test_edges_and_their_parts_and_scores_equal_the_files(page: Page, value: str, kind: str, checkpoint: str) -> None:
    page.set("run", value)
    page.set("size", "1")
    page.press("checkpoint", Keys.END if checkpoint == "03" else Keys.HOME)
    circuits = circuits_at(page, checkpoint)
    shown, first, second = circuits[kind], circuits["first"], circuits["second"]
    parts = {name: part_of(name, first, second) for name in shown.index}
    at = "checkpoint 3" if checkpoint == "03" else "base model"
    assert page.text("#first .counts").startswith(f"At {at}: edges {counted(list(parts.values()))}; nodes ")
    rows = page.rows()
    assert len(rows) == min(100, len(shown))
    for row in rows:
        name = name_of(row)
        scores = [f"{float(row[2]):.2e}", *(text if text == NOTHING else f"{float(text):.2e}" for text in row[3:])]
        wanted = [f"{series[name]:.2e}" if name in series.index else NOTHING for series in (shown, first, second)]
        assert [row[1], *scores] == [parts[name], *wanted]
    sizes = [abs(float(row[2])) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert {"union": WORDS[3] not in parts.values(), "intersection": set(parts.values()) == {WORDS[0]}}.get(kind, True)


def test_the_union_stands_beside_the_own_circuit(page: Page) -> None:
    page.set("run", UNION)
    page.set("other", OWN)
    circuits = circuits_at(page, "03")
    shared = len(circuits["union"].index.intersection(circuits["own"].index))
    either = len(circuits["union"].index.union(circuits["own"].index))
    assert f"share {shared} edges: Jaccard index {three_digits(shared / either):.3f}" in page.text("#shared")
    group = "Compositional, by step"
    assert page.text("#first .title") == f"{group}: Union of sub-tasks, LoRA r=2, seed 0"
    assert page.text("#second .title") == f"{group}: Own circuit, LoRA r=2, seed 0"
    left, right = (page.browser.find_element(By.ID, name).rect for name in ("first", "second"))
    assert right["x"] > left["x"] + left["width"]
    page.press("checkpoint", Keys.ARROW_LEFT)
    for panel in ("first", "second"):
        assert page.text(f"#{panel} .counts").startswith("At checkpoint 2: ")


def test_the_list_holds_each_circuit_of_each_run_after_the_runs(page: Page) -> None:
    options = [o.get_property("text") for o in page.browser.find_elements(By.CSS_SELECTOR, "#run option")]
    runs = [f"LoRA r={rank}, seed {seed}" for rank in (2, 8) for seed in (0, 1)]
    assert options[:N_RUNS] == [f"{task}: {run}" for task in ("Compositional", *NAMES) for run in runs]
    kinds = ("Union of sub-tasks", "Intersection of sub-tasks", "Own circuit")
    assert options[N_RUNS:] == [f"Compositional, by step: {kind}, {run}" for run in runs for kind in kinds]


def test_the_page_explains_circuits_by_step_where_it_has_them(page: Page) -> None:
    page.browser.execute_script("reading.open = true")
    assert page.browser.find_element(By.CSS_SELECTOR, "dt.of_steps").is_displayed()


def test_the_filter_of_parts_keeps_what_it_says(page: Page) -> None:
    page.set("run", OWN)
    page.set("size", "1")
    everything = page.rows()
    assert {row[1] for row in everything} == set(WORDS)
    for part, word in zip(("both", "first", "second", "neither"), WORDS, strict=True):
        page.press(f"show_{part}", Keys.SPACE)
        assert page.rows() == [row for row in everything if row[1] != word]
        page.press(f"show_{part}", Keys.SPACE)
    page.set("input", "q")
    assert page.rows() == [row for row in everything if row[0].endswith(" q")]


def test_controls_are_those_of_what_is_shown(page: Page) -> None:
    def visible() -> dict[str, bool]:
        elements = {name: page.browser.find_element(By.ID, name) for name in ("changes", "parts", "against")}
        charts = page.browser.find_element(By.CSS_SELECTOR, "#first .charts")
        shown = {"changes": elements["changes"].is_displayed(), "parts": elements["parts"].is_displayed()}
        return {**shown, "against": elements["against"].is_enabled(), "charts": charts.is_displayed()}

    assert visible() == {"changes": True, "parts": False, "against": True, "charts": True}
    page.set("run", UNION)
    assert visible() == {"changes": False, "parts": True, "against": False, "charts": False}
    inputs = page.browser.find_elements(By.CSS_SELECTOR, "#parts input")
    assert [control.accessible_name.strip() for control in inputs] == list(WORDS)
    page.set("other", "0")
    assert visible() == {"changes": True, "parts": True, "against": True, "charts": False}
    assert page.text("#second .counts").startswith("From base model to checkpoint 3: ")
    assert page.browser.find_element(By.CSS_SELECTOR, "#second .charts").is_displayed()
    page.set("run", "1")
    page.set("other", "")
    assert visible() == {"changes": True, "parts": False, "against": True, "charts": True}
    assert page.browser.find_elements(By.CSS_SELECTOR, "#first .charts path[aria-label]")


def test_a_node_tells_the_circuits_that_it_is_in(page: Page) -> None:
    page.set("run", OWN)
    circuits = circuits_at(page, "03")
    touched = {kind: {end for name in circuits[kind].index for end in name[:2]} for kind in ("own", "first", "second")}
    elements = page.browser.find_elements(By.CSS_SELECTOR, "#first .node option")[1:]
    options = [element.get_property("text") for element in elements]
    names = page.browser.execute_script("return first.panel.comparison.model.nodes.map((node) => node.node)")
    wanted = [
        f"{name} ({part_of(name, *(pd.Series(0, index=list(touched[part])) for part in ('first', 'second')))})"
        for name in names
        if name in touched["own"]
    ]
    assert options == wanted
    Select(page.browser.find_element(By.CSS_SELECTOR, "#first .node")).select_by_index(1)
    assert page.text("#first .edges caption").startswith(f"{options[0].split(' ')[0]}: ")
    told = page.browser.execute_script("return first.panel.tell(null, first.panel.comparison.edges[0])").splitlines()
    page.browser.execute_script("first.panel.pick(null)")
    (row, *_) = page.rows()
    assert told == [
        f"{row[0]}: {row[1]}",
        f"score {row[2]}",
        *(f"in {name} {score}" for name, score in zip(("Add/Sub", "Mul/Div"), row[3:], strict=True)),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [700, 1300])
def test_parts_stand_out_from_the_ground_and_nothing_is_wider_than_the_window(
    page: Page, scheme: str, width: int
) -> None:
    emulated = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    page.browser.set_window_size(width, 1000)
    page.set("run", UNION)
    page.set("other", OWN)
    script = "return getComputedStyle(document.documentElement).getPropertyValue(`--${arguments[0]}`)"
    names = ("ground", "both", "first", "second")
    ground, *parts = (luminance(page.browser.execute_script(script, name)) for name in names)
    assert min(contrast(colour, ground) for colour in parts) >= 3
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page.browser.set_window_size(1300, 1000)
