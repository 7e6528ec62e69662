"""The table of what training costs: each run's tokens, operations and seconds, alone and with its phase 1.

Seconds are wall time as Snakemake measures whole jobs: start of Python, evaluation and checkpoints included; of a job
that was killed and continued, the seconds of its last attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of, seeds_phrase
from circuitdrift.figures.tidy import RUN, FigureDataError, final_accuracy, with_seed_means
from circuitdrift.method_pairs import phase_1_runs
from circuitdrift.storage import fix_of_damage

_COSTS = ["tokens", "flops", "seconds"]
_KEYS = [*RUN, "seed"]


def table(
    accuracy: pd.DataFrame,
    training_log: pd.DataFrame,
    benchmarks: Sequence[Path],
    scoring_benchmarks: Sequence[Path],
    benchmarked: Sequence[Mapping[str, Any]],
    scored: Sequence[Mapping[str, Any]],
    phase_1: Mapping[str, str],
    united: Mapping[str, Mapping[str, Sequence[str]]],
    labels: MethodLabels,
) -> Table:
    """What each method's training costs by task, alone and with phase 1, beside its accuracy.

    Args:
        accuracy: accuracy tables of all runs.
        training_log: training logs of all runs.
        benchmarks: Snakemake's measurements of all fine-tuning jobs.
        scoring_benchmarks: Snakemake's measurements of the jobs that scored the circuits of each phase 1.
        benchmarked: model, task, method and seed of each of ``benchmarks``.
        scored: model, task, method and seed of each of ``scoring_benchmarks``.
        phase_1: the method that is the phase 1 of each method that has one.
        united: for each method that follows the union of sub-tasks' circuits, the sub-tasks of each task.
        labels: of the study's methods.
    """
    seconds, scoring_seconds = read_seconds(benchmarks, benchmarked), read_seconds(scoring_benchmarks, scored)
    cost = cost_of_runs(accuracy, training_log, seconds, scoring_seconds, phase_1, united)
    means = cost[cost["statistic"] == "mean"]
    rows = [
        {
            "Model": row["model"],
            "Task": task_label(row["task"]),
            "Method": labels.of(row["method"]),
            "Trainable parameters": f"{row['trainable_parameters']:,.0f}",
            "Accuracy (%)": f"{row['accuracy']:.1f}",
            "Tokens": f"{row['tokens']:,.0f}",
            "FLOPs": f"{row['flops']:.2e}",
            "Seconds": f"{row['seconds']:,.1f}",
            "Phase 1": labels.of(row["phase_1"]) if pd.notna(row["phase_1"]) else EMPTY,
            "Tokens with phase 1": f"{row['total_tokens']:,.0f}",
            "FLOPs with phase 1": f"{row['total_flops']:.2e}",
            "Seconds with phase 1": f"{row['total_seconds']:,.1f}",
        }
        for row in means.to_dict("records")
    ]
    note = (
        f"Mean over {seeds_phrase(means)}. Tokens are those of the examples, FLOPs those of the matrix products of "
        "training, forward and backward; tokens that all prompts begin with are run once for a whole batch. Seconds "
        "are wall time of whole jobs on the machine at hand, start, evaluation and checkpoints included. With phase 1: "
        "its fine-tuning, and in the seconds also the scoring of its circuits at all checkpoints, though the first and "
        "the last are enough to rank layers; a method that follows the union of sub-tasks' circuits needs phase 1 on "
        "three tasks. Not counted: FLOPs of scoring, what a method does before its first step, "
        "the selection of circuits, a search for learning rates."
    )
    return Table("Training cost", note, cost, layout_of(rows))


def read_seconds(benchmarks: Sequence[Path], runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Seconds of jobs, from the files that Snakemake's ``benchmark`` leaves.

    Args:
        benchmarks: the files.
        runs: model, task, method and seed of each file, in the same order.

    Returns:
        One row for each run, its files added up: model, task, method, seed and seconds.

    Raises:
        FigureDataError: a file has no seconds.
    """
    rows = [{**run, "seconds": seconds_of_job(path)} for path, run in zip(benchmarks, runs, strict=True)]
    table = pd.DataFrame(rows, columns=[*_KEYS, "seconds"])
    return table.groupby(_KEYS, sort=False)["seconds"].sum().reset_index()


def seconds_of_job(benchmark: Path) -> float:
    """Wall time of a job, from the file that Snakemake's ``benchmark`` leaves.

    The file says it twice, in seconds and in hours, minutes and seconds, and the two are compared: Snakemake writes it
    after the job, so it cannot hold a seal.

    Raises:
        FigureDataError: the file has no seconds, or was damaged.
    """
    measured = pd.read_csv(benchmark, sep="\t")
    if "s" not in measured or not pd.api.types.is_numeric_dtype(measured["s"]) or measured["s"].isna().all():
        raise FigureDataError(f"{benchmark}: no seconds in column 's'; {fix_of_damage(benchmark)}")
    clock = pd.to_timedelta(measured.reindex(columns=["h:m:s"])["h:m:s"], errors="coerce").dt.total_seconds()
    if not (measured["s"] - clock).between(-0.01, 1.01).all():  # whole seconds, cut off
        raise FigureDataError(f"{benchmark}: 's' and 'h:m:s' differ, so it was damaged; {fix_of_damage(benchmark)}")
    return float(measured["s"].mean())


def cost_of_runs(
    accuracy: pd.DataFrame,
    training_log: pd.DataFrame,
    seconds: pd.DataFrame,
    scoring_seconds: pd.DataFrame,
    phase_1: Mapping[str, str],
    united: Mapping[str, Mapping[str, Sequence[str]]],
) -> pd.DataFrame:
    """Cost and final accuracy (in percent) of each run, with the mean over seeds (``with_seed_means``).

    Args:
        accuracy: accuracy tables of all runs.
        training_log: training logs of all runs.
        seconds: of each run's fine-tuning job.
        scoring_seconds: of the jobs that scored the circuits of each run that is a phase 1, the base model's included.
        phase_1: the method that is the phase 1 of each method that has one.
        united: for each method that follows the union of sub-tasks' circuits, the sub-tasks of each task.

    Returns:
        Columns ``tokens``, ``flops`` and ``seconds`` are the run's own; those that begin with ``phase_1_`` are its
        phase 1's (0 without one, the sum over three tasks where it follows a union), ``scoring_seconds`` those of its
        phase 1's circuits; those that begin with ``total_`` are the sums of all.

    Raises:
        FigureDataError: the training logs have no column ``flops``.
    """
    if "flops" not in training_log.columns:
        raise FigureDataError("training logs: no column 'flops'; run the fine-tuning rule again")
    counted = training_log.groupby(_KEYS, sort=False)[["tokens", "flops"]].max().reset_index()
    own = counted.merge(seconds, on=_KEYS, how="left")
    added = [*(f"phase_1_{name}" for name in _COSTS), "scoring_seconds"]
    scoring = scoring_seconds.rename(columns={"seconds": "scoring_seconds"}).astype({"scoring_seconds": "float64"})
    costs = own.rename(columns={name: f"phase_1_{name}" for name in _COSTS}).merge(scoring, on=_KEYS, how="left")
    table = own.assign(phase_1=own["method"].map(dict(phase_1)).astype(object))
    table = table.merge(_of_phase_1(table, costs, united)[[*_KEYS, *added]], on=_KEYS, how="left")
    table[added] = table[added].fillna(0)
    for name in _COSTS:
        table[f"total_{name}"] = table[name] + table[f"phase_1_{name}"]
    table["total_seconds"] += table["scoring_seconds"]
    final = final_accuracy(accuracy).query("statistic == 'seed'")
    table = table.merge(final[[*_KEYS, "accuracy", "lower", "upper", "trainable_parameters"]], on=_KEYS)
    totals = [f"total_{name}" for name in _COSTS]
    return with_seed_means(table, [*RUN, "phase_1"], ["accuracy", "trainable_parameters", *_COSTS, *added, *totals])


def _of_phase_1(
    runs: pd.DataFrame, costs: pd.DataFrame, united: Mapping[str, Mapping[str, Sequence[str]]]
) -> pd.DataFrame:
    """What the phase 1 of each run cost, on its own task and on the sub-tasks whose union it follows, added up."""
    costs = costs.rename(columns={"method": "phase_1", "task": "phase_1_task"})
    found = phase_1_runs(runs, united).merge(costs, on=["model", "phase_1_task", "phase_1", "seed"], how="left")
    return found.groupby(_KEYS, sort=False).sum(numeric_only=True).reset_index()
