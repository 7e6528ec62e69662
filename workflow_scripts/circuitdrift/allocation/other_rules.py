"""Ranks that follow another rule than drift, at exactly the size of a CircuitLoRA (docs/method.md#other-rules)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from circuitdrift.allocation.exact import bounded_shares, nearest_ranks
from circuitdrift.allocation.ranks import AllocationError, matched_uniform_rank, ranks_by_layer
from circuitdrift.config.methods import AllocatedLoraMethod
from circuitdrift.decoder.linears import BlockLinear, block_linears, group_by_layer, group_by_module

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_MULTIPLE = 4
"""GoRA's largest rank, in mean ranks."""

MLP = {"mlp_input", "mlp_output"}


def ranks_of_equal_size(
    model: PreTrainedModel, method: AllocatedLoraMethod, values: Mapping[str, float]
) -> dict[str, int]:
    """The rank of every linear by a method's allocation; 0 where it gets no adapter.

    Args:
        model: the base model; the meta device is enough.
        method: the ranks that set the size, and the allocation.
        values: what the allocation follows, of each linear by its full name; allocations ``uniform`` and ``mlp`` follow
            nothing.

    Returns:
        Ranks that together have exactly as many parameters as ``critical_rank`` in ``critical_layers`` layers and
        ``rank`` in the others.

    Raises:
        AllocationError: no ranks of this allocation have exactly this size, a linear has no value, or the layers of the
            model differ in size.
        LinearsError: the architecture is not supported.
    """
    linears = block_linears(model)
    reference = _reference(linears, method)
    budget = sum(linear.parameters_per_rank * reference[linear.name] for linear in linears)
    if method.allocation == "uniform":
        return _uniform(linears, reference, budget)
    if method.allocation == "mlp":
        return _nearest(linears, np.ones(len(linears)), _lowest(linears, 0), _mlp_alone(model, linears), budget)
    if missing := [linear.name for linear in linears if linear.name not in values]:
        raise AllocationError(f"allocation {method.allocation}: no value for {missing[0]}; measure this model again")
    if method.allocation in {"random", "inverted"} or (
        method.allocation in {"fisher", "gradient_norm"} and method.by == "layers"
    ):
        return ranks_by_layer(linears, method.rank, method.critical_rank, _chosen_layers(linears, method, values))
    of_linears = np.array([values[linear.name] for linear in linears], dtype=np.float64)
    if method.allocation in {"eva", "adalora"}:
        return _nearest(linears, of_linears, _lowest(linears, 0), _highest(linears), budget)
    weights = of_linears / np.sqrt([linear.parameters_per_rank for linear in linears])
    mean = budget / sum(linear.parameters_per_rank for linear in linears)
    highest = np.minimum(_highest(linears), int(LARGEST_MULTIPLE * mean))
    return _nearest(linears, weights, _lowest(linears, method.rank), highest, budget)


def mean_rank(method: AllocatedLoraMethod, n_layers: int) -> float:
    """The mean rank over layers, which are equal in size: the uniform rank of the same size if it is whole."""
    critical = method.critical_layers
    return (critical * method.critical_rank + (n_layers - critical) * method.rank) / n_layers


def _reference(linears: Sequence[BlockLinear], method: AllocatedLoraMethod) -> dict[str, int]:
    """Ranks of the size that every allocation must have: those of the first layers as the critical ones."""
    sizes = [sum(linear.parameters_per_rank for linear in own) for own in group_by_layer(linears).values()]
    if len(set(sizes)) > 1:
        raise AllocationError(
            f"the layers of this model have {min(sizes):,} to {max(sizes):,} parameters for a unit of rank, so the "
            "size of a CircuitLoRA depends on its layers; use methods of kind circuit_lora or lora"
        )
    if method.critical_layers > len(sizes):
        raise AllocationError(
            f"critical_layers: {method.critical_layers} is more than the {len(sizes)} layers of the model; lower it"
        )
    return ranks_by_layer(linears, method.rank, method.critical_rank, range(method.critical_layers))


def _uniform(linears: Sequence[BlockLinear], reference: Mapping[str, int], budget: int) -> dict[str, int]:
    rank = matched_uniform_rank(linears, reference)
    if rank is None:
        raise AllocationError(
            f"no uniform rank has exactly {budget:,} parameters; choose rank, critical_rank and critical_layers whose "
            "mean over the layers is whole, or another allocation"
        )
    return ranks_by_layer(linears, rank, rank, ())


def _chosen_layers(
    linears: Sequence[BlockLinear], method: AllocatedLoraMethod, values: Mapping[str, float]
) -> tuple[int, ...]:
    """The layers of largest value, of smallest for ``inverted``; of equal layers the lower one counts as larger."""
    totals = {layer: sum(values[linear.name] for linear in own) for layer, own in group_by_layer(linears).items()}
    ordered = sorted(totals, key=lambda layer: (-totals[layer], layer))
    count = method.critical_layers
    return tuple(ordered[-count:] if method.allocation == "inverted" else ordered[:count])


def _lowest(linears: Sequence[BlockLinear], rank: int) -> Int[np.ndarray, " module"]:
    return np.full(len(linears), rank, dtype=np.int64)


def _highest(linears: Sequence[BlockLinear]) -> Int[np.ndarray, " module"]:
    """The rank of each full matrix, above which a rank adds parameters and nothing else."""
    return np.array([min(linear.in_features, linear.out_features) for linear in linears], dtype=np.int64)


def _mlp_alone(model: PreTrainedModel, linears: Sequence[BlockLinear]) -> Int[np.ndarray, " module"]:
    """Upper bounds of the ranks: the full ones in the MLPs, 0 in the attention."""
    groups = group_by_module(model, linears)
    in_mlp = {linear.name for group, own in groups.items() for linear in own if set(group.modules) <= MLP}
    return np.where([linear.name in in_mlp for linear in linears], _highest(linears), 0)


def _nearest(
    linears: Sequence[BlockLinear],
    weights: Float[np.ndarray, " module"],
    lowest: Int[np.ndarray, " module"],
    highest: Int[np.ndarray, " module"],
    budget: int,
) -> dict[str, int]:
    cost = np.array([linear.parameters_per_rank for linear in linears], dtype=np.int64)
    wanted = bounded_shares(cost, weights, lowest, highest, budget)
    ranks = nearest_ranks(cost, wanted, lowest, highest, budget)
    return {linear.name: int(rank) for linear, rank in zip(linears, ranks, strict=True)}
