"""The search for a learning rate: the held-out part of the train split, the best trial, and the table of trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from circuitdrift.errors import CircuitDriftError
from circuitdrift.intervals import wilson_interval
from circuitdrift.storage import StorageError, read_table
from circuitdrift.training.evaluation import Score


class SearchError(CircuitDriftError):
    """A search that is impossible or finds no rate; the message names the fix."""


@dataclass(frozen=True)
class Trial:
    """One tried learning rate.

    Attributes:
        factor: multiple of the method's own learning rate.
        learning_rate: peak learning rate of the trial.
        score: score on the held-out prompts at the end of the trial; None if the trial diverged.
    """

    factor: float
    learning_rate: float
    score: Score | None


def hold_out(examples: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table of examples by clean prompt, so that the two parts share no prompt.

    Args:
        examples: the train split.
        share: share of the prompts to hold out; at least one prompt is held out.
        seed: seed of the draw.

    Returns:
        The examples to train on and the held-out examples, each in the order of the table.

    Raises:
        SearchError: no prompt would be left to train on.
    """
    prompts = examples["clean"].unique()
    n_held_out = max(1, round(share * len(prompts)))
    if n_held_out >= len(prompts):
        raise SearchError(
            f"learning_rate_search.validation_share: {share:g} of {len(prompts)} train prompts leaves none to train "
            "on; lower it, or raise the task's train"
        )
    held_out = prompts[np.random.default_rng(seed).permutation(len(prompts))[:n_held_out]]
    chosen = examples["clean"].isin(held_out)
    return examples[~chosen].reset_index(drop=True), examples[chosen].reset_index(drop=True)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the most correct answers; of equal trials the lowest loss wins, then the lowest rate.

    Raises:
        SearchError: every trial diverged.
    """
    finished = [
        (-trial.score.correct, trial.score.answer_loss, trial.learning_rate, trial) for trial in trials if trial.score
    ]
    if not finished:
        rates = ", ".join(f"{trial.learning_rate:g}" for trial in trials)
        raise SearchError(
            f"learning_rate_search.rates: training diverged at every rate ({rates}); add smaller factors, or lower the "
            "method's learning_rate"
        )
    return min(finished, key=lambda entry: entry[:3])[3]


def trials_table(trials: Sequence[Trial], n_held_out: int) -> pd.DataFrame:
    """The ``trials`` table: a row for each trial with the 95 % Wilson interval; empty values for a diverged trial.

    Args:
        trials: all trials of a search, in order.
        n_held_out: number of held-out examples.

    Raises:
        SearchError: every trial diverged.
    """
    best = best_trial(trials)
    rows = []
    for trial in trials:
        row = {"factor": trial.factor, "learning_rate": trial.learning_rate, "n": n_held_out, "chosen": trial is best}
        if score := trial.score:
            lower, upper = wilson_interval(score.correct, score.n)
            row |= {"accuracy": score.correct / score.n, "lower": lower, "upper": upper, "loss": score.answer_loss}
        rows.append(row)
    return pd.DataFrame(rows)


def chosen_rate(trials: Path) -> float:
    """The learning rate that a search chose.

    Raises:
        StorageError: the table cannot be read, or does not mark exactly one trial as chosen.
    """
    table = read_table(trials, "trials")
    rates = table.loc[table["chosen"], "learning_rate"].tolist()
    if len(rates) != 1:
        raise StorageError(f"{trials}: {len(rates)} trials are marked as chosen; delete the file and run again")
    return float(rates[0])
