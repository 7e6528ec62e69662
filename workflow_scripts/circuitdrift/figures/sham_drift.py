"""The table of drift by a task beside drift by as many steps on permuted answers, paired by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import base_against_last, of_most_prompts
from circuitdrift.intervals import CONFIDENCE

_LEVELS = {"edge": "edges", "node": "nodes"}
_POINT = ["model", "task", "level", "measure"]


def table(reliability: pd.DataFrame, sham_twins: Mapping[str, str], labels: MethodLabels) -> Table:
    """Excess of each true fine-tuning, of its sham twin, and their difference, positive where the task moves more.

    Args:
        reliability: reliability tables of all runs with circuits.
        sham_twins: for each method on permuted answers, the same method on its own answers.
        labels: of the study's methods.
    """
    net = of_most_prompts(base_against_last(reliability))
    tidy = pd.concat([compare_twins(net, sham, twin) for sham, twin in sham_twins.items()], ignore_index=True)
    shown = tidy[tidy["measure"] == "jaccard"]
    rows = [
        {
            "Model": row["model"],
            "Task": task_label(row["task"]),
            "Method": labels.of(row["method"]),
            "Level": _LEVELS[row["level"]],
            "Seeds": str(row["seeds"]),
            "Excess": _number(row["excess"]),
            "Excess, sham": _number(row["excess_sham"]),
            "Difference": _with_interval(row),
            "p": EMPTY if np.isnan(row["p_value"]) else f"{row['p_value']:.2g}",
        }
        for row in shown.to_dict("records")
    ]
    note = (
        "Drift beyond noise (excess of the Jaccard index, base model against last checkpoint) of a fine-tuning and of "
        "its sham twin: the same prompts, steps, settings and seed, but the answers permuted among the prompts. "
        "Difference: positive where learning the task moves the circuit more than as many steps on answers that do not "
        "belong to the prompts. Twins share seed, base model and circuit prompts, so differences are taken "
        "seed by seed. Brackets: 95 % Student interval over seeds, which covers other seeds and other permutations, "
        "not other circuit prompts, another task or model; with one seed there is none. p: two-sided t test."
    )
    return Table("Drift by the task and by sham fine-tuning", note, tidy, layout_of(rows))


def compare_twins(net: pd.DataFrame, sham: str, twin: str) -> pd.DataFrame:
    """Differences of two methods' excesses by model, task, level and measure.

    Args:
        net: rows of reliability tables that compare base model and last checkpoint, one for each seed and point.
        sham: the method on permuted answers.
        twin: the same method on its own answers.

    Returns:
        model, task, level, measure, method (the twin), sham, seeds, excess, excess_sham (means over seeds), difference,
        lower, upper and p_value; the last three are null for one seed.
    """
    keys = [*_POINT, "seed"]
    excesses = [net.loc[net["method"] == name, [*keys, "excess"]] for name in (twin, sham)]
    pairs = excesses[0].merge(excesses[1], on=keys, suffixes=("", "_sham"))
    rows = []
    for point, of_seeds in pairs.groupby(_POINT, sort=False):
        numbers = of_seeds[["excess", "excess_sham"]].mean(skipna=False).to_dict()
        differences = (of_seeds["excess"] - of_seeds["excess_sham"]).to_numpy()
        named = dict(zip(_POINT, point, strict=True)) | {"method": twin, "sham": sham, "seeds": len(of_seeds)}
        rows.append(named | numbers | _student(differences))
    return pd.DataFrame(rows)


def _student(differences: np.ndarray) -> dict[str, float]:
    """The mean of paired differences with its 95 % interval and p-value; null where they do not scatter."""
    mean, n = float(differences.mean()), len(differences)
    error = float(differences.std(ddof=1)) / np.sqrt(n) if n > 1 else np.nan
    if not error > 0:
        return {"difference": mean, "lower": np.nan, "upper": np.nan, "p_value": np.nan}
    width = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    p_value = 2 * float(special.stdtr(n - 1, -abs(mean) / error))
    return {"difference": mean, "lower": mean - width, "upper": mean + width, "p_value": p_value}


def _number(value: float) -> str:
    return EMPTY if np.isnan(value) else f"{value:.3f}"


def _with_interval(row: Mapping[Any, Any]) -> str:
    if np.isnan(row["difference"]):
        return EMPTY
    interval = "" if np.isnan(row["lower"]) else f" [{row['lower']:+.3f}, {row['upper']:+.3f}]"
    return f"{row['difference']:+.3f}{interval}"
