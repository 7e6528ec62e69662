"""How large the explorer's page is for a large study, and how long a step of its slider takes in Chromium.

The study is made up: five tasks with four runs each, of Pythia-1.4B's shape, with base model and ten checkpoints, and
circuits of 5 % of the edges. Scores have random signs and log-normal sizes. From one checkpoint to the next each moves
by a fifth of itself, and all by noise, so that circuits of neighbouring checkpoints share most of their edges.

A step is the time from an event of the slider until the page has drawn the next picture, with the edges that are drawn
at first or with all, of one run or two. CPU time is that of all of Chromium, with lists and charts, which follow when
the slider rests; other work on the machine changes it less.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from measuring import SHAPES, Row, write_tables
from pydantic import TypeAdapter
from selenium import webdriver

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from circuitdrift.config.figures import Figures
from circuitdrift.config.methods import MethodConfig
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.edge_changes import change_of
from circuitdrift.figures import explorer
from circuitdrift.figures.circuit_before_after import node_places
from circuitdrift.figures.explorer_circuits import INPUTS, Changes, Circuit, ExploredCircuits, RunKey
from circuitdrift.figures.labels import MethodLabels

MODEL = "pythia-1.4b"
METHODS = {f"lora_r{rank}": {"kind": "lora", "rank": rank} for rank in (2, 8)}
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--force-device-scale-factor=1")
SHOWN = ((1, "most"), (1, "1"), (2, "most"), (2, "1"))
"""Numbers of runs, and which edges are drawn."""

STEP = """
const [checkpoint, done] = arguments;
const slider = document.getElementById("checkpoint");
const start = performance.now();
slider.value = checkpoint;
slider.dispatchEvent(new Event("input", { bubbles: true }));
const script = performance.now() - start;
requestAnimationFrame(() => setTimeout(() => {
  const whole = performance.now() - start;
  for (const { panel } of document.querySelectorAll(".panel")) clearTimeout(panel.resting); // lists and charts
  done([script, whole]);
}));
"""


def large_study(n_tasks: int, n_checkpoints: int, shape: tuple[int, int], fraction: float) -> explorer.Explored:
    """A made-up study of four runs on each task."""
    layers, heads = shape
    nodes = _nodes(layers, heads)
    numbers = _edges(Graph(layers, heads, parallel=True), nodes)
    random = np.random.default_rng(0)
    of_model = _log_normal(random, len(numbers))
    circuits: list[Circuit] = []
    changes: dict[RunKey, Changes] = {}
    for task in (f"task_{number}" for number in range(n_tasks)):
        base = of_model + _log_normal(random, len(numbers))
        circuits.append(_circuit(numbers, base, fraction, task, None, 0))
        for method in METHODS:
            for seed in (0, 1):
                run = (MODEL, task, method, seed)
                scores = base
                for checkpoint in range(1, n_checkpoints + 1):
                    noise = random.normal(size=(2, len(numbers)))
                    scores = scores + 0.2 * np.abs(scores) * noise[0] + 2e-4 * noise[1]
                    circuits.append(_circuit(numbers, scores, fraction, task, run, checkpoint))
                changes[run] = _changes(random, nodes, numbers, base, scores, fraction)
    return explorer.Explored(
        _charts(list(changes), n_checkpoints, layers), ExploredCircuits({MODEL: nodes}, circuits, changes, 0)
    )


def _nodes(layers: int, heads: int) -> pd.DataFrame:
    rows = [("input", "input", 0, -1)]
    for layer in range(layers):
        rows += [(f"a{layer}.h{head}", "head", layer, head) for head in range(heads)]
        rows.append((f"m{layer}", "mlp", layer, -1))
    nodes = pd.DataFrame([*rows, ("logits", "logits", layers, -1)], columns=["node", "kind", "layer", "head"])
    x, y = node_places(nodes)
    return nodes.assign(x=x, y=y)


def _edges(graph: Graph, nodes: pd.DataFrame) -> np.ndarray:
    """The numbers of all edges of the graph, ascending."""
    writers, readers = (end.numpy() for end in graph.edge_ends)
    targets = pd.Series(graph.readers)
    parts = targets.str.extract(r"([^<]*)(?:<(.)>)?").fillna("")
    names = pd.Index(nodes["node"])
    sources = names.get_indexer(pd.Index(graph.writers))[writers]
    ends = names.get_indexer(pd.Index(parts[0]))[readers]
    inputs = parts[1].map(INPUTS.index).to_numpy()[readers]
    return np.sort(4 * (sources.astype(np.int64) * len(nodes) + ends) + inputs)


def _log_normal(random: np.random.Generator, n: int) -> np.ndarray:
    return random.choice([-1, 1], n) * 1e-3 * np.exp(1.3 * random.normal(size=n))


def _kept(scores: np.ndarray, fraction: float) -> np.ndarray:
    return np.abs(scores) >= np.quantile(np.abs(scores), 1 - fraction)


def _circuit(
    numbers: np.ndarray, scores: np.ndarray, fraction: float, task: str, run: RunKey | None, checkpoint: int
) -> Circuit:
    kept = _kept(scores, fraction)
    return Circuit(MODEL, task, run, f"{checkpoint:02d}", numbers[kept], scores[kept].astype(np.float32))


def _changes(
    random: np.random.Generator,
    nodes: pd.DataFrame,
    numbers: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    fraction: float,
) -> Changes:
    """Shares of 200 resamples that are near 0 or 1 for most edges."""
    union = _kept(before, fraction) | _kept(after, fraction)
    sides = [_kept(scores, fraction)[union] for scores in (before, after)]
    shares = [np.round(np.where(side, 1 - noise, noise), 3) for side in sides for noise in [_shares(random, len(side))]]
    effect = (after - before)[union] / 1e-2
    reach = np.abs(random.normal(0.3, 0.1, len(effect)))
    table = pd.DataFrame(
        {
            "effect": effect,
            "effect_lower": effect - reach,
            "effect_upper": effect + reach,
            "q_value": random.beta(0.2, 1, len(effect)),
            "included_before": shares[0],
            "included_after": shares[1],
            "change": change_of(*shares),
        },
        index=numbers[union],
    )
    return Changes(table, pd.Series("kept", index=nodes["node"]))


def _shares(random: np.random.Generator, n: int) -> np.ndarray:
    return random.binomial(200, random.beta(0.1, 1, n)) / 200


def _charts(runs: list[RunKey], n_checkpoints: int, layers: int) -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(1)
    names = [f"{number:02d}" for number in range(n_checkpoints + 1)]
    keys = ["model", "task", "method", "seed", "checkpoint"]
    points = [(*run, name) for run in runs for name in names]
    later = [point for point in points if point[-1] != "00"]
    accuracy = pd.DataFrame(points, columns=keys).assign(accuracy=50.0, lower=45.0, upper=55.0, n=500)
    metrics = ("to the model's output", "as in the paper")
    sizes = [(*point, metric, 100 * size, size == 0.05) for point in points for metric in metrics for size in FRACTIONS]
    faithfulness = pd.DataFrame(sizes, columns=[*keys, "metric", "size", "own_circuit"]).assign(n_edges=100)
    values = np.round(random.uniform(50, 100, len(faithfulness)), 2)
    faithfulness = faithfulness.assign(faithfulness=values, lower=values - 3, upper=values + 3)
    sides = [("added", 1), ("removed", -1)]
    changes = pd.DataFrame([(*p, "edge", c, 900 * sign) for p in later for c, sign in sides])
    changes.columns = [*keys, "level", "change", "signed"]
    by_layer = pd.DataFrame([(*p, layer, c, sign) for p in later for layer in range(layers) for c, sign in sides])
    by_layer.columns = [*keys, "layer", "change", "signed"]
    by_layer["signed"] *= random.integers(1, 90, len(by_layer))
    by_layer = by_layer.assign(score_change=random.random(len(by_layer)), score_change_normalised=0.1)
    return {
        "accuracy": accuracy,
        "faithfulness": faithfulness,
        "changes": changes.assign(count=changes["signed"].abs()),
        "layers": by_layer.assign(count=by_layer["signed"].abs()),
    }


@contextmanager
def open_page(page: Path, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """A page in Chromium, once it is ready."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size=1300,{height}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        browser.set_script_timeout(120)
        browser.get(page.resolve().as_uri())
        while not browser.execute_script("return document.body.dataset.ready"):
            time.sleep(0.02)
        yield browser
        browser.quit()


def show(browser: webdriver.Chrome, second: str, size: str) -> None:
    """Choose the second run, by its number in the list or none, and which edges are drawn."""
    choose(browser, "size", size)
    choose(browser, "other", second)


def choose(browser: webdriver.Chrome, name: str, value: str) -> None:
    """Choose an entry of a list of the page, as a reader does."""
    browser.execute_script(_CHOOSE, name, value)


_CHOOSE = """
const control = document.getElementById(arguments[0]);
control.value = arguments[1];
control.dispatchEvent(new Event("change", { bubbles: true }));
"""


def steps_of(page: Path, rounds: int) -> list[Row]:
    """Milliseconds of a step in Chromium, medians over all checkpoints and rounds."""
    started = time.perf_counter()
    with open_page(page) as browser:
        opening = time.perf_counter() - started
        return [_steps(browser, runs, size, rounds) | {"opening (s)": round(opening, 1)} for runs, size in SHOWN]


def _steps(browser: webdriver.Chrome, runs: int, size: str, rounds: int) -> Row:
    show(browser, "" if runs == 1 else "1", size)
    last = int(browser.execute_script("return document.getElementById('checkpoint').max"))
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    before, main_before = _cpu_seconds(), _main_thread(browser)
    steps = [browser.execute_async_script(STEP, at) for _ in range(rounds) for at in range(last + 1)]
    spent = 1000 * (_cpu_seconds() - before) / len(steps)
    main_thread = 1000 * (_main_thread(browser) - main_before) / len(steps)
    counts = browser.execute_script("return document.querySelector('.counts').textContent")
    drawn = re.search(r"Drawn: (?:the|all) (\d+)", counts)
    script, whole = (statistics.median(step[part] for step in steps) for part in (0, 1))
    return {
        "runs": runs,
        "edges drawn of each": drawn[1] if drawn else "",
        "script (ms)": round(script),
        "step (ms)": round(whole),
        "slowest step (ms)": round(max(step[1] for step in steps)),
        "CPU time of the page (ms)": round(main_thread),
        "CPU time of Chromium (ms)": round(spent),
    }


def _main_thread(browser: webdriver.Chrome) -> float:
    """CPU seconds of the thread that runs the page's scripts, lays it out and hands its pictures on."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def _cpu_seconds() -> float:
    """Of Chromium and its driver: all that this process has started."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(spent.user + spent.system for spent in times)


def main() -> None:
    """Make the page, measure it, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="markdown file; standard output without it")
    parser.add_argument("--page", type=Path, help="where to keep the page")
    given = parser.parse_args()
    labels = MethodLabels(TypeAdapter(dict[str, MethodConfig]).validate_python(METHODS))
    study = large_study(given.tasks, 10, SHAPES["pythia-1.4b"][:2], 0.05)
    started = time.process_time()
    text = explorer.draw(study, Figures(), labels, "large")
    taken = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        page = given.page or Path(folder) / "explorer.html"
        page.write_text(text)
        size: Row = {
            "runs": len(study.circuits.changes),
            "circuits": len(study.circuits.circuits),
            "edges in the largest": max(len(circuit.edges) for circuit in study.circuits.circuits),
            "page (MB)": round(page.stat().st_size / 1e6, 2),
            "made in (s)": round(taken, 1),
        }
        write_tables([[size], steps_of(page, given.rounds)], given.output)


if __name__ == "__main__":
    main()
