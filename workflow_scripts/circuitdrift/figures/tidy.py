"""From the workflow's tables to the tidy tables that figures are drawn from and that are kept beside them.

Rows of single seeds have ``statistic == "seed"``; one row more for each point, ``statistic == "mean"``, is the mean
over seeds. Its interval is the mean of the seeds' intervals where each seed has one (every seed is measured on the same
examples, so pooling them would claim too much), and else the lowest and highest seed. Rates, accuracies and
faithfulness are in percent in these tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from circuitdrift.figures.labels import control_label, method_label

RUN = ["model", "task", "method"]
CURVE = [*RUN, "seed", "metric"]
FAITHFULNESS_METRICS = ("kl_model_circuit", "kl_from_corrupted")
SIZE_METRICS = ("kl_model_circuit", "logit_difference")
BASE_MODEL = "base"
"""Stands for the method in rows of the base model, which belong to no run."""
NET_RATE = "rate_net"
CUMULATIVE_RATE = "rate_cumulative"


class FigureDataError(ValueError):
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
        (the number of seeds behind the point). ``seed`` is null in mean rows.
    """
    table = table.copy()
    table["seed"] = table["seed"].astype("Int64")
    first = values[0]
    has_intervals = {"lower", "upper"} <= set(table.columns)
    if not has_intervals:
        table["lower"] = table[first]
        table["upper"] = table[first]
    grouped = table.groupby(list(keys), sort=False, observed=True, dropna=False)
    means = grouped[list(values)].mean()
    means["lower"] = grouped["lower"].agg("mean" if has_intervals else "min")
    means["upper"] = grouped["upper"].agg("mean" if has_intervals else "max")
    means["seeds"] = grouped["seed"].nunique()
    seeds = table.assign(statistic="seed", seeds=1)
    joined = pd.concat([seeds, means.reset_index().assign(statistic="mean")], ignore_index=True)
    return joined[[*keys, "statistic", "seed", "seeds", *values, "lower", "upper"]]


def spread_base(table: pd.DataFrame) -> pd.DataFrame:
    """Give each run the rows of the base model, which are stored once for each model and task.

    Args:
        table: rows of runs, and rows without a method or a seed: those of checkpoint 00.
    """
    table = _with_run_columns(table)
    shared = table["method"].isna() | table["seed"].isna()
    own = table[~shared]
    runs = own[[*RUN, "seed"]].drop_duplicates()
    spread = table[shared].drop(columns=["method", "seed"]).merge(runs, on=["model", "task"], how="inner")
    parts = [part for part in (spread, own) if len(part)]
    return pd.concat(parts, ignore_index=True).astype({"seed": "int64"}) if parts else own


def _with_run_columns(table: pd.DataFrame) -> pd.DataFrame:
    """A copy with the columns ``method`` and ``seed``, which tables of base models alone lack; null where they do."""
    return table.assign(**{column: None for column in ("method", "seed") if column not in table.columns})


def accuracy_over_checkpoints(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy in percent at each checkpoint, with the mean over seeds."""
    test = accuracy[accuracy["split"] == "test"].copy()
    if test.empty:
        raise FigureDataError("accuracy tables: no row of split 'test'; run the fine-tuning rule again")
    for column in ("accuracy", "lower", "upper"):
        test[column] = 100 * test[column]
    test = test.rename(columns={"accuracy": "value"})
    return with_seed_means(test, [*RUN, "checkpoint"], ["value", "n"]).assign(measure="accuracy")


def faithfulness_of_own_circuit(faithfulness: pd.DataFrame) -> pd.DataFrame:
    """Faithfulness in percent of the study's own circuit, at each checkpoint, with the mean over seeds."""
    chosen = faithfulness[faithfulness["own_circuit"] & faithfulness["metric"].isin(FAITHFULNESS_METRICS)].copy()
    if chosen.empty:
        raise FigureDataError(
            "faithfulness tables: no row of the study's own circuit; run the rule measure_faithfulness again"
        )
    chosen = spread_base(chosen)
    for column in ("faithfulness", "lower", "upper"):
        chosen[column] = 100 * chosen[column]
    chosen = chosen.rename(columns={"metric": "measure", "faithfulness": "value"})
    return with_seed_means(chosen, [*RUN, "checkpoint", "measure"], ["value", "n_edges"])


def faithfulness_by_size(faithfulness: pd.DataFrame) -> pd.DataFrame:
    """Faithfulness in percent over circuit size, of the base model and of each run's last checkpoint.

    Only sizes that every curve has are kept, since seeds may differ in the size of the study's own circuit, and only
    measures that are defined somewhere: without corrupted answers there is no logit difference.
    """
    shown = of_base_and_last(faithfulness[faithfulness["metric"].isin(SIZE_METRICS)])
    curves = shown.groupby(CURVE, sort=False)
    shown = shown[shown.groupby("size_fraction")["size_fraction"].transform("size") == curves.ngroups]
    shown = shown.dropna(subset="faithfulness").rename(columns={"metric": "measure", "faithfulness": "value"})
    if shown.empty:
        raise FigureDataError("faithfulness tables: no size that all circuits have; run measure_faithfulness again")
    for column in ("value", "lower", "upper"):
        shown[column] = 100 * shown[column]
    return with_seed_means(shown, [*RUN, "checkpoint", "measure", "size_fraction"], ["value", "n_edges"])


def of_base_and_last(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the base model, whose method becomes :data:`BASE_MODEL`, and those of each run's last checkpoint."""
    table = _with_run_columns(table)
    is_base = table["method"].isna()
    table.loc[is_base, "method"] = BASE_MODEL
    table.loc[is_base, "seed"] = 0
    last = table.groupby([*RUN, "seed"])["checkpoint"].transform("max")
    return table[table["checkpoint"] == last].astype({"seed": "int64"})


def accuracy_and_faithfulness(accuracy: pd.DataFrame, faithfulness: pd.DataFrame) -> pd.DataFrame:
    """The table behind the figure of accuracy and faithfulness over checkpoints."""
    curves = accuracy_over_checkpoints(accuracy)
    return pd.concat([curves, faithfulness_of_own_circuit(faithfulness)], ignore_index=True)


def transition_changes(transitions: pd.DataFrame) -> pd.DataFrame:
    """Nodes and edges added and removed between neighbouring checkpoints, with the mean over seeds.

    ``removed`` is kept positive; the interval is that of ``changed`` = added + removed.
    """
    neighbours = only_neighbouring(transitions)
    return with_seed_means(
        neighbours, [*RUN, "level", "from_checkpoint", "to_checkpoint"], ["changed", "added", "removed", "initial"]
    )


def only_neighbouring(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose two checkpoints follow each other."""
    order = sorted({*table["from_checkpoint"], *table["to_checkpoint"]})
    pairs = set(pairwise(order))
    kept = [pair in pairs for pair in zip(table["from_checkpoint"], table["to_checkpoint"], strict=True)]
    return table[kept]


def change_rates(summary: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Change rates of nodes and edges by method, and those of the controls, in percent.

    Returns:
        model, task, kind (fine-tuning or control), name, label, measure, level, value (mean), lower and upper (lowest
        and highest of the ``count`` values), of seeds for methods, of methods and pairs for controls.
    """
    drift = summary[summary["measure"].isin([NET_RATE, CUMULATIVE_RATE])].assign(
        kind="fine-tuning", name=summary["method"]
    )
    several = controls.groupby("control")["checkpoint"].nunique() > 1
    named = controls.assign(
        kind="control",
        measure=NET_RATE,
        value=controls["rate"],
        name=[
            f"{control}@{checkpoint}" if several[control] else control
            for control, checkpoint in zip(controls["control"], controls["checkpoint"], strict=True)
        ],
    )
    keys = ["model", "task", "kind", "name", "measure", "level"]
    rates = pd.concat([drift[[*keys, "value"]], named[[*keys, "value"]]], ignore_index=True).dropna(subset=["value"])
    if rates.empty:
        raise FigureDataError(
            f"summary tables: none of the measures {NET_RATE}, {CUMULATIVE_RATE}; compare circuits again"
        )
    rates["value"] *= 100
    grouped = rates.groupby(keys, sort=False)["value"].agg(value="mean", lower="min", upper="max", count="count")
    table = grouped.reset_index()
    table["label"] = [_row_label(kind, name) for kind, name in zip(table["kind"], table["name"], strict=True)]
    return table


def _row_label(kind: str, name: str) -> str:
    if kind == "fine-tuning":
        return method_label(name)
    control, _, checkpoint = name.partition("@")
    where = {"": "", "00": ", base model"}.get(checkpoint, f", checkpoint {checkpoint}")
    return control_label(control) + where


def net_layer_changes(layers: pd.DataFrame, top_layers: int) -> pd.DataFrame:
    """Edge changes of each layer between the base model and the last checkpoint, with the mean over seeds.

    The ``top_layers`` layers with the largest mean of a score change are ``critical`` (plain scores) and
    ``critical_normalised`` (scores scaled to unit mass before the difference).
    """
    edges = layers[layers["level"] == "edge"]
    first, last = edges["from_checkpoint"].min(), edges["to_checkpoint"].max()
    net = edges[(edges["from_checkpoint"] == first) & (edges["to_checkpoint"] == last)]
    if net.empty:
        raise FigureDataError(
            f"layers tables: no row from checkpoint {first} to {last} at level 'edge'; compare circuits again"
        )
    values = ["score_change", "score_change_normalised", "added", "removed"]
    table = with_seed_means(net, [*RUN, "layer"], values)
    runs = table.groupby([*RUN, "statistic", "seed"], dropna=False, sort=False)
    for value, mark in (("score_change", "critical"), ("score_change_normalised", "critical_normalised")):
        table[mark] = runs[value].rank(method="first", ascending=False) <= top_layers
    return table.assign(from_checkpoint=first, to_checkpoint=last)


def final_accuracy(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy in percent at each run's last checkpoint, with parameters trained and the mean over seeds.

    Raises:
        FigureDataError: the tables lack ``trainable_parameters`` or ``trainable_share``.
    """
    for column in ("trainable_parameters", "trainable_share"):
        if column not in accuracy.columns:
            raise FigureDataError(f"accuracy tables: no column '{column}'; run the fine-tuning rule again")
    last = accuracy.groupby([*RUN, "seed"])["checkpoint"].transform("max")
    final = accuracy[(accuracy["checkpoint"] == last) & (accuracy["split"] == "test")].copy()
    for column in ("accuracy", "lower", "upper"):
        final[column] = 100 * final[column]
    keys = [*RUN, "checkpoint"]
    values = ["accuracy", "n", "trainable_parameters", "trainable_share"]
    table = with_seed_means(final, keys, values)
    return table.astype({"n": "int64", "trainable_parameters": "int64"})
