"""What training costs: the tidy table that joins each run's tokens, operations and seconds with those of its phase 1.

Seconds are wall time as Snakemake measures whole jobs: start of Python, evaluation and checkpoints included; of a job
that was killed and continued, those of its last attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from circuitdrift.figures import tidy
from circuitdrift.figures.tidy import RUN, FigureDataError

COSTS = ["tokens", "flops", "seconds"]
KEYS = [*RUN, "seed"]


def read_seconds(benchmarks: Sequence[Path], labels: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Seconds of jobs, from the files that Snakemake's ``benchmark`` leaves.

    Args:
        benchmarks: the files.
        labels: model, task, method and seed that each file belongs to, in the same order.

    Returns:
        One row for each run, its files added up: model, task, method, seed and seconds.

    Raises:
        FigureDataError: a file has no seconds.
    """
    rows = []
    for path, label in zip(benchmarks, labels, strict=True):
        measured = pd.read_csv(path, sep="\t")
        if "s" not in measured or not pd.api.types.is_numeric_dtype(measured["s"]) or measured["s"].isna().all():
            raise FigureDataError(f"{path}: no seconds in column 's'; delete it and run the rule that makes it")
        rows.append({**label, "seconds": float(measured["s"].mean())})
    table = pd.DataFrame(rows, columns=[*KEYS, "seconds"])
    return table.groupby(KEYS, sort=False)["seconds"].sum().reset_index()


def training_cost(
    accuracy: pd.DataFrame,
    training_log: pd.DataFrame,
    seconds: pd.DataFrame,
    scoring_seconds: pd.DataFrame,
    phase_1: Mapping[str, str],
) -> pd.DataFrame:
    """Cost and final accuracy (in percent) of each run, with the mean over seeds (``tidy.with_seed_means``).

    Args:
        accuracy: accuracy tables of all runs.
        training_log: training logs of all runs.
        seconds: of each run's fine-tuning job.
        scoring_seconds: of the jobs that scored the circuits of each run that is a phase 1, the base model's included.
        phase_1: the method that is the phase 1 of each method that has one.

    Returns:
        Columns ``tokens``, ``flops`` and ``seconds`` are the run's own; those that begin with ``phase_1_`` are its
        phase 1's (0 without one), ``scoring_seconds`` those of its phase 1's circuits; those that begin with ``total_``
        are the sums of all.

    Raises:
        FigureDataError: the training logs have no column ``flops``.
    """
    if "flops" not in training_log.columns:
        raise FigureDataError("training logs: no column 'flops'; run the fine-tuning rule again")
    counted = training_log.groupby(KEYS, sort=False)[["tokens", "flops"]].max().reset_index()
    own = counted.merge(seconds, on=KEYS, how="left")
    before = own.rename(columns={"method": "phase_1", **{name: f"phase_1_{name}" for name in COSTS}})
    scoring = scoring_seconds.rename(columns={"method": "phase_1", "seconds": "scoring_seconds"})
    keys = ["model", "task", "phase_1", "seed"]
    table = own.assign(phase_1=own["method"].map(dict(phase_1)).astype(object))
    table = table.merge(before, on=keys, how="left").merge(scoring, on=keys, how="left")
    added = [*(f"phase_1_{name}" for name in COSTS), "scoring_seconds"]
    table[added] = table[added].fillna(0)
    for name in COSTS:
        table[f"total_{name}"] = table[name] + table[f"phase_1_{name}"]
    table["total_seconds"] += table["scoring_seconds"]
    final = tidy.final_accuracy(accuracy).query("statistic == 'seed'")
    table = table.merge(final[[*KEYS, "accuracy", "lower", "upper", "trainable_parameters"]], on=KEYS)
    totals = [f"total_{name}" for name in COSTS]
    return tidy.with_seed_means(table, [*RUN, "phase_1"], ["accuracy", "trainable_parameters", *COSTS, *added, *totals])
