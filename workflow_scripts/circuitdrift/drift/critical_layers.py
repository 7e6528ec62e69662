"""The critical layers of a run, from its files (docs/method.md#critical-layers)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from circuitdrift.circuits.score_file import read_scores
from circuitdrift.circuits.selection import determined_by_scores
from circuitdrift.config.circuits import Selection
from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.drift.fold_circuits import comparable_fold_scores
from circuitdrift.drift.layer_certainty import LayerResamples, resample_layers
from circuitdrift.drift.layer_order import order_layers
from circuitdrift.storage import read_table

logger = logging.getLogger(__name__)


def critical_layers_of_run(
    layers: Path, method: CircuitLoraMethod, scores: Sequence[Path], choice: Selection, resamples: int
) -> pd.DataFrame:
    """All layers in the order of their drift, by each policy, and how often they come first with resampled prompts.

    Args:
        layers: changes layer by layer of the method's phase 1.
        method: ``critical_layers`` is the number of layers to mark, ``credit`` the layer to which an edge's change
            counts.
        scores: score files of the base model and of the last checkpoint of phase 1.
        choice: the study's selection; ``minimal`` is replaced by top circuits of ``fraction`` in resamples.
        resamples: resamples of the folds.

    Returns:
        Columns of the ``critical_layers`` schema.

    Raises:
        DriftError: the table has no net changes or values that are not finite, or fewer layers than are to be marked;
            or the score files are of different graphs or of different prompts.
    """
    files = [read_scores(path) for path in scores]
    before, after = comparable_fold_scores(files).values()
    selection = determined_by_scores(choice)
    return _ordered(layers, method, resample_layers(files[0].graph, before, after, selection, method.credit, resamples))


def critical_layers_by_change(layers: Path, method: CircuitLoraMethod) -> pd.DataFrame:
    """The same without certainty, for circuits that have no scores by fold."""
    return _ordered(layers, method, None)


def _ordered(layers: Path, method: CircuitLoraMethod, resampled: LayerResamples | None) -> pd.DataFrame:
    """The ordered layers; warns of policies by which fewer layers changed than are to be marked."""
    ordered = order_layers(read_table(layers, "layers"), method.critical_layers, str(layers), method.credit, resampled)
    for policy, marked in ordered.groupby("policy", sort=False)["critical"].sum().items():
        if marked < method.critical_layers:
            found = f"{marked} layers have" if marked else "nothing changed: no layer has"
            logger.warning(
                "%s: policy %s: %s a change above zero, where critical_layers asks for %d; a layer without change is "
                "never critical",
                layers,
                policy,
                found,
                method.critical_layers,
            )
    return ordered
