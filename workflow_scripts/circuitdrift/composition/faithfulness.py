"""Faithfulness of united circuits on the compositional task, over sizes and beside controls.

See docs/method.md#composition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from circuitdrift.circuits.metrics import difference_of_faithfulness, measure_circuits, summarise
from circuitdrift.circuits.prompts import PromptPairs
from circuitdrift.circuits.selection import resized, select_circuit, size_of_own_circuit
from circuitdrift.composition.unions import Scale, ScoredCircuit, intersect, unite
from circuitdrift.config.circuits import Faithfulness, Selection
from circuitdrift.decoder.anatomy import Anatomy
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.random_circuits import random_circuit, random_scores

OWN, UNION, INTERSECTION = "own", "union", "intersection"
RANDOM_UNION, UNRELATED_UNION = "random_union", "unrelated_union"


@dataclass(frozen=True)
class TaskCircuits:
    """The circuits that one model has on several tasks.

    Attributes:
        own: on the compositional task.
        sub_tasks: on its sub-tasks.
        unrelated: on two tasks that have no operation in common with it; none where the study has no two.
    """

    own: ScoredCircuit
    sub_tasks: Sequence[ScoredCircuit]
    unrelated: Sequence[ScoredCircuit]


@dataclass(frozen=True)
class UnitedCircuit:
    """A circuit that is run on the compositional task.

    Attributes:
        kind: own, union, intersection, random_union or unrelated_union.
        draw: number of a random union; 0 for other kinds.
        size_fraction: the share of edges by which the circuits of the tasks were selected.
        edges: its edges, pruned.
    """

    kind: str
    draw: int
    size_fraction: float
    edges: Bool[Tensor, "writers readers"]


def united_circuits(
    graph: Graph,
    circuits: TaskCircuits,
    size_fractions: Sequence[float],
    random_unions: int,
    scale: Scale,
    choice: Selection,
) -> list[UnitedCircuit]:
    """The own circuit of the compositional task, united circuits and controls at each size, smallest first.

    At a given size the circuit of each task is selected anew from its scores. At the size of the study's own circuit
    each task has the circuit that the study selected. Circuits are united and cut as in
    :mod:`circuitdrift.composition.unions`, to the edges that the own circuit has at this size.

    Args:
        graph: the model's graph.
        circuits: the circuits that the study selected.
        size_fractions: shares of all edges.
        random_unions: number of draws of the random control.
        scale: how scores of two tasks are put on one scale.
        choice: how the study selects circuits.
    """
    own_size = size_of_own_circuit(graph, circuits.own.edges, choice)
    found = _at_size(graph, circuits, own_size, random_unions, scale)
    for size in {*size_fractions} - {own_size}:
        found += _at_size(graph, _resized(graph, circuits, resized(choice, size)), size, random_unions, scale)
    return sorted(found, key=lambda circuit: circuit.size_fraction)


def _resized(graph: Graph, circuits: TaskCircuits, choice: Selection) -> TaskCircuits:
    def anew(circuit: ScoredCircuit) -> ScoredCircuit:
        return ScoredCircuit(circuit.scores, select_circuit(graph, circuit.scores, choice))

    return TaskCircuits(anew(circuits.own), [*map(anew, circuits.sub_tasks)], [*map(anew, circuits.unrelated)])


def _at_size(
    graph: Graph, circuits: TaskCircuits, size_fraction: float, random_unions: int, scale: Scale
) -> list[UnitedCircuit]:
    """The circuits of one size; an empty circuit of a sub-task has no random twin."""
    size, sub_tasks = circuits.own.size, circuits.sub_tasks
    found = {(OWN, 0): circuits.own}
    found[UNION, 0] = unite(graph, sub_tasks, size, scale)
    found[INTERSECTION, 0] = intersect(graph, sub_tasks, size, scale)
    for draw in range(random_unions if all(circuit.size for circuit in sub_tasks) else 0):
        drawn = [_random_twin(graph, circuit, draw * len(sub_tasks) + place) for place, circuit in enumerate(sub_tasks)]
        found[RANDOM_UNION, draw] = unite(graph, drawn, size, scale)
    if circuits.unrelated:
        found[UNRELATED_UNION, 0] = unite(graph, circuits.unrelated, size, scale)
    return [UnitedCircuit(kind, draw, size_fraction, circuit.edges) for (kind, draw), circuit in found.items()]


def _random_twin(graph: Graph, circuit: ScoredCircuit, draw: int) -> ScoredCircuit:
    """A random circuit of the same size, with the scores by which it was drawn."""
    return ScoredCircuit(random_scores(graph, draw), random_circuit(graph, circuit.size, draw))


def measure_united(
    anatomy: Anatomy, pairs: PromptPairs, circuits: Sequence[UnitedCircuit], measure: Faithfulness
) -> pd.DataFrame:
    """Run the circuits on the same prompts of the compositional task.

    Args:
        anatomy: the model.
        pairs: the prompts.
        circuits: from :func:`united_circuits`.
        measure: how circuits run, and the resamples of the bootstrap.

    Returns:
        Columns of the ``union_faithfulness`` schema but ``checkpoint``, one row for each circuit and metric.
        ``difference`` is faithfulness less that of the own circuit of the same size; its interval resamples the same
        prompts for both. Intervals are 95 % percentile bootstraps over prompts.
    """
    outcomes = measure_circuits(anatomy, pairs, torch.stack([circuit.edges for circuit in circuits]), measure)
    own = {c.size_fraction: outcome for c, outcome in zip(circuits, outcomes, strict=True) if c.kind == OWN}
    rows = []
    for circuit, outcome in zip(circuits, outcomes, strict=True):
        for metric, values in outcome.items():
            summary = summarise(metric, values, measure.bootstrap)
            own_values = own[circuit.size_fraction][metric]
            difference = difference_of_faithfulness(metric, values, own_values, measure.bootstrap)
            rows.append(
                {
                    "circuit": circuit.kind,
                    "draw": circuit.draw,
                    "size_fraction": circuit.size_fraction,
                    "n_edges": int(circuit.edges.sum()),
                    **{name: summary[name] for name in ("metric", "faithfulness", "lower", "upper")},
                    **dict(zip(("difference", "difference_lower", "difference_upper"), difference, strict=True)),
                }
            )
    return pd.DataFrame(rows)
