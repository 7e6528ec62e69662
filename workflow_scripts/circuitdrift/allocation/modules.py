"""Groups of linears that a circuit's edges tell apart, and the weight of each in the allocation of ranks by module."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from circuitdrift.allocation.ranks import AllocationError, BlockLinear
from circuitdrift.drift.modules import MODULES
from circuitdrift.models.architectures import ARCHITECTURES, Architecture, Fused

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ModuleGroup:
    """Linears of one layer that get one rank: which of :data:`~circuitdrift.drift.modules.MODULES` they are.

    One linear for queries, keys and values is a group of these three; a gated MLP's two input linears are one group.
    """

    layer: int
    modules: tuple[str, ...]


def group_by_module(model: PreTrainedModel, linears: Sequence[BlockLinear]) -> dict[ModuleGroup, list[BlockLinear]]:
    """The linears of each group, by layer and in the order in which a block computes them.

    Args:
        model: the base model; on the meta device is enough.
        linears: its block linears.

    Raises:
        AllocationError: nobody has described where this architecture keeps its projections.
    """
    architecture = ARCHITECTURES.get(type(model).__name__)
    if architecture is None:
        raise AllocationError(
            f"allocation: 'per_module' does not know the modules of {type(model).__name__}; use one of "
            f"{', '.join(ARCHITECTURES)}, or another allocation"
        )
    modules = _modules_by_path(architecture)
    groups: dict[ModuleGroup, list[BlockLinear]] = {}
    for linear in linears:
        path = linear.name.removeprefix(f"{architecture.backbone}.{architecture.blocks}.{linear.layer}.")
        groups.setdefault(ModuleGroup(linear.layer, modules.get(path, ("mlp_input",))), []).append(linear)
    return dict(sorted(groups.items(), key=lambda item: (item[0].layer, MODULES.index(item[0].modules[0]))))


def _modules_by_path(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """What each linear of a block is, by its path in the block; all others are an MLP's input linears."""
    attention, projections = architecture.attention, architecture.projections
    inputs = (
        {f"{attention}.{projections.path}": ("q", "k", "v")}
        if isinstance(projections, Fused)
        else {f"{attention}.{path}": (which,) for path, which in zip(projections, "qkv", strict=True)}
    )
    return {**inputs, f"{attention}.{architecture.output}": ("output",), architecture.mlp_output: ("mlp_output",)}


def module_weights(changes: pd.DataFrame, policy: str, groups: Iterable[ModuleGroup]) -> dict[ModuleGroup, float]:
    """The weight of every group in the rank above the common one: the changes of the edges that touch its modules.

    Args:
        changes: a ``module_changes`` table.
        policy: the column to sum, ``score_change`` or ``score_change_normalised``.
        groups: the model's groups.

    Raises:
        AllocationError: a change is not finite or is negative, the table credits a layer that the model lacks, or no
            module has any change.
    """
    values = changes[policy].to_numpy(dtype="float64")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise AllocationError(
            f"the table of module changes has values of '{policy}' that are negative or not finite; "
            "compare the circuits again"
        )
    credited = list(zip(changes["layer"].tolist(), changes["module"].tolist(), strict=True))
    group_of = {(group.layer, module): group for group in groups for module in group.modules}
    if strangers := sorted(set(credited) - set(group_of)):
        raise AllocationError(
            f"the table of module changes credits module '{strangers[0][1]}' of layer {strangers[0][0]}, which this "
            "model does not have; compare the circuits of the same model again"
        )
    weights = dict.fromkeys(group_of.values(), 0.0)
    for place, value in zip(credited, values.tolist(), strict=True):
        weights[group_of[place]] += value
    if not any(weights.values()):
        raise AllocationError(
            f"allocation: 'per_module' gives no module any weight: no edge's '{policy}' differs from zero between the "
            "first and the last checkpoint of phase_1; train phase_1 longer, or use allocation: top"
        )
    return weights
