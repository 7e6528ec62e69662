"""The weight of each group of linears in the allocation of ranks by module."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from circuitdrift.allocation.ranks import AllocationError
from circuitdrift.decoder.linears import ModuleGroup


def module_weights(changes: pd.DataFrame, policy: str, groups: Iterable[ModuleGroup]) -> dict[ModuleGroup, float]:
    """The weight of every group in the rank above the common rank: the changes of edges that touch its modules.

    Args:
        changes: a ``module_changes`` table.
        policy: the column to sum, ``score_change`` or ``score_change_normalised``.
        groups: the model's groups.

    Raises:
        AllocationError: a change is negative or not finite, the table credits a module that the model lacks, or no
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
    if unknown := sorted(set(credited) - set(group_of)):
        raise AllocationError(
            f"the table of module changes credits module '{unknown[0][1]}' of layer {unknown[0][0]}, which this "
            "model lacks; compare the circuits of the same model again"
        )
    weights = dict.fromkeys(group_of.values(), 0.0)
    for module, value in zip(credited, values.tolist(), strict=True):
        weights[group_of[module]] += value
    if not any(weights.values()):
        raise AllocationError(
            f"allocation: 'per_module' gives no module any weight: the '{policy}' of every edge is zero between the "
            "first and the last checkpoint of phase_1; train phase_1 longer, or use allocation: top"
        )
    return weights
