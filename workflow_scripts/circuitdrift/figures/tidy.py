"""What the tidy tables of several figures and tables share: means over seeds, the base model's rows, last checkpoints.

Rows of single seeds have ``statistic == "seed"``; one row more for each point, ``statistic == "mean"``, is the mean
over seeds. Its ``lower`` and ``upper`` are the lowest and the highest seed; where there is one seed, the interval of
this seed. So intervals that cover the choice of examples alone never pass for intervals of a mean over seeds. Rates,
accuracies and faithfulness are in percent in these tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import special

from circuitdrift.errors import CircuitDriftError
from circuitdrift.intervals import CONFIDENCE

RUN = ["model", "task", "method"]
BASE_MODEL = "base"
"""Stands for the method in rows of the base model, which belong to no run."""

LAYER_SETS = ["model", "task", "name", "policy"]
"""Columns that, with the seed, tell one set of critical layers from another."""

SURELY_IN, SURELY_OUT = 0.95, 0.05
"""Shares of resamples from which on a layer is surely critical, or surely not (docs/method.md#critical-layers)."""


class FigureDataError(CircuitDriftError):
    """Tables that a figure cannot be drawn from; the message names what is missing and the fix."""


def with_seed_means(table: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Append the mean over seeds to a table of single seeds.

    Args:
        table: one row for each seed and each combination of ``keys``, with ``seed`` and the ``values`` columns;
            optionally ``lower`` and ``upper``, the interval of the first of ``values``.
        keys: the columns that identify a point.
        values: the columns to average.

    Returns:
        The rows of ``table`` and one mean row for each point, with ``statistic``, ``lower``, ``upper`` and ``seeds``
        (the number of seeds behind the point). ``seed`` is null in mean rows. ``lower`` and ``upper`` of a mean over
        several seeds are the lowest and the highest seed; of a single seed, its own interval.
    """
    table = table.copy()
    table["seed"] = table["seed"].astype("Int64")
    first = values[0]
    if not {"lower", "upper"} <= set(table.columns):
        table["lower"] = table[first]
        table["upper"] = table[first]
    grouped = table.groupby(list(keys), sort=False, observed=True, dropna=False)
    means = grouped[list(values)].mean()
    means["seeds"] = grouped["seed"].nunique()
    several = means["seeds"] > 1
    means["lower"] = grouped[first].min().where(several, grouped["lower"].min())
    means["upper"] = grouped[first].max().where(several, grouped["upper"].max())
    seeds = table.assign(statistic="seed", seeds=1)
    joined = pd.concat([seeds, means.reset_index().assign(statistic="mean")], ignore_index=True)
    return joined[[*keys, "statistic", "seed", "seeds", *values, "lower", "upper"]]


def student_interval(values: pd.Series) -> tuple[float, float]:
    """The 95 % interval of the mean of independent values, one for each seed; NaN for one value."""
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    width = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * float(values.std(ddof=1)) / np.sqrt(n)
    return float(values.mean()) - width, float(values.mean()) + width


def spread_base(table: pd.DataFrame) -> pd.DataFrame:
    """Give each run the rows of the base model, which are stored once for each model and task.

    Args:
        table: rows of runs, and rows of checkpoint 00, which have no method or seed.
    """
    table = _with_run_columns(table)
    shared = table["method"].isna() | table["seed"].isna()
    own = table[~shared]
    runs = own[[*RUN, "seed"]].drop_duplicates()
    spread = table[shared].drop(columns=["method", "seed"]).merge(runs, on=["model", "task"], how="inner")
    parts = [part for part in (spread, own) if len(part)]
    return pd.concat(parts, ignore_index=True).astype({"seed": "int64"}) if parts else own


def in_percent(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A copy with some columns, which hold fractions, in percent."""
    return table.assign(**{column: 100 * table[column] for column in columns})


def _with_run_columns(table: pd.DataFrame) -> pd.DataFrame:
    """A copy with the columns ``method`` and ``seed``, which tables of base models alone lack; null where they do."""
    return table.assign(**{column: None for column in ("method", "seed") if column not in table.columns})


def of_base_and_last(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the base model, whose method becomes :data:`BASE_MODEL`, and those of each run's last checkpoint."""
    table = _with_run_columns(table)
    is_base = table["method"].isna()
    table.loc[is_base, "method"] = BASE_MODEL
    table.loc[is_base, "seed"] = 0
    return at_last_checkpoint(table).astype({"seed": "int64"})


def at_last_checkpoint(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last checkpoint."""
    return table[table["checkpoint"] == table.groupby([*RUN, "seed"])["checkpoint"].transform("max")]


def only_neighbouring(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose two checkpoints follow each other."""
    order = sorted({*table["from_checkpoint"], *table["to_checkpoint"]})
    pairs = set(pairwise(order))
    kept = [pair in pairs for pair in zip(table["from_checkpoint"], table["to_checkpoint"], strict=True)]
    return table[kept]


def base_against_last(reliability: pd.DataFrame) -> pd.DataFrame:
    """The rows that compare a run's first checkpoint with its last."""
    of_run = reliability.groupby([*RUN, "seed"])
    first = reliability["from_checkpoint"] == of_run["from_checkpoint"].transform("min")
    return reliability[first & (reliability["to_checkpoint"] == of_run["to_checkpoint"].transform("max"))]


def of_most_prompts(reliability: pd.DataFrame) -> pd.DataFrame:
    """The rows of the largest halves of a run's prompts."""
    return reliability[reliability["examples"] == reliability.groupby([*RUN, "seed"])["examples"].transform("max")]


def final_accuracy(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy in percent at each run's last checkpoint, with parameters trained and the mean over seeds.

    Column ``sd`` is the standard deviation between seeds, in points; null in rows of single seeds and for one seed.

    Raises:
        FigureDataError: the tables lack ``trainable_parameters`` or ``trainable_share``.
    """
    for column in ("trainable_parameters", "trainable_share"):
        if column not in accuracy.columns:
            raise FigureDataError(f"accuracy tables: no column '{column}'; run the fine-tuning rule again")
    last = at_last_checkpoint(accuracy)
    final = last[last["split"] == "test"]
    values = ["accuracy", "n", "trainable_parameters", "trainable_share"]
    table = with_seed_means(in_percent(final, ["accuracy", "lower", "upper"]), [*RUN, "checkpoint"], values)
    of_seeds = table[table["statistic"] == "seed"].groupby([*RUN, "checkpoint"])["accuracy"].std()
    table = table.merge(of_seeds.rename("sd").reset_index().assign(statistic="mean"), how="left")
    return table.astype({"n": "int64", "trainable_parameters": "int64"})


def without_given_sets(
    critical_layers: pd.DataFrame, layer_sets: Mapping[str, Mapping[str, Sequence[int]]]
) -> pd.DataFrame:
    """The rows of layers that somebody chose or drew, without the methods that are all sets of layers."""
    given = {name for sets in layer_sets.values() for name in sets}
    return critical_layers[~critical_layers["name"].isin(given)]


def with_certainty(critical_layers: pd.DataFrame) -> pd.DataFrame:
    """Add ``certainty`` (in, out, undecided; null without resamples), ``seeds_critical`` and ``seeds``.

    ``seeds_critical`` is the number of seeds' runs in which the layer is critical, of ``seeds``.
    """
    in_top = critical_layers["in_top"]
    verdicts = np.select([in_top >= SURELY_IN, in_top <= SURELY_OUT], ["in", "out"], "undecided")
    of_layer = critical_layers.groupby([*LAYER_SETS, "layer"])["critical"]
    return critical_layers.assign(
        certainty=pd.Series(verdicts, index=critical_layers.index).where(in_top.notna(), None),
        seeds_critical=of_layer.transform("sum").astype("int64"),
        seeds=of_layer.transform("size"),
    )
