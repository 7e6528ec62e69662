"""The interactive explorer: one HTML file that works offline, in which a reader follows circuits over checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.config.figures import Figures
from circuitdrift.drift.edge_changes import CHANGES
from circuitdrift.figures import explorer_charts
from circuitdrift.figures.circuit_before_after import COLOURS
from circuitdrift.figures.explorer_circuits import Circuit, ExploredCircuits, RunKey, read_explored
from circuitdrift.figures.explorer_compositions import (
    KINDS,
    PART_COLOURS,
    STEPS,
    Compositions,
    header_of,
    read_compositions,
)
from circuitdrift.figures.explorer_page import page_of
from circuitdrift.figures.explorer_payload import membership, pack, three_digits
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.tidy import RUN, FigureDataError

READS_ITSELF = frozenset({"explored_edges", "explored_changes", "explored_unions", "explored_intersections"})
"""Files that are too many to be read at once, and stay paths."""

PAGE_BYTES = 10_000_000
"""The page is smaller than this; runs that do not fit are left out."""

_NUMBERS = ["included_before", "included_after", "effect", "effect_lower", "effect_upper", "q_value"]


@dataclass(frozen=True)
class Explored:
    """What the page shows: the tables of its charts (:func:`explorer_charts.tidy`), and the circuits of its graph."""

    charts: dict[str, pd.DataFrame]
    circuits: ExploredCircuits
    compositions: Compositions = field(default_factory=Compositions)

    @property
    def all_circuits(self) -> list[Circuit]:
        """The circuits of runs, then those that were united from them."""
        return [*self.circuits.circuits, *self.compositions.circuits]

    @property
    def sizes(self) -> list[int]:
        """The numbers of edges of what may be left out, the last first: each run, then each run's compositions."""
        of_runs: dict[RunKey, int] = dict.fromkeys(self.circuits.changes, 0)
        for circuit in self.circuits.circuits:
            if circuit.run in of_runs:
                of_runs[circuit.run] += len(circuit.edges)
        united = [sum(len(circuit.edges) for circuit in one.circuits) for one in self.compositions.shown]
        return [*of_runs.values(), *(sum(united[at : at + len(KINDS)]) for at in range(0, len(united), len(KINDS)))]

    def first(self, n: int) -> Explored:
        """What is left with the first ``n`` of :attr:`sizes`, and with their rows of the charts alone."""
        n_runs = len(self.circuits.changes)
        circuits = self.circuits.of_first(min(n, n_runs))
        compositions = self.compositions.of_first(max(n - n_runs, 0))
        return replace(self, circuits=circuits, compositions=compositions, charts=_of_runs(self.charts, circuits))


def tidy(
    accuracy: pd.DataFrame,
    faithfulness: pd.DataFrame,
    transitions: pd.DataFrame,
    layers: pd.DataFrame,
    explored_nodes: pd.DataFrame,
    explored_edges: list[Path],
    explored_changes: list[Path],
    explored_unions: list[Path],
    explored_intersections: list[Path],
    sub_tasks: Mapping[str, Sequence[str]],
) -> Explored:
    """Read and arrange what the page shows.

    Args:
        accuracy: of all runs.
        faithfulness: of all runs with circuits.
        transitions: of the same runs.
        layers: of the same runs.
        explored_nodes: a nodes table of each model.
        explored_edges: the edges tables of all circuits, run after run, each base model before its runs.
        explored_changes: the tables of edges one by one of all runs.
        explored_unions: the edges tables of unions of sub-tasks' circuits, run after run.
        explored_intersections: those of intersections, in the same order.
        sub_tasks: the two sub-tasks of each compositional task.
    """
    circuits = read_explored(explored_nodes, explored_edges, explored_changes)
    return Explored(
        explorer_charts.tidy(accuracy, faithfulness, transitions, layers),
        circuits,
        read_compositions(circuits, explored_unions, explored_intersections, sub_tasks),
    )


def draw(table: Explored, style: Figures, labels: MethodLabels, study: str) -> str:
    """The page, with its data and scripts inside, so that it opens without a network.

    Args:
        table: from :func:`tidy`.
        style: the study's figure settings.
        labels: of the study's methods.
        study: the study's name, for the heading.

    Raises:
        FigureDataError: the page is too large even without any run.
    """
    return page_below(PAGE_BYTES, table, style, labels, study)


def page_below(limit: int, table: Explored, style: Figures, labels: MethodLabels, study: str) -> str:
    """The page with as many runs as keep it smaller than ``limit`` bytes; it says how many are left out.

    How far edges can be compressed is known only from a page that holds them. So a page that is too large is made
    again, with as many of the first runs as should fit by their edges.

    Raises:
        FigureDataError: the page is too large even without any run.
    """
    sizes = table.sizes
    page = _page(table.first(len(sizes)), style, labels, study)
    if _bytes(page) < limit:
        return page
    empty = _bytes(_page(table.first(0), style, labels, study))
    if empty >= limit:
        raise FigureDataError(f"the explorer takes {empty} bytes without any run, and must be smaller than {limit}")
    while (taken := _bytes(page)) >= limit:
        sizes = sizes[: _that_fit(sizes, (limit - empty) / (taken - empty))]
        page = _page(table.first(len(sizes)), style, labels, study)
    return page


def _bytes(page: str) -> int:
    return len(page.encode())


def _that_fit(sizes: Sequence[int], share: float) -> int:
    """How many of the first have at most this share of all edges; fewer than all."""
    held = list(accumulate(sizes))
    return sum(size <= share * held[-1] for size in held[:-1])


def _of_runs(charts: Mapping[str, pd.DataFrame], circuits: ExploredCircuits) -> dict[str, pd.DataFrame]:
    """The rows of the charts of these runs; accuracies are compared with those of all methods."""
    return {
        name: _rows_of(frame, circuits, [*RUN, "seed"] if name != "accuracy" else ["model", "task", "seed"])
        for name, frame in charts.items()
    }


def _rows_of(frame: pd.DataFrame, circuits: ExploredCircuits, key: list[str]) -> pd.DataFrame:
    runs = pd.DataFrame(list(circuits.changes), columns=[*RUN, "seed"])
    return frame[pd.MultiIndex.from_frame(frame[key]).isin(pd.MultiIndex.from_frame(runs[key]))]


def _page(table: Explored, style: Figures, labels: MethodLabels, study: str) -> str:
    charts = {**table.charts}
    charts["accuracy"] = charts["accuracy"].assign(label=charts["accuracy"]["method"].map(labels.of))
    header = {
        "charts": explorer_charts.charts(table.charts, style, labels),
        "table_of": explorer_charts.TABLE_OF,
        "tables": {name: _columns(frame) for name, frame in charts.items()},
        **_header(table, labels),
    }
    return page_of(study, pack(header, _sections(table)), {**COLOURS, **PART_COLOURS})


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """A table by column, with six digits of each number; what is no number is null."""
    return {str(name): [_value(value) for value in frame[name].tolist()] for name in frame}


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return None if np.isnan(value) else float(f"{value:.6g}")
    return value


def _header(table: Explored, labels: MethodLabels) -> dict[str, Any]:
    explored = table.circuits
    models = list(explored.nodes)
    return {
        "changes": list(CHANGES),
        "left_out": explored.left_out,
        "compositions_left_out": table.compositions.left_out,
        "models": [
            {"name": model, "nodes": _columns(nodes), "edges": len(_index_of(table, model))}
            for model, nodes in explored.nodes.items()
        ],
        "circuits": [
            {"model": models.index(circuit.model), "checkpoint": int(circuit.checkpoint), "kept": len(circuit.edges)}
            for circuit in table.all_circuits
        ],
        "runs": [_run(explored, run, labels) for run in explored.changes],
        "steps": STEPS,
        "compositions": header_of(table.compositions, explored, labels),
    }


def _run(explored: ExploredCircuits, run: RunKey, labels: MethodLabels) -> dict[str, Any]:
    model, task, method, seed = run
    several = len(explored.nodes) > 1
    return {
        "model": model,
        "task": task,
        "method": method,
        "seed": seed,
        "group": f"{task_label(task)}, {model}" if several else task_label(task),
        "label": f"{labels.of(method)}, seed {seed}",
        "circuits": explored.series_of(run),
        "changes": len(explored.changes[run].edges),
        "node_changes": [CHANGES.index(change) for change in explored.changes[run].nodes],
    }


def _index_of(table: Explored, model: str) -> np.ndarray:
    """The numbers of all edges of a model that are in some circuit, ascending: the page's own numbering."""
    found = [circuit.edges for circuit in table.all_circuits if circuit.model == model]
    return np.unique(np.concatenate([*found, np.zeros(0, np.int64)]))


def _sections(table: Explored) -> dict[str, np.ndarray]:
    """The numbers of the header's models, circuits and runs, in their order."""
    sections: dict[str, np.ndarray] = {}
    for place, (model, nodes) in enumerate(table.circuits.nodes.items()):
        index = _index_of(table, model)
        pairs, inputs = np.divmod(index, 4)
        sources, targets = np.divmod(pairs, len(nodes))
        circuits = [circuit for circuit in table.all_circuits if circuit.model == model]
        sections |= {
            f"sources_{place}": sources.astype(np.uint16),
            f"targets_{place}": targets.astype(np.uint16),
            f"inputs_{place}": inputs.astype(np.uint8),
            f"members_{place}": membership([np.isin(index, circuit.edges) for circuit in circuits]),
        }
    scores = [circuit.scores for circuit in table.all_circuits]
    sections["scores"] = three_digits(np.concatenate([*scores, np.zeros(0, np.float32)]))
    tables = [changes.edges for changes in table.circuits.changes.values()]
    certain = pd.concat(tables) if tables else pd.DataFrame(columns=["change", *_NUMBERS], dtype=float)
    sections["change"] = certain["change"].map(CHANGES.index).to_numpy().astype(np.uint8)
    return sections | {name: three_digits(certain[name].to_numpy(dtype=np.float64)) for name in _NUMBERS}
