"""How faithful a circuit is to its model: measures over examples, normalised, with bootstrap intervals.

Every measure compares three runs at the last position: the full model on the clean prompt, the circuit, and the
model on the corrupted prompt. ``faithfulness`` is a fraction, 1 for a circuit that does as the full model does:

============================  ===========================================  =======================================
metric                        full, circuit, corrupted (means)             faithfulness
============================  ===========================================  =======================================
kl_model_circuit              0, KL(model || circuit),                     1 - circuit / corrupted
                              KL(model || corrupted)
kl_from_corrupted             KL(corrupted || model),                      1 - abs(full - circuit) / full
                              KL(corrupted || circuit), 0                  (PAPER section 4.4, there in per cent)
accuracy                      share of examples whose largest logit is     (circuit - corrupted)
                              the clean answer's                           / (full - corrupted)
logit_difference              logit of the clean answer less that of the   (circuit - corrupted)
                              corrupted answer                             / (full - corrupted)
============================  ===========================================  =======================================

KL divergences are in nats. Where the denominator is zero to within rounding, faithfulness and its interval are NaN.
Faithfulness is a ratio of means: its interval is the 95 % percentile bootstrap over examples, each resample taking
an example's three numbers together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuitdrift.circuits.ablation import AblatedLogits, run_circuits
from circuitdrift.circuits.attribution import kl_divergence
from circuitdrift.circuits.prompts import pair_batches
from circuitdrift.circuits.selection import top_circuit
from circuitdrift.config.circuits import Faithfulness
from circuitdrift.intervals import CONFIDENCE
from circuitdrift.models.anatomy import Anatomy

METRICS = ("kl_model_circuit", "kl_from_corrupted", "accuracy", "logit_difference")

SMALLEST_DENOMINATOR = 1e-9
"""Below this a denominator counts as zero."""

BOOTSTRAP_SEED = 0

Runs = NDArray[np.float64]
"""Numbers of shape [examples, 3]: full, circuit, corrupted."""


@dataclass(frozen=True)
class PromptPairs:
    """Examples as token ids: prompts, and the one token of each answer."""

    clean: Sequence[Sequence[int]]
    corrupted: Sequence[Sequence[int]]
    answers: Int[Tensor, " example"]
    corrupted_answers: Int[Tensor, " example"]


def prompt_pairs(examples: pd.DataFrame) -> PromptPairs:
    """Take the token ids out of a table of schema "examples".

    Raises:
        ValueError: an answer is not one token.
    """
    for column in ("answer_ids", "corrupted_answer_ids"):
        lengths = examples[column].map(len).to_numpy()
        if (lengths != 1).any():
            example = examples["example_id"].to_numpy()[lengths != 1][0]
            raise ValueError(
                f"example {example}: {column} holds {lengths[lengths != 1][0]} tokens, but circuits are measured on "
                "answers of one token; set the task's answer_tokens to single"
            )
    return PromptPairs(
        clean=[list(map(int, ids)) for ids in examples["clean_ids"]],
        corrupted=[list(map(int, ids)) for ids in examples["corrupted_ids"]],
        answers=torch.tensor([int(ids[0]) for ids in examples["answer_ids"]]),
        corrupted_answers=torch.tensor([int(ids[0]) for ids in examples["corrupted_answer_ids"]]),
    )


def faithfulness_curve(
    anatomy: Anatomy,
    pairs: PromptPairs,
    scores: Float[Tensor, "writers readers"],
    measure: Faithfulness,
    fraction: float,
) -> pd.DataFrame:
    """Faithfulness of the circuits of several sizes, in the columns of schema "faithfulness".

    Args:
        anatomy: the model.
        pairs: the examples to measure on.
        scores: the edges' scores, which rank them.
        measure: sizes as shares of all edges, batch size, number of resamples.
        fraction: the size of the study's own circuit, which is always among the sizes.

    Returns:
        One row for each size and metric, smallest size first; ``n_edges`` counts edges after pruning, ``lower`` and
        ``upper`` bound ``faithfulness``.
    """
    sizes = sorted({*measure.size_fractions, fraction})
    circuits = [top_circuit(anatomy.graph, scores, size) for size in sizes]
    outcomes = measure_circuits(anatomy, pairs, circuits, measure.batch_size)
    rows = [
        {"size_fraction": size, "n_edges": int(circuit.sum()), **summary}
        for size, circuit, outcome in zip(sizes, circuits, outcomes, strict=True)
        for summary in (summarise(metric, outcome[metric], measure.bootstrap) for metric in METRICS)
    ]
    return pd.DataFrame(rows)


def measure_circuits(
    anatomy: Anatomy, pairs: PromptPairs, circuits: Sequence[Bool[Tensor, "writers readers"]], batch_size: int
) -> list[dict[str, Runs]]:
    """For each circuit and metric, the numbers of every example: [examples, 3], full, circuit, corrupted."""
    outcomes = [{metric: np.full((len(pairs.clean), 3), np.nan) for metric in METRICS} for _ in circuits]
    for batch in pair_batches(pairs.clean, pairs.corrupted, batch_size, anatomy.device):
        indices = np.array(batch.indices)
        runs = run_circuits(anatomy, batch, circuits)
        answers = torch.stack([pairs.answers[indices], pairs.corrupted_answers[indices]])
        for outcome, logits in zip(outcomes, runs.circuits, strict=True):
            for metric, values in _of_examples(runs, logits, answers.to(anatomy.device)).items():
                outcome[metric][indices] = values
    return outcomes


def _of_examples(
    runs: AblatedLogits, circuit: Float[Tensor, "batch vocabulary"], answers: Int[Tensor, "2 batch"]
) -> dict[str, Runs]:
    three = (runs.clean, circuit, runs.corrupted)
    clean_answer, corrupted_answer = answers[0, :, None], answers[1, :, None]
    columns = {
        "kl_model_circuit": [kl_divergence(runs.clean, logits) for logits in three],
        "kl_from_corrupted": [kl_divergence(runs.corrupted, logits) for logits in three],
        "accuracy": [logits.argmax(dim=-1) == answers[0] for logits in three],
        "logit_difference": [
            (logits.gather(1, clean_answer).float() - logits.gather(1, corrupted_answer).float())[:, 0]
            for logits in three
        ],
    }
    return {metric: torch.stack(values, dim=-1).cpu().numpy().astype("float64") for metric, values in columns.items()}


def summarise(metric: str, runs: Runs, resamples: int) -> dict[str, object]:
    """Means of the three runs, faithfulness, and its interval: a row of the table, less size and edges."""
    means = runs.mean(axis=0)
    value = float(faithfulness(metric, means))
    lower, upper = (np.nan, np.nan) if np.isnan(value) else bootstrap_interval(metric, runs, resamples)
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
    """Faithfulness from the means of full, circuit and corrupted run, which stand in the last axis (length 3).

    Formulas are in the module's table; NaN where the denominator is smaller than :data:`SMALLEST_DENOMINATOR`.
    """
    full, circuit, corrupted = means[..., 0], means[..., 1], means[..., 2]
    if metric == "kl_from_corrupted":
        numerator, denominator = full - np.abs(full - circuit), full
    else:
        # For kl_model_circuit, whose full-model value is zero, this is 1 - circuit / corrupted.
        numerator, denominator = circuit - corrupted, full - corrupted
    defined = np.abs(denominator) >= SMALLEST_DENOMINATOR
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def bootstrap_interval(metric: str, runs: Runs, resamples: int) -> tuple[float, float]:
    """95 % percentile interval of faithfulness over resampled examples; resamples where it is undefined drop out.

    Each resample is a draw of how often every example is taken, so that all means are one matrix product.
    """
    n = len(runs)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    counts = generator.multinomial(n, np.full(n, 1.0 / n), size=resamples)
    values = faithfulness(metric, counts @ runs / n)
    tail = (1.0 - CONFIDENCE) / 2.0
    lower, upper = np.nanquantile(values, [tail, 1.0 - tail])
    return float(lower), float(upper)
