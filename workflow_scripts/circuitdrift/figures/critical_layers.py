"""The table of critical layers by task, method, policy and seed, with their certainty."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.figures.labels import MethodLabels, task_label
from circuitdrift.figures.layout import EMPTY, Table, layout_of
from circuitdrift.figures.tidy import LAYER_SETS, with_certainty, without_given_sets

NOTHING_CHANGED = "nothing changed"


def table(
    critical_layers: pd.DataFrame, layer_sets: Mapping[str, Mapping[str, Sequence[int]]], labels: MethodLabels
) -> Table:
    """The critical layers by task, method, policy and seed, and how certain they are.

    Args:
        critical_layers: tables with model, task, name (the method that spends its rank there) and seed.
        layer_sets: the methods that are all sets of layers, by CircuitLoRA; given layers are left out.
        labels: of the study's methods.
    """
    ordered = with_certainty(without_given_sets(critical_layers, layer_sets))
    ordered = ordered.sort_values([*LAYER_SETS, "seed", "rank_order"], ignore_index=True)
    rows = [
        _laid_out(dict(zip([*LAYER_SETS, "seed"], key, strict=True)), of_set, labels)
        for key, of_set in ordered.groupby([*LAYER_SETS, "seed"], sort=False)
    ]
    note = (
        "Layers by how much their edges changed between the first and the last checkpoint of phase 1, largest change "
        "first. Policies: score change is the paper's rule; normalised, with scores scaled to unit mass; excess, the "
        "change beyond noise over all edges; random, drawn. Credit: the layer to which an edge's change counts. A "
        "layer without change is never critical. In brackets: the share of resampled folds in which the layer is among "
        "as many first ones. Sure: critical in at least 95 % of them. Cannot be told apart: layers, critical or not, "
        "that are among the first in more than 5 % and less than 95 %. Seeds: in how many seeds' runs each critical "
        "layer is critical. Above threshold: more than a standard deviation above the mean of the layers. Imported "
        "circuits and random draws have no folds to resample."
    )
    columns = [
        *LAYER_SETS,
        "credit",
        "seed",
        "rank_order",
        "layer",
        "value",
        "lower",
        "upper",
        "critical",
        "above_threshold",
    ]
    return Table("Critical layers", note, ordered[[*columns, "in_top", "certainty", *_SEEDS]], layout_of(rows))


_SEEDS = ["seeds_critical", "seeds"]


def _laid_out(key: Mapping[str, Any], layers: pd.DataFrame, labels: MethodLabels) -> dict[str, str]:
    critical = layers[layers["critical"]].to_dict("records")
    has_resamples = bool(layers["in_top"].notna().any())
    has_credit = bool(layers["credit"].notna().any())
    return {
        "Model": key["model"],
        "Task": task_label(key["task"]),
        "Method": labels.of(key["name"]),
        "Policy": key["policy"].replace("_", " "),
        "Credit": layers["credit"].iloc[0] if has_credit else EMPTY,
        "Seed": str(key["seed"]),
        "Critical layers": ", ".join(map(_with_share, critical)) or NOTHING_CHANGED,
        "Sure": _of_certainty(layers, "in", "none") if has_resamples else EMPTY,
        "Cannot be told apart": _of_certainty(layers, "undecided", "none") if has_resamples else EMPTY,
        "Seeds": ", ".join(f"{row['layer']}: {row['seeds_critical']} of {row['seeds']}" for row in critical) or EMPTY,
        "Above threshold": _listed(layers[layers["above_threshold"].eq(True)], "none") if has_credit else EMPTY,
    }


def _with_share(row: Mapping[Hashable, Any]) -> str:
    return f"{row['layer']}" if np.isnan(row["in_top"]) else f"{row['layer']} ({row['in_top']:.2f})"


def _of_certainty(layers: pd.DataFrame, certainty: str, otherwise: str) -> str:
    return _listed(layers[layers["certainty"] == certainty], otherwise)


def _listed(layers: pd.DataFrame, otherwise: str) -> str:
    return ", ".join(str(layer) for layer in layers["layer"]) or otherwise
