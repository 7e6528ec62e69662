"""Faithfulness of a circuit to its model, with bootstrap intervals (docs/method.md#faithfulness).

Every metric compares three runs at the positions that predict the answer: the full model on the clean prompt, the
circuit, and the ablated run, in which no edge is kept. With ``patching`` the ablated run is the model on the corrupted
prompt, hence the column's name. ``faithfulness`` is a fraction, 1 for a circuit that behaves as the full model:

============================  ===========================================  =======================================
metric                        full, circuit, corrupted (means)             faithfulness
============================  ===========================================  =======================================
kl_model_circuit              0, KL(model || circuit),                     1 - circuit / corrupted
                              KL(model || corrupted)
kl_from_corrupted             KL(corrupted || model),                      1 - abs(full - circuit) / full
                              KL(corrupted || circuit), 0                  (the paper's, there in per cent)
accuracy                      share of examples in which the answer has    (circuit - corrupted)
                              the largest logit, at each of its tokens     / (full - corrupted)
logit_difference              logit of the clean answer less logit of the  (circuit - corrupted)
                              corrupted answer                             / (full - corrupted)
============================  ===========================================  =======================================

KL divergences are in nats. If answers have several tokens, KL divergences and logit differences are summed over the
tokens (docs/method.md#answers-of-several-tokens). Each token of an answer is right exactly if the run writes this
answer greedily by itself. If the denominator is zero to within rounding, faithfulness and its interval are NaN.
Faithfulness is a ratio of means. Its interval is the 95 % percentile bootstrap over examples; each resample takes an
example's three numbers together.

Over the sizes k of a curve f(k), the MIB benchmark (Mueller et al. 2025) takes two areas by the trapezoidal rule: CPR,
the area under f, and CMD, the area between f and 1 (docs/method.md#faithfulness-areas). MIB takes them for the logit
difference; the table gives them for each metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuitdrift.circuits.ablation import AblatedLogits, ablated_activations, batches_for, run_circuits
from circuitdrift.circuits.memory import (
    FittingBatches,
    bytes_to_run_a_circuit,
    circuits_at_once,
    examples_at_once,
    largest_pair,
)
from circuitdrift.circuits.objectives import logit_difference
from circuitdrift.circuits.prompts import PairBatch, PromptPairs, pair_batches
from circuitdrift.circuits.selection import resized, select_circuit, size_of_own_circuit, tensors_of_table
from circuitdrift.compute import progress
from circuitdrift.config.circuits import Faithfulness, Selection
from circuitdrift.decoder.anatomy import Anatomy
from circuitdrift.decoder.graph import Graph
from circuitdrift.decoder.logits import kl_divergence, log_probabilities
from circuitdrift.intervals import CONFIDENCE

METRICS_OF_OUTPUTS = ("kl_model_circuit", "kl_from_corrupted")
"""The metrics that compare outputs alone, and need no answers."""

METRICS = (*METRICS_OF_OUTPUTS, "accuracy", "logit_difference")

SMALLEST_DENOMINATOR = 1e-9
"""A smaller denominator counts as zero."""

BOOTSTRAP_SEED = 0

Values = NDArray[np.float64]
"""A metric's values of shape [examples, 3]: full, circuit, corrupted."""


@dataclass(frozen=True)
class SizedCircuit:
    """A circuit of a curve.

    Attributes:
        size_fraction: the share of the graph's edges that was asked for.
        edges: its edges, pruned.
        is_own: whether it is the study's own circuit of this checkpoint.
    """

    size_fraction: float
    edges: Bool[Tensor, "writers readers"]
    is_own: bool


def sized_circuits(
    graph: Graph, edges: pd.DataFrame, size_fractions: Sequence[float], choice: Selection
) -> list[SizedCircuit]:
    """The circuits of a curve, smallest first: one of each given size, and the study's own.

    Args:
        graph: the model's graph.
        edges: the edges table, with all scores and the study's own circuit.
        size_fractions: shares of all edges.
        choice: how the study selects its own circuit.
    """
    scores, own = tensors_of_table(graph, edges)
    own_size = size_of_own_circuit(graph, own, choice)
    others = [size for size in {*size_fractions} if size != own_size]
    circuits = [
        SizedCircuit(size, select_circuit(graph, scores, resized(choice, size)), is_own=False) for size in others
    ]
    return sorted([*circuits, SizedCircuit(own_size, own, is_own=True)], key=lambda circuit: circuit.size_fraction)


def faithfulness_curve(
    circuits: Sequence[SizedCircuit], outcomes: Sequence[dict[str, Values]], resamples: int
) -> pd.DataFrame:
    """Faithfulness of circuits of several sizes, in the columns of schema "faithfulness".

    Args:
        circuits: the circuits, smallest first.
        outcomes: their outcomes, from :func:`measure_circuits`.
        resamples: number of resamples of the bootstrap.

    Returns:
        One row for each circuit and metric; ``n_edges`` counts edges after pruning, ``lower`` and ``upper`` bound
        ``faithfulness``.
    """
    rows = [
        {
            "size_fraction": circuit.size_fraction,
            "n_edges": int(circuit.edges.sum()),
            "own_circuit": circuit.is_own,
            **summarise(metric, outcome[metric], resamples),
        }
        for circuit, outcome in zip(circuits, outcomes, strict=True)
        for metric in outcome
    ]
    return pd.DataFrame(rows)


def tabulate_recipe_faithfulness(
    outcomes: Mapping[str, dict[str, Values]], circuits: Bool[Tensor, "circuit writers readers"], resamples: int
) -> pd.DataFrame:
    """Faithfulness of the circuits of several recipes, and its difference from the first's.

    Args:
        outcomes: from :func:`measure_circuits`, by recipe, the study's own first.
        circuits: the circuits, in the same order.
        resamples: number of resamples of the bootstrap.

    Returns:
        Columns of the ``recipe_faithfulness`` schema, one row for each recipe and metric; ``lower`` and ``upper``
        bound ``faithfulness``, the other two bounds ``difference``, which resamples the same examples for both.
    """
    own = next(iter(outcomes.values()))
    rows = []
    for (recipe, outcome), circuit in zip(outcomes.items(), circuits, strict=True):
        for metric in outcome:
            difference = difference_of_faithfulness(metric, outcome[metric], own[metric], resamples)
            names = ("difference", "difference_lower", "difference_upper")
            rows.append(
                {
                    "recipe": recipe,
                    "n_edges": int(circuit.sum()),
                    **summarise(metric, outcome[metric], resamples),
                    **dict(zip(names, difference, strict=True)),
                }
            )
    return pd.DataFrame(rows)


def faithfulness_areas(
    circuits: Sequence[SizedCircuit], outcomes: Sequence[dict[str, Values]], measure: Faithfulness
) -> pd.DataFrame:
    """CPR and CMD of a curve by each metric, in the columns of schema "faithfulness_areas".

    Args:
        circuits: the circuits, smallest first; the sizes of ``measure.size_fractions`` make up the curve.
        outcomes: their outcomes, from :func:`measure_circuits`.
        measure: the sizes, and the resamples of the bootstrap, which takes an example's numbers at all sizes together.

    Returns:
        One row for each metric and area; NaN if there are fewer than two sizes or faithfulness is undefined.
    """
    curve = [
        (c.size_fraction, o)
        for c, o in zip(circuits, outcomes, strict=True)
        if c.size_fraction in measure.size_fractions
    ]
    sizes = [size for size, _ in curve]
    rows: list[dict[str, object]] = []
    for metric in outcomes[0]:
        for area, found in _areas(metric, sizes, [outcome for _, outcome in curve], measure.bootstrap).items():
            rows.append({"metric": metric, "area": area, **dict(zip(_BOUNDED, _with_interval(*found), strict=True))})
    return pd.DataFrame(rows).assign(n_sizes=len(sizes), smallest=min(sizes), largest=max(sizes))


def tabulate_recipe_areas(
    outcomes: Mapping[str, Sequence[dict[str, Values]]], sizes: Sequence[float], resamples: int
) -> pd.DataFrame:
    """CPR and CMD of the curves of several recipes, and their differences from the first's.

    Args:
        outcomes: from :func:`measure_circuits`, by recipe, the study's own first, one for each size.
        sizes: the sizes, smallest first.
        resamples: number of resamples of the bootstrap, which takes an example's numbers at all sizes together, and
            the same examples for both curves of a difference.

    Returns:
        Columns of the ``recipe_areas`` schema, one row for each recipe, metric and area; NaN if there are fewer than
        two sizes or faithfulness is undefined.
    """
    own_curve = next(iter(outcomes.values()))
    own = {metric: _areas(metric, sizes, own_curve, resamples) for metric in own_curve[0]}
    rows = []
    for recipe, curve in outcomes.items():
        for metric in own:
            for area, (value, resampled) in _areas(metric, sizes, curve, resamples).items():
                own_value, own_resampled = own[metric][area]
                less = _with_interval(value - own_value, resampled - own_resampled)
                rows.append(
                    {
                        "recipe": recipe,
                        "metric": metric,
                        "area": area,
                        **dict(zip(_BOUNDED, _with_interval(value, resampled), strict=True)),
                        **dict(zip(("difference", "difference_lower", "difference_upper"), less, strict=True)),
                    }
                )
    return pd.DataFrame(rows).assign(n_sizes=len(sizes), smallest=min(sizes), largest=max(sizes))


_BOUNDED = ("value", "lower", "upper")


def _areas(
    metric: str, sizes: Sequence[float], curve: Sequence[dict[str, Values]], resamples: int
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Each area of a curve, and the same of each resample; NaN where the curve is no curve or undefined."""
    values = np.stack([outcome[metric] for outcome in curve])
    found = faithfulness(metric, values.mean(axis=1))
    if len(sizes) < 2 or np.isnan(found).any():
        return {area: (np.nan, np.full(resamples, np.nan)) for area in _ORDINATES}
    resampled = faithfulness(metric, resampled_means(values, resamples))
    return {
        area: (float(np.trapezoid(of(found), sizes)), np.asarray(np.trapezoid(of(resampled), sizes, axis=0)))
        for area, of in _ORDINATES.items()
    }


def _with_interval(value: float, resampled: NDArray[np.float64]) -> tuple[float, float, float]:
    return (np.nan, np.nan, np.nan) if np.isnan(value) else (value, *percentile_interval(resampled))


_ORDINATES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "cpr": lambda curve: curve,
    "cmd": lambda curve: np.abs(1.0 - curve),
}


def measure_circuits(
    anatomy: Anatomy, pairs: PromptPairs, circuits: Bool[Tensor, "circuit writers readers"], measure: Faithfulness
) -> list[dict[str, Values]]:
    """For each circuit and metric the values of every example: [examples, 3], full, circuit, corrupted.

    The logit differences of an example without a corrupted answer are NaN. Without answers there are
    :data:`METRICS_OF_OUTPUTS` alone.

    Raises:
        MemoryLimitError: memory ran out with a single example at once.
    """
    needed = bytes_to_run_a_circuit(anatomy, largest_pair(anatomy, pairs))
    batch_size = examples_at_once(anatomy, measure.batch_size, needed)
    at_once = circuits_at_once(anatomy, batch_size, needed)
    batches = batches_for(measure.ablation, pair_batches(pairs, batch_size, anatomy.device))
    ablated = ablated_activations(anatomy, batches, measure.ablation)
    metrics = METRICS if pairs.have_answers else METRICS_OF_OUTPUTS
    outcomes = [{metric: np.full((len(pairs), 3), np.nan) for metric in metrics} for _ in circuits]

    def values_of_circuits(batch: PairBatch) -> list[dict[str, Values]]:
        runs = run_circuits(anatomy, batch, circuits, ablated, at_once)
        return [_values_of_batch(runs, logits, batch) for logits in runs.circuits]

    fitting = FittingBatches()
    for batch in progress(batches, f"running {len(circuits)} circuits, batches", len(batches)):
        for part, found in fitting.run(batch, values_of_circuits):
            for outcome, measured in zip(outcomes, found, strict=True):
                for metric, values in measured.items():
                    outcome[metric][list(part.indices)] = values
    unknown = [i for i, answer in enumerate(pairs.corrupted_answers) if not len(answer)]
    for outcome in outcomes if pairs.have_answers else ():
        outcome["logit_difference"][unknown] = np.nan
    return outcomes


def _values_of_batch(
    runs: AblatedLogits, circuit: Float[Tensor, "batch answer vocabulary"], batch: PairBatch
) -> dict[str, Values]:
    three = (runs.clean, circuit, runs.ablated)
    clean, _, ablated = found = [log_probabilities(logits) for logits in three]
    columns = {
        "kl_model_circuit": [kl_divergence(clean, each).sum(dim=1) for each in found],
        "kl_from_corrupted": [kl_divergence(ablated, each).sum(dim=1) for each in found],
    }
    if batch.known_answers is not None:
        answers, others = batch.known_answers
        columns["accuracy"] = [(logits.argmax(dim=-1) == answers).all(dim=1) for logits in three]
        columns["logit_difference"] = [logit_difference(logits, answers, others).sum(dim=1) for logits in three]
    return {metric: torch.stack(values, dim=-1).cpu().numpy().astype("float64") for metric, values in columns.items()}


def summarise(metric: str, values: Values, resamples: int) -> dict[str, object]:
    """Means over examples, faithfulness and its interval: a row of the table without size and edges."""
    means = values.mean(axis=0)
    value = float(faithfulness(metric, means))
    lower, upper = (np.nan, np.nan) if np.isnan(value) else bootstrap_interval(metric, values, resamples)
    return {
        "metric": metric,
        "full": means[0],
        "circuit": means[1],
        "corrupted": means[2],
        "faithfulness": value,
        "lower": lower,
        "upper": upper,
    }


def faithfulness(metric: str, means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Faithfulness from the means of full, circuit and corrupted, which are the last axis (length 3).

    Formulas are in the module's table; NaN if the denominator is smaller than :data:`SMALLEST_DENOMINATOR`.
    """
    full, circuit, corrupted = means[..., 0], means[..., 1], means[..., 2]
    if metric == "kl_from_corrupted":
        numerator, denominator = full - np.abs(full - circuit), full
    else:
        # For kl_model_circuit, whose full-model value is zero, this is 1 - circuit / corrupted.
        numerator, denominator = circuit - corrupted, full - corrupted
    defined = np.abs(denominator) >= SMALLEST_DENOMINATOR
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def bootstrap_interval(metric: str, values: Values, resamples: int) -> tuple[float, float]:
    """95 % percentile interval of faithfulness over resampled examples; undefined values drop out."""
    return percentile_interval(faithfulness(metric, resampled_means(values, resamples)))


def difference_of_faithfulness(metric: str, values: Values, base: Values, resamples: int) -> tuple[float, float, float]:
    """Faithfulness of a circuit less that of another on the same examples, with its 95 % percentile interval.

    Each resample takes the same examples for both, so that what makes an example hard for both cancels.

    Returns:
        The difference and the interval's bounds; NaN where either is undefined.
    """
    found = float(faithfulness(metric, values.mean(axis=0)) - faithfulness(metric, base.mean(axis=0)))
    if np.isnan(found):
        return np.nan, np.nan, np.nan
    one, other = (faithfulness(metric, resampled_means(each, resamples)) for each in (values, base))
    return found, *percentile_interval(one - other)


def resampled_means(
    values: Float[np.ndarray, "*curve example 3"], resamples: int
) -> Float[np.ndarray, "*curve resample 3"]:
    """Means over resampled examples; equal numbers of examples are resampled alike, so that calls are paired.

    Each resample draws how often every example is taken, so that all means are one matrix product.
    """
    n = values.shape[-2]
    counts = np.random.default_rng(BOOTSTRAP_SEED).multinomial(n, np.full(n, 1.0 / n), size=resamples)
    means: NDArray[np.float64] = counts @ values / n
    return means


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % percentile interval of resampled values, of which some may be NaN."""
    tail = (1.0 - CONFIDENCE) / 2.0
    lower, upper = np.nanquantile(values, [tail, 1.0 - tail])
    return float(lower), float(upper)
