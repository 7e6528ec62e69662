"""The table of recipes of scoring: reliability, faithfulness, likeness to the study's own recipe, and time."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.config.study import OWN_RECIPE
from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of, prompts_phrase
from circuitdrift.figures.training_cost import seconds_of_job

_KEYS = ["model", "task", "recipe"]
_BOUNDS = ["lower", "upper", "difference", "difference_lower", "difference_upper"]
_METRICS = ("kl_model_circuit", "kl_from_corrupted")


def table(
    recipe_reliability: pd.DataFrame,
    recipe_faithfulness: pd.DataFrame,
    recipe_benchmarks: Sequence[Path],
    recipe_scorings: Sequence[Mapping[str, str]],
    labels: MethodLabels,
) -> Table:
    """One row for each model, task and recipe, the study's own recipe first.

    Args:
        recipe_reliability: similarity of circuits from disjoint halves of the prompts.
        recipe_faithfulness: faithfulness of the circuits from all prompts.
        recipe_benchmarks: Snakemake's measurements of the jobs that scored.
        recipe_scorings: model, task and recipe of each of ``recipe_benchmarks``.
        labels: of the study's methods.
    """
    seconds = pd.DataFrame(
        {**scoring, "seconds": seconds_of_job(path)}
        for path, scoring in zip(recipe_benchmarks, recipe_scorings, strict=True)
    )
    tidy = _reliability(recipe_reliability).merge(_faithfulness(recipe_faithfulness), on=_KEYS)
    tidy = tidy.merge(seconds, on=_KEYS)
    note = (
        "The base model's circuit by several recipes of scoring; own: the study's. Jaccard by prompts: mean index of "
        "the edges of two circuits from disjoint halves of the prompts, by the number of prompts in a half. Less own: "
        "difference from the study's recipe on the same halves, at the largest number. Rank and correlation: "
        "Spearman's of absolute and Pearson's of signed scores of all edges, at the largest number. Prompts for .8: "
        "how many this correlation needs to reach .8. These intervals of 95 % are jackknives over folds and cover "
        "other prompts from the same source. Faithfulness of the circuit from all prompts, by kl_model_circuit and "
        "kl_from_corrupted, on the test split, which chose no edges; its intervals are bootstraps over these prompts "
        "and do not cover another circuit split. Like own: Jaccard index of the circuits from all prompts. Time: wall "
        "time of the job that scored, start of Python included, as a multiple of own."
    )
    own = tidy[tidy["recipe"] == OWN_RECIPE].set_index(["model", "task"])["seconds"]
    rows = [_laid_out(row, own[row["model"], row["task"]]) for row in tidy.to_dict("records")]
    return Table("Recipes of scoring", note, tidy, layout_of(rows))


def _reliability(reliability: pd.DataFrame) -> pd.DataFrame:
    """One row for each recipe: Jaccard indices at each number of prompts, the rest at the largest."""
    edges = reliability[reliability["level"] == "edge"]
    return pd.DataFrame(
        {**dict(zip(_KEYS, key, strict=True)), **_numbers_of_recipe(found)}
        for key, found in edges.groupby(_KEYS, sort=False)
    )


def _numbers_of_recipe(found: pd.DataFrame) -> dict[str, Any]:
    jaccard = found[found["measure"] == "jaccard"].set_index("examples")["within"].sort_index()
    largest = found[found["examples"] == found["examples"].max()].set_index("measure")
    numbers: dict[str, Any] = {f"jaccard_{examples}_prompts": within for examples, within in jaccard.items()}
    numbers["prompts"] = int(found["examples"].max())
    for measure in ("jaccard", "pearson", "spearman"):
        numbers[measure] = largest.loc[measure, "within"]
        numbers |= {f"{measure}_{bound}": largest.loc[measure, bound] for bound in _BOUNDS}
    numbers["prompts_for_80"] = largest.loc["pearson", "prompts_for_80"]
    numbers["similarity_to_own"] = largest.loc["jaccard", "similarity_to_own"]
    return numbers


def _faithfulness(faithfulness: pd.DataFrame) -> pd.DataFrame:
    """One row for each recipe: faithfulness by two metrics, each with its interval and its difference from own."""
    columns = ["faithfulness", *_BOUNDS]
    wide = faithfulness[_KEYS].drop_duplicates()
    for metric in _METRICS:
        found = faithfulness[faithfulness["metric"] == metric]
        named = {"faithfulness": metric, **{bound: f"{metric}_{bound}" for bound in _BOUNDS}}
        wide = wide.merge(found[[*_KEYS, *columns]].rename(columns=named), on=_KEYS)
    return wide


def _laid_out(row: Mapping[Hashable, Any], own_seconds: float) -> dict[str, str]:
    smaller = [(int(str(name).split("_")[1]), row[name]) for name in row if str(name).endswith("_prompts")]
    by_prompts = [f"{prompts}: {_number(within)}" for prompts, within in sorted(smaller) if not np.isnan(within)]
    return {
        "Model": row["model"],
        "Task": task_label(row["task"]),
        "Recipe": row["recipe"].replace("_", " "),
        "Jaccard by prompts": ", ".join(by_prompts),
        "Less own": _difference(row, "jaccard"),
        "Rank": _number(row["spearman"]),
        "Correlation": _number(row["pearson"]),
        "Correlation less own": _difference(row, "pearson"),
        "Prompts for .8": prompts_phrase(row["prompts_for_80"]),
        "Faithfulness (model)": _number(row["kl_model_circuit"]),
        "Less own (model)": _difference(row, "kl_model_circuit"),
        "Faithfulness (corrupted)": _number(row["kl_from_corrupted"]),
        "Less own (corrupted)": _difference(row, "kl_from_corrupted"),
        "Like own": _number(row["similarity_to_own"]),
        "Time": f"{row['seconds'] / own_seconds:.2f}",
    }


def _number(value: float) -> str:
    return EMPTY if np.isnan(value) else f"{value:.3f}"


def _difference(row: Mapping[Hashable, Any], name: str) -> str:
    """A difference from the study's own recipe with its interval; none for the own recipe itself."""
    if row["recipe"] == OWN_RECIPE or np.isnan(row[f"{name}_difference"]):
        return EMPTY
    lower, upper = (row[f"{name}_difference_{bound}"] for bound in ("lower", "upper"))
    return f"{row[f'{name}_difference']:+.3f} [{lower:+.3f}, {upper:+.3f}]"
