"""Functional drift: the circuit of one checkpoint run in the model of another (docs/method.md#functional-drift).

A circuit is a set of edges, so it can run in any model of the same graph. Its faithfulness there says how well these
edges explain that model. The difference to the faithfulness of the model's own circuit says what is lost by taking the
edges of another checkpoint. It is paired: both circuits run on the same prompts, and each resample of the bootstrap
takes the same prompts for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from circuitdrift.circuits.metrics import (
    Values,
    faithfulness,
    measure_circuits,
    percentile_interval,
    resampled_means,
)
from circuitdrift.circuits.prompts import PromptPairs
from circuitdrift.circuits.selection import prune
from circuitdrift.config.circuits import Faithfulness
from circuitdrift.decoder.anatomy import Anatomy
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.random_circuits import random_circuit

SHARED = "shared"
"""Stands for the checkpoint of the circuit that all checkpoints of a run share."""

RANDOM = "random"
"""Stands for the checkpoint of random circuits."""

RANDOM_CIRCUITS = 5
"""Random circuits whose outcomes are averaged, prompt by prompt."""


@dataclass(frozen=True)
class CheckpointCircuit:
    """A circuit and the checkpoint that it comes from.

    Attributes:
        checkpoint: the checkpoint that it was selected at, or :data:`SHARED`.
        seed: the seed of its fine-tuning.
        edges: its edges.
    """

    checkpoint: str
    seed: int
    edges: Bool[Tensor, "writers readers"]


def shared_circuit(
    graph: Graph, circuits: Sequence[Bool[Tensor, "writers readers"]]
) -> Bool[Tensor, "writers readers"]:
    """The edges that all circuits have, pruned; q, k and v edges count as three."""
    pruned: Bool[Tensor, "writers readers"] = prune(graph, torch.stack(list(circuits)).all(dim=0))
    return pruned


def compare_in_model(
    anatomy: Anatomy,
    pairs: PromptPairs,
    own: CheckpointCircuit,
    others: Sequence[CheckpointCircuit],
    measure: Faithfulness,
) -> pd.DataFrame:
    """Run a model's own circuit, circuits of other checkpoints, and random ones, all on the same prompts.

    Args:
        anatomy: the model.
        pairs: the prompts.
        own: the circuit of this model.
        others: circuits of other models of the same graph; equal circuits run once.
        measure: how circuits run, and the resamples of the bootstrap.

    Returns:
        One row for each metric and circuit, in the columns of schema "functional" but ``model_checkpoint``. The last
        circuit of each metric is :data:`RANDOM`, the mean of random circuits that have at least as many edges as
        ``own``; it is absent if ``own`` is empty. Faithfulness, 1 for the whole model, and ``difference``, which is
        faithfulness less that of ``own``, have 95 % percentile intervals over resampled prompts. All are NaN where
        faithfulness is undefined.
    """
    size = int(own.edges.sum())
    draws = [random_circuit(anatomy.graph, size, draw) for draw in range(RANDOM_CIRCUITS)] if size else []
    circuits = [own, *others]
    outcomes = _run_distinct(anatomy, pairs, [*(circuit.edges for circuit in circuits), *draws], measure)
    named = [(circuit.checkpoint, circuit.seed, int(circuit.edges.sum())) for circuit in circuits]
    found = outcomes[: len(circuits)]
    if draws:
        named.append((RANDOM, own.seed, round(float(np.mean([int(draw.sum()) for draw in draws])))))
        drawn = outcomes[len(circuits) :]
        found.append({metric: np.mean([outcome[metric] for outcome in drawn], axis=0) for metric in drawn[0]})
    described = pd.DataFrame(named, columns=["circuit_checkpoint", "circuit_seed", "n_edges"])
    frames = [
        described.assign(metric=metric, **_differences(metric, [outcome[metric] for outcome in found], measure))
        for metric in found[0]
    ]
    return pd.concat(frames, ignore_index=True).assign(examples=len(pairs))


def _run_distinct(
    anatomy: Anatomy, pairs: PromptPairs, circuits: Sequence[Bool[Tensor, "writers readers"]], measure: Faithfulness
) -> list[dict[str, Values]]:
    """The outcomes of :func:`measure_circuits` for each circuit; circuits with the same edges run once."""
    distinct: dict[bytes, int] = {}
    places = [distinct.setdefault(circuit.numpy().tobytes(), len(distinct)) for circuit in circuits]
    first = [circuits[places.index(place)] for place in range(len(distinct))]
    outcomes = measure_circuits(anatomy, pairs, torch.stack(first), measure)
    return [outcomes[place] for place in places]


def _differences(metric: str, values: Sequence[Values], measure: Faithfulness) -> Mapping[str, list[float]]:
    """Faithfulness of each circuit, and its difference to the first, with intervals over the same resamples."""
    stacked = np.stack(values)
    found = faithfulness(metric, stacked.mean(axis=1))
    resampled = faithfulness(metric, resampled_means(stacked, measure.bootstrap))
    columns: dict[str, list[float]] = {}
    for prefix, points, spread in (
        ("", found, resampled),
        ("difference_", found - found[0], resampled - resampled[0]),
    ):
        intervals = [
            (np.nan, np.nan) if np.isnan(point) else percentile_interval(row)
            for point, row in zip(points, spread, strict=True)
        ]
        columns[prefix.removesuffix("_") or "faithfulness"] = points.tolist()
        columns[f"{prefix}lower"] = [lower for lower, _ in intervals]
        columns[f"{prefix}upper"] = [upper for _, upper in intervals]
    return columns
