"""From what was measured in each run to an interval, and from the interval to a verdict (docs/method.md#verdicts)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import special

from circuitdrift.intervals import CONFIDENCE

Claimed = Literal["above", "below", "within"]
Scale = Literal["linear", "logarithmic"]
Verdict = Literal["supported", "not supported", "undecided"]

TASKS_FOR_AN_INTERVAL = 3
"""With one seed the interval is taken over tasks, if there are at least so many."""

SIGNIFICANT = 0.05
"""A p-value below this excludes the null, as the 95 % interval does."""

_NAN = float("nan")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Measured:
    """A quantity in each run of one model.

    Attributes:
        runs: task, seed and value; with ``half_width`` where a run has a 95 % interval of its own for other prompts. A
            task can have several rows for a seed, of several methods.
        remark: what a reader has to know; where there are no runs, why.
        reference: the same columns of what the runs are compared with, where it has seeds of its own: the quantity is
            the difference of the two means.
        tasks: number of tasks, where rows are no longer those of single tasks.
    """

    runs: pd.DataFrame
    remark: str = ""
    reference: pd.DataFrame | None = None
    tasks: int | None = None

    def with_half_width(self, half_width: pd.Series) -> Measured:
        """The same with the half-width of each run's own 95 % interval for other prompts, in the order of the runs."""
        return replace(self, runs=self.runs.assign(half_width=half_width.to_numpy(dtype=float)))


def measured_in(runs: pd.DataFrame, value: pd.Series, remark: str = "") -> Measured:
    """A value for each run.

    Args:
        runs: with task and seed.
        value: in the order of ``runs``.
        remark: what a reader has to know.
    """
    named = runs[["task", "seed"]].reset_index(drop=True)
    return Measured(named.assign(value=value.to_numpy(dtype=float)), remark)


def nothing_measured(why: str) -> Measured:
    """What a study cannot speak to."""
    return Measured(pd.DataFrame(columns=["task", "seed", "value"]), why)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        value: the mean; NaN if nothing is defined.
        lower: of the interval; NaN without one.
        upper: of the interval; NaN without one.
        p_value: two-sided, that the mean is the null; NaN without an interval.
        replicates: seeds, or tasks, that the interval is taken over.
        over: which of the two.
        tasks: tasks that count.
        remark: why there is no interval, or what it does not cover.
    """

    value: float
    lower: float
    upper: float
    p_value: float
    replicates: int
    over: Literal["seeds", "tasks"]
    tasks: int
    remark: str

    def within(self, lowest: float, highest: float) -> Estimate:
        """The same with its interval cut at the values that the quantity can have, which covers as much."""
        lower, upper = (float(np.clip(end, lowest, highest)) for end in (self.lower, self.upper))
        return replace(self, lower=lower, upper=upper)


def estimate(measured: Measured, null: float, scale: Scale) -> Estimate:
    """The mean over seeds, or with one seed over tasks, with its interval.

    Args:
        measured: the quantity in each run.
        null: the value that ``p_value`` tests.
        scale: logarithmic for ratios, of which the geometric mean is taken.
    """
    if measured.runs.empty:
        return Estimate(_NAN, _NAN, _NAN, _NAN, 0, "seeds", 0, measured.remark)
    cells, reference, squares = _cells(measured, scale)
    defined = cells.notna().all() & reference.notna().all() & squares.notna()
    kept = cells.columns[defined]
    remarks = [measured.remark] if measured.remark else []
    if len(kept) < len(defined):
        remarks.append(f"undefined on {len(defined) - len(kept)} of {len(defined)} tasks")
    n_tasks = len(kept) if measured.tasks is None else measured.tasks
    if kept.empty:
        return Estimate(_NAN, _NAN, _NAN, _NAN, 0, "seeds", 0, _joined(remarks))
    over_seeds = len(cells) > 1
    over_tasks = not over_seeds and len(kept) >= TASKS_FOR_AN_INTERVAL
    by_task = (cells - reference.mean())[kept]
    values = (by_task.mean(axis=1) if over_seeds else by_task.mean()).to_numpy()
    value, width, freedom = float(values.mean()), _NAN, _NAN
    if over_seeds:
        others = reference[kept].mean(axis=1).to_numpy() if measured.reference is not None else None
        shared = float(squares[kept].sum()) / len(kept) ** 2
        width, freedom, remark = _interval(values, others, shared)
    elif over_tasks:
        width, freedom, remark = _interval(values, None, 0.0)
        remark = remark or "the interval is over tasks, not over seeds"
    else:
        remark = f"neither two seeds nor {TASKS_FOR_AN_INTERVAL} tasks: no interval"
    tested = np.log(null) if scale == "logarithmic" else null
    p_value = _p_value(value - tested, width, freedom)
    found = np.array([value, value - width, value + width])
    mean, lower, upper = np.exp(found) if scale == "logarithmic" else found
    over: Literal["seeds", "tasks"] = "tasks" if over_tasks else "seeds"
    return Estimate(
        value=float(mean),
        lower=float(lower),
        upper=float(upper),
        p_value=p_value,
        replicates=len(values) if over_seeds or over_tasks else 1,
        over=over,
        tasks=n_tasks,
        remark=_joined([*remarks, remark]),
    )


def decide(
    lower: float, upper: float, null: float, claimed: Claimed, margin: float = _NAN, p_corrected: float | None = None
) -> Verdict:
    """The verdict that an interval carries.

    Args:
        lower: of the 95 % interval; NaN without one.
        upper: of the interval.
        null: the value that separates the claimed side from the other.
        claimed: the side; ``within`` claims a value less than ``margin`` away from the null.
        margin: of equivalence.
        p_corrected: where the verdict also asks for p < .05 after a correction, that value.
    """
    if np.isnan(lower) or np.isnan(upper):
        return "undecided"
    if p_corrected is not None and not p_corrected < SIGNIFICANT:
        return "undecided"
    if claimed == "within":
        if null - margin < lower and upper < null + margin:
            return "supported"
        return "not supported" if lower > null + margin or upper < null - margin else "undecided"
    above, below = lower > null, upper < null
    if above or below:
        return "supported" if above == (claimed == "above") else "not supported"
    return "undecided"


def _cells(measured: Measured, scale: Scale) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Means over methods, a row for each seed and a column for each task; squares of half-widths by task.

    A cell is NaN where a method has no defined value. The reference is 0 where there is none.
    """
    cells = _by_seed_and_task(measured.runs, scale)
    if measured.reference is None:
        return cells, pd.DataFrame(0.0, index=[0], columns=cells.columns), _squares(measured.runs, cells)
    reference = _by_seed_and_task(measured.reference, scale).reindex(columns=cells.columns)
    return cells, reference, _squares(measured.runs, cells) + _squares(measured.reference, cells)


def _squares(runs: pd.DataFrame, cells: pd.DataFrame) -> pd.Series:
    """Mean squares of half-widths by task; 0 where runs have none, and with one seed, where they do not count."""
    if "half_width" not in runs or len(cells) == 1:
        return pd.Series(0.0, index=cells.columns)
    squared = runs.assign(square=runs["half_width"] ** 2)
    return squared.groupby("task")["square"].agg(mean_of_defined).reindex(cells.columns)


def _by_seed_and_task(runs: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    value = runs["value"].to_numpy(dtype=float)
    if scale == "logarithmic":
        value = np.log(np.where(value > 0, value, np.nan))
    value = np.where(np.isfinite(value), value, np.nan)
    means = runs.assign(value=value).groupby(["seed", "task"], sort=False)["value"].agg(mean_of_defined)
    return means.unstack("task")


def mean_of_defined(values: pd.Series) -> float:
    """The mean; NaN if one of the values is NaN."""
    return float(values.mean(skipna=False))


def _interval(
    values: Float[np.ndarray, " replicate"], others: Float[np.ndarray, " other"] | None, shared: float
) -> tuple[float, float, str]:
    """Half-width and degrees of freedom of a 95 % interval of a mean, or NaN and why there is none.

    Args:
        values: of each replicate.
        others: of each replicate of the reference, which scatters by itself (Welch 1947).
        shared: square of the half-width that all replicates share.
    """
    samples = [values] if others is None else [values, others]
    if any(len(sample) < 2 for sample in samples):
        return _NAN, _NAN, "one untrained model, whose scatter is not known: no interval"
    if all(_do_not_scatter(sample) for sample in samples):
        return _NAN, _NAN, "all replicates agree exactly, so nothing shows their scatter: no interval"
    parts = [float(sample.var(ddof=1)) / len(sample) for sample in samples]
    spread = sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, samples, strict=True))
    freedom = sum(parts) ** 2 / spread
    width = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * np.sqrt(sum(parts))
    return float(np.sqrt(width**2 + shared)), freedom, ""


def _do_not_scatter(values: Float[np.ndarray, " replicate"]) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * max(1.0, float(np.abs(values).max())))


def _p_value(difference: float, width: float, freedom: float) -> float:
    """Two-sided, of Student's t with the error that the interval has; NaN without an interval."""
    if np.isnan(width):
        return _NAN
    error = width / float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return 2 * float(special.stdtr(freedom, -abs(difference) / error))


def _joined(remarks: list[str]) -> str:
    return "; ".join(remark for remark in remarks if remark)
