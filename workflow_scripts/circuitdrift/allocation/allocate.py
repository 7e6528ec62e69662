"""The rank of every linear, from the drift of a circuit or from a random draw: the one place that decides ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from circuitdrift.allocation.modules import module_weights
from circuitdrift.allocation.policies import RANDOM, critical_layers, layer_weights
from circuitdrift.allocation.ranks import AllocationError, adapter_parameters, ranks_by_layer, ranks_under_budget
from circuitdrift.config.methods import CircuitLoraMethod, RandomLoraMethod
from circuitdrift.decoder.linears import block_linears, group_by_layer, group_by_module

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Allocation(NamedTuple):
    """The rank of every linear by its full name, and the budget of parameters."""

    ranks: dict[str, int]
    budget: int


def allocate(
    model: PreTrainedModel,
    method: CircuitLoraMethod | RandomLoraMethod,
    layers: pd.DataFrame,
    module_changes: pd.DataFrame | None = None,
) -> Allocation:
    """Give every linear ``rank``, and more by the method's allocation (docs/method.md#allocation).

    The budget is the cost of ``critical_rank`` in ``critical_layers`` layers and ``rank`` elsewhere.

    Args:
        model: the base model; the meta device is enough.
        method: the ranks, the number of critical layers, the policy and the allocation.
        layers: a ``critical_layers`` table.
        module_changes: a ``module_changes`` table, which allocation ``per_module`` needs.

    Raises:
        AllocationError: a table does not fit the model or the method, or the table of module changes is missing.
        LinearsError: the architecture is not supported.
    """
    linears = block_linears(model)
    policy = method.policy if isinstance(method, CircuitLoraMethod) else RANDOM
    critical = critical_layers(layers, policy, method.critical_layers)
    top = ranks_by_layer(linears, method.rank, method.critical_rank, critical)
    budget = adapter_parameters(linears, top)
    if isinstance(method, RandomLoraMethod) or method.allocation == "top":
        return Allocation(top, budget)
    if method.allocation == "per_module":
        if module_changes is None:
            raise AllocationError("allocation 'per_module' needs the table of module changes; the rule gives none")
        groups = group_by_module(model, linears)
        weights = module_weights(module_changes, policy, groups)
        return Allocation(ranks_under_budget(groups, method.rank, weights, budget), budget)
    by_layer = layer_weights(layers, policy, method.allocation, method.critical_layers)
    return Allocation(ranks_under_budget(group_by_layer(linears), method.rank, by_layer, budget), budget)
