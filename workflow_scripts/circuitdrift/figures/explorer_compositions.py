"""The circuits of compositional tasks in the explorer: united from those of the sub-tasks, and the task's own.

Each is shown by what it shares with the circuits of the two sub-tasks, which the page holds as those of runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from circuitdrift.config.compositions import PARTS
from circuitdrift.figures.explorer_circuits import EDGES_ON_PAGE, Circuit, ExploredCircuits, RunKey, read_kept, run_of
from circuitdrift.figures.labels import MethodLabels, circuit_label, task_label

PART_COLOURS = {"both": "#3b4cc0", "first": "#009e73", "second": "#b8407f"}
"""Of edges that the circuits of both sub-tasks hold, and of those that only one of them holds."""

STEPS = [task_label(part) for part in PARTS]
"""What the page calls the first and the second sub-task of a composition."""

Kind = Literal["union", "intersection", "own"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Of each run, in this order."""


@dataclass(frozen=True)
class Composition:
    """A kind of circuit of a run on a compositional task, at all checkpoints.

    Attributes:
        kind: the union or the intersection of the sub-tasks' circuits, or the compositional task's own circuit.
        run: the run on the compositional task.
        parts: the same run on the first and on the second sub-task.
        circuits: by checkpoint, the base model's first; none of the own circuit, which is that of the run.
    """

    kind: Kind
    run: RunKey
    parts: tuple[RunKey, RunKey]
    circuits: list[Circuit]


@dataclass(frozen=True)
class Compositions:
    """All that the explorer shows of compositional tasks.

    Attributes:
        shown: run after run, the union, the intersection and the own circuit of each.
        left_out: the number of runs that are left out, to keep the page small or because it lacks their parts.
    """

    shown: list[Composition] = field(default_factory=list)
    left_out: int = 0

    @property
    def circuits(self) -> list[Circuit]:
        """The circuits that are not those of runs, in order."""
        return [circuit for composition in self.shown for circuit in composition.circuits]

    def of_first(self, n: int) -> Compositions:
        """Those of the first ``n`` runs."""
        shown = self.shown[: n * len(KINDS)]
        return Compositions(shown, self.left_out + (len(self.shown) - len(shown)) // len(KINDS))


def read_compositions(
    explored: ExploredCircuits,
    unions: Sequence[Path],
    intersections: Sequence[Path],
    sub_tasks: Mapping[str, Sequence[str]],
    limit: int = EDGES_ON_PAGE,
) -> Compositions:
    """Read the united circuits of all runs on compositional tasks, as many as fit on the page.

    Args:
        explored: the circuits of runs that the page holds.
        unions: edges tables of the unions, run after run, checkpoint after checkpoint.
        intersections: those of the intersections, in the same order.
        sub_tasks: the two sub-tasks of each compositional task.
        limit: the most kept edges of all circuits together.

    Raises:
        FigureDataError: an edge's node is not among the nodes of its model.
    """
    held = sum(len(circuit.edges) for circuit in explored.circuits)
    shown: list[Composition] = []
    left_out = 0
    for run, united, common in _by_run(unions, intersections, explored.nodes):
        first, second = ((run[0], task, *run[2:]) for task in sub_tasks[run[1]])
        more = sum(len(circuit.edges) for circuit in (*united, *common))
        if held + more > limit or not {run, first, second} <= explored.changes.keys():
            left_out += 1
            continue
        held += more
        kinds: dict[Kind, list[Circuit]] = {"union": united, "intersection": common, "own": []}
        shown += [Composition(kind, run, (first, second), circuits) for kind, circuits in kinds.items()]
    return Compositions(shown, left_out)


def _by_run(
    unions: Sequence[Path], intersections: Sequence[Path], nodes: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[RunKey, list[Circuit], list[Circuit]]]:
    """Each run with its unions and its intersections, read one run after the other."""
    pairs = (
        (_read_united(union, nodes), _read_united(intersection, nodes))
        for union, intersection in zip(unions, intersections, strict=True)
    )
    for run, of_run in groupby(pairs, key=lambda pair: pair[0][0]):
        found = list(of_run)
        yield run, [union for (_, union), _ in found], [intersection for _, (_, intersection) in found]


def _read_united(path: Path, nodes: Mapping[str, pd.DataFrame]) -> tuple[RunKey, Circuit]:
    wildcards, edges, scores = read_kept(path, nodes)
    run = run_of(wildcards)
    return run, Circuit(run[0], run[1], run, wildcards["checkpoint"], edges, scores)


def header_of(compositions: Compositions, explored: ExploredCircuits, labels: MethodLabels) -> list[dict[str, Any]]:
    """What the page's header says of each; circuits and parts are places among all circuits and runs of the page."""
    runs = list(explored.changes)
    rows, at = [], len(explored.circuits)
    for composition in compositions.shown:
        model, task, method, seed = composition.run
        group = f"{task_label(task)}, by step"
        own = explored.series_of(composition.run)
        rows.append(
            {
                "group": f"{group}, {model}" if len(explored.nodes) > 1 else group,
                "label": f"{circuit_label(composition.kind)}, {labels.of(method)}, seed {seed}",
                "circuits": own if composition.kind == "own" else [at + n for n in range(len(composition.circuits))],
                "parts": [runs.index(part) for part in composition.parts],
                "part_names": [task_label(part[1]) for part in composition.parts],
            }
        )
        at += len(composition.circuits)
    return rows
