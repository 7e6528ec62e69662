"""The circuits of the explorer: the kept edges of every checkpoint, and how certain their changes are.

The edges tables of a study hold every edge of the graph at every checkpoint, so they are read one after the other, and
only what the page shows is kept. An edge is a number: 4 (source * nodes + target) + input, with the places of source
and target among the model's nodes, and the input's place in :data:`INPUTS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64

from circuitdrift.drift.edge_changes import bound_node_changes
from circuitdrift.figures.circuit_before_after import node_places
from circuitdrift.figures.tidy import FigureDataError
from circuitdrift.provenance import BASE_CHECKPOINT
from circuitdrift.storage import provenance_of, read_columns

INPUTS = ("", "q", "k", "v")
EDGES_ON_PAGE = 3_000_000
"""Kept edges of all circuits together, from which on no further run is read: more than fit on the page."""

RunKey = tuple[str, str, str, int]
"""Model, task, method and seed of a run."""

Numbers = Int64[np.ndarray, " edge"]
Scores = Float32[np.ndarray, " edge"]

_EDGE = ["source", "target", "qkv"]
_CERTAINTY = ["effect", "effect_lower", "effect_upper", "q_value", "included_before", "included_after", "change"]
_MERGED = ["merged_included_before", "merged_included_after"]


@dataclass(frozen=True)
class Circuit:
    """The kept edges of one checkpoint.

    Attributes:
        model: the model's name.
        task: the task's name.
        run: the run; None for the base model's own circuit, which all runs of the task share.
        checkpoint: the checkpoint's name.
        edges: numbers of the edges, ascending.
        scores: their signed scores, in nats.
    """

    model: str
    task: str
    run: RunKey | None
    checkpoint: str
    edges: Numbers
    scores: Scores


@dataclass(frozen=True)
class Changes:
    """What is certain of a run's changes from the base model to its last checkpoint.

    Attributes:
        edges: of each edge of either circuit, by its number in ascending order, the columns of ``edges_changed``.
        nodes: by name: kept, gained, lost, outside or undecided.
    """

    edges: pd.DataFrame
    nodes: pd.Series


@dataclass(frozen=True)
class ExploredCircuits:
    """All that the explorer's graph shows.

    Attributes:
        nodes: of each model, the nodes table with places ``x`` and ``y``.
        circuits: in the order of the runs, each task's base model first.
        changes: by run.
        left_out: the number of runs that are left out, to keep the page small.
    """

    nodes: dict[str, pd.DataFrame]
    circuits: list[Circuit]
    changes: dict[RunKey, Changes]
    left_out: int

    def series_of(self, run: RunKey) -> list[int]:
        """Places in ``circuits`` of a run's circuits by checkpoint, the base model's first."""
        places = enumerate(self.circuits)
        mine = [p for p, c in places if c.run == run or (c.run is None and (c.model, c.task) == run[:2])]
        return sorted(mine, key=lambda place: self.circuits[place].checkpoint)

    def of_first(self, n: int) -> ExploredCircuits:
        """Those of the first ``n`` runs, with their base models'."""
        changes = dict(islice(self.changes.items(), n))
        tasks = {run[:2] for run in changes}
        circuits = [c for c in self.circuits if (c.run in changes if c.run else (c.model, c.task) in tasks)]
        nodes = {model: nodes for model, nodes in self.nodes.items() if model in {model for model, _ in tasks}}
        return ExploredCircuits(nodes, circuits, changes, self.left_out + len(self.changes) - len(changes))


def read_explored(
    nodes: pd.DataFrame, edges: Sequence[Path], changes: Sequence[Path], limit: int = EDGES_ON_PAGE
) -> ExploredCircuits:
    """Read the circuits of all runs, as many as fit on the page.

    Args:
        nodes: nodes tables of each model.
        edges: edges tables, run after run, the base model's before those of its runs.
        changes: tables of edges one by one, of all runs.
        limit: kept edges from which on no further run is begun.

    Raises:
        FigureDataError: an edge's node is not among the nodes of its model.
    """
    placed = {str(model): _placed(of_model) for model, of_model in nodes.groupby("model", sort=False)}
    circuits = _circuits(edges, placed, limit)
    held = {circuit.run for circuit in circuits}
    shown = ExploredCircuits(placed, circuits, {}, 0)
    for path in changes:
        table = read_columns(path, "edges_changed", [*_EDGE, *_CERTAINTY, *_MERGED])
        wildcards = provenance_of(path, table.schema.metadata).wildcards
        run = run_of(wildcards)
        if run in held:
            shown.changes[run] = _changes_of(table.to_pandas(), shown, run, path)
    return ExploredCircuits(placed, circuits, shown.changes, len(changes) - len(shown.changes))


def _placed(nodes: pd.DataFrame) -> pd.DataFrame:
    once = nodes.drop_duplicates("node")[["node", "kind", "layer", "head"]].reset_index(drop=True)
    x, y = node_places(once)
    return once.assign(x=x, y=y)


def _circuits(paths: Sequence[Path], nodes: Mapping[str, pd.DataFrame], limit: int) -> list[Circuit]:
    circuits: list[Circuit] = []
    begun: set[RunKey | None] = {None}
    held = 0
    for path in paths:
        circuit = _read_circuit(path, nodes)
        if circuit.run not in begun and held > limit:
            break
        begun.add(circuit.run)
        circuits.append(circuit)
        held += len(circuit.edges)
    return circuits


def _read_circuit(path: Path, nodes: Mapping[str, pd.DataFrame]) -> Circuit:
    wildcards, edges, scores = read_kept(path, nodes)
    run = None if wildcards["checkpoint"] == BASE_CHECKPOINT else run_of(wildcards)
    return Circuit(wildcards["model"], wildcards["task"], run, wildcards["checkpoint"], edges, scores)


def read_kept(path: Path, nodes: Mapping[str, pd.DataFrame]) -> tuple[dict[str, str], Numbers, Scores]:
    """The wildcards of an edges table, and the numbers (ascending) and scores of the edges that it keeps.

    Args:
        path: the table.
        nodes: of each model, the nodes table.

    Raises:
        FigureDataError: an edge's node is not among the nodes of its model.
    """
    table = read_columns(path, "edges", [*_EDGE, "score", "in_circuit"])
    wildcards = provenance_of(path, table.schema.metadata).wildcards
    kept = table.filter(pc.field("in_circuit"))
    numbers = _numbers(kept, nodes[wildcards["model"]], path)
    order = np.argsort(numbers)
    scores = kept["score"].to_numpy().astype(np.float32)
    return wildcards, numbers[order], scores[order]


def run_of(wildcards: Mapping[str, str]) -> RunKey:
    """The run that a file's wildcards name."""
    return (wildcards["model"], wildcards["task"], wildcards["method"], int(wildcards["seed"]))


def _changes_of(table: pd.DataFrame, shown: ExploredCircuits, run: RunKey, path: Path) -> Changes:
    nodes = shown.nodes[run[0]]
    series = shown.series_of(run)
    union = np.union1d(*(shown.circuits[place].edges for place in (series[0], series[-1])))
    numbered = table.set_index(_numbers(pa.Table.from_pandas(table[_EDGE]), nodes, path))
    if not np.isin(union, numbered.index).all():
        raise FigureDataError(f"{path}: lacks edges of the run's circuits; make it again from the same scores")
    surely = bound_node_changes(table)["change"].reindex(nodes["node"], fill_value="outside")
    return Changes(numbered.loc[union, _CERTAINTY], surely)


def _numbers(edges: pa.Table, nodes: pd.DataFrame, path: Path) -> Numbers:
    names = pa.array(nodes["node"].to_numpy(dtype=object), pa.string())
    source, target = (pc.index_in(edges[end].cast(pa.string()), names).fill_null(-1) for end in ("source", "target"))
    inputs: Any = pc.index_in(edges["qkv"].cast(pa.string()).fill_null(""), pa.array(INPUTS))
    ends = np.stack([column.to_numpy().astype(np.int64) for column in (source, target)])
    if (ends < 0).any():
        raise FigureDataError(f"{path}: an edge touches a node that the model's nodes table lacks")
    numbers: Numbers = 4 * (ends[0] * len(nodes) + ends[1]) + inputs.to_numpy().astype(np.int64)
    return numbers
