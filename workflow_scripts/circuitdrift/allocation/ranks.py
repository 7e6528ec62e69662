"""LoRA ranks by module: ranks from critical layers or weights, PEFT's patterns for them, and exact parameter counts.

A LoRA adapter of rank r beside a linear of shape [out_features, in_features] adds two matrices, [r, in_features] and
[out_features, r], hence r x (in_features + out_features) parameters. Counts follow from shapes alone, without torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

from circuitdrift.errors import CircuitDriftError

if TYPE_CHECKING:
    from circuitdrift.decoder.linears import BlockLinear

Group = TypeVar("Group", bound=Hashable)


class AllocationError(CircuitDriftError):
    """Ranks that cannot be allocated; the message names the cause and the fix."""


@dataclass(frozen=True)
class RankPatterns:
    """Ranks in the form of PEFT's LoraConfig: a default, and exceptions by regular expression over module names."""

    rank: int
    alpha: float
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]


def ranks_by_layer(
    linears: Sequence[BlockLinear], rank: int, critical_rank: int, critical_layers: Collection[int]
) -> dict[str, int]:
    """The rank of every linear: ``critical_rank`` in the critical layers, ``rank`` in the others.

    Raises:
        AllocationError: a critical layer is not a layer of the model.
    """
    layers = {linear.layer for linear in linears}
    if unknown := sorted(set(critical_layers) - layers):
        raise AllocationError(
            f"critical layers {unknown} are not layers of this model, which has layers 0..{max(layers)}; "
            "order the layers of the same model again"
        )
    return {linear.name: critical_rank if linear.layer in critical_layers else rank for linear in linears}


def ranks_under_budget(
    groups: Mapping[Group, Sequence[BlockLinear]], rank: int, weights: Mapping[Group, float], budget: int
) -> dict[str, int]:
    """``rank`` in every linear, and the rest of a parameter budget as further rank, in proportion to the weights.

    All linears of a group get the same rank. Shares are rounded down. Then the groups that lost most by rounding get
    single units of rank (of equal groups the earlier one first), as long as the budget lasts.

    Args:
        groups: the model's block linears in groups, such as layers.
        rank: the common rank.
        weights: weights of the groups, not negative; a group of weight 0, or without a weight, stays at ``rank``.
        budget: parameters of all adapters together.

    Returns:
        The rank of every linear. Together they cost at most the budget, which leaves no unit for a weighted group.

    Raises:
        AllocationError: the budget is too small for ``rank`` everywhere, or no group has a weight.
    """
    cost = {group: sum(linear.parameters_per_rank for linear in linears) for group, linears in groups.items()}
    left = budget - rank * sum(cost.values())
    exact = {group: Fraction(weights.get(group, 0)) for group in cost}  # no rounding may push a share past its budget
    total = sum(exact[group] * cost[group] for group in cost)
    if left < 0 or total <= 0:
        raise AllocationError(
            f"a budget of {budget} parameters does not suffice for rank {rank} everywhere; raise critical_rank"
            if left < 0
            else "every weight is zero, so no share of the budget is defined; use allocation: top"
        )
    ideal = {group: left * weight / total for group, weight in exact.items() if weight > 0}
    further = {group: math.floor(share) for group, share in ideal.items()}
    left -= sum(further[group] * cost[group] for group in further)
    by_remainder = sorted(ideal, key=lambda group: further[group] - ideal[group])
    while fitting := [group for group in by_remainder if cost[group] <= left]:
        for group in fitting:
            if cost[group] <= left:
                further[group] += 1
                left -= cost[group]
    return {linear.name: rank + further.get(group, 0) for group, linears in groups.items() for linear in linears}


def pattern_of_module(name: str) -> str:
    r"""A regular expression that matches exactly one module when PEFT applies it.

    PEFT tests ``(.*\.)?(<pattern>)$``: without the anchor at the start, a pattern also matches every module whose name
    ends in it, and without escapes a dot matches any character.
    """
    return f"^{re.escape(name)}"


def rank_patterns(ranks: Mapping[str, int], rank: int, alpha_per_rank: float) -> RankPatterns:
    """The ranks of all modules in PEFT's form; modules of the default rank need no pattern.

    Every rank has its own alpha. So the scale alpha / rank is ``alpha_per_rank`` in every module, and rank and scale
    are not confounded.

    Args:
        ranks: rank of every module by its full name.
        rank: the default rank.
        alpha_per_rank: alpha as a multiple of the rank, which is the scale of every adapter.
    """
    exceptions = {name: wanted for name, wanted in ranks.items() if wanted != rank}
    return RankPatterns(
        rank=rank,
        alpha=_whole(alpha_per_rank * rank),
        rank_pattern={pattern_of_module(name): wanted for name, wanted in exceptions.items()},
        alpha_pattern={pattern_of_module(name): _whole(alpha_per_rank * wanted) for name, wanted in exceptions.items()},
    )


def _whole(number: float) -> float:
    """An int if the number is whole: PEFT declares alpha as an int, but reads fractions too."""
    return int(number) if float(number).is_integer() else number


def adapter_parameters(linears: Sequence[BlockLinear], ranks: Mapping[str, int]) -> int:
    """The exact number of parameters that LoRA adapters of these ranks add."""
    return sum(linear.parameters_per_rank * ranks[linear.name] for linear in linears)


def trainable_share(trainable: int, total: int) -> float:
    """Trainable parameters as a share of all parameters in training (docs/method.md#parameter-shares).

    Args:
        trainable: number of trained parameters.
        total: number of parameters of the model, with all that the method adds.
    """
    return trainable / total


def matched_uniform_rank(linears: Sequence[BlockLinear], ranks: Mapping[str, int]) -> int | None:
    """The uniform rank that costs exactly as many parameters as ``ranks``; None if no rank does."""
    rank, remainder = divmod(adapter_parameters(linears, ranks), sum(linear.parameters_per_rank for linear in linears))
    return None if remainder else rank
