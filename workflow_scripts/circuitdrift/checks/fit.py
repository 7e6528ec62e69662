"""Whether methods and circuits fit a model: ranks its width, critical layers its depth, and fractions its edges."""

from __future__ import annotations

import math
from collections.abc import Mapping

from circuitdrift.config.circuits import Selection
from circuitdrift.config.given import GIVEN, DriftRanks
from circuitdrift.config.methods import AllocatedLoraMethod, CircuitLoraMethod, MethodConfig, RandomLoraMethod
from circuitdrift.decoder.size import edges_in_share
from circuitdrift.errors import CircuitDriftError
from circuitdrift.models.shapes import ModelShape


class FitError(CircuitDriftError):
    """Settings that a model cannot do; one line for each: the key, the problem and the fix."""


RANK_KEYS = ("rank", "critical_rank", "initial_rank", "target_rank")


def problems_of_fit(
    name: str, shape: ModelShape, methods: Mapping[str, MethodConfig], selection: Selection
) -> list[str]:
    """One line for each key of the config that the model cannot do: the key, the problem and the fix.

    Args:
        name: the model's name in the study.
        shape: its shape.
        methods: the methods that it is trained by.
        selection: how circuits are chosen.
    """
    problems = [
        problem
        for method_name, method in methods.items()
        for problem in (
            *_problems_of_ranks(f"methods.{method_name}", method, name, shape),
            *_problems_of_layers(f"methods.{method_name}", method, name, shape),
        )
    ]
    if selection.selection in {"top", "greedy"} and edges_in_share(shape.edges, selection.fraction) == 0:
        problems.append(
            f"circuit.fraction: {selection.fraction:g} of the {shape.edges:,} edges of model '{name}' is no edge; "
            f"raise it to at least {_rounded_up(1 / shape.edges)}"
        )
    return problems


def problems_of_given_ranks(name: str, shape: ModelShape, ranks: DriftRanks) -> list[str]:
    """The same of the ranks that the drift of a model's given checkpoints leads to."""
    method = ranks.as_method(GIVEN)
    return [*_problems_of_ranks(GIVEN, method, name, shape), *_problems_of_layers(GIVEN, method, name, shape)]


def _problems_of_ranks(key: str, method: MethodConfig, model: str, shape: ModelShape) -> list[str]:
    ranks = {rank_key: rank for rank_key in RANK_KEYS if (rank := getattr(method, rank_key, None)) is not None}
    return [
        f"{key}.{rank_key}: {rank} exceeds the width {shape.width} of model '{model}', above which a rank adds "
        f"parameters and nothing else; lower it to at most {shape.width}"
        for rank_key, rank in ranks.items()
        if rank > shape.width
    ]


def _problems_of_layers(key: str, method: MethodConfig, model: str, shape: ModelShape) -> list[str]:
    if not isinstance(method, CircuitLoraMethod | RandomLoraMethod | AllocatedLoraMethod):
        return []
    problems = []
    if method.critical_layers > shape.layers:
        problems.append(
            f"{key}.critical_layers: {method.critical_layers} exceeds the {shape.layers} layers of model '{model}'; "
            f"lower it to at most {shape.layers}"
        )
    elif isinstance(method, AllocatedLoraMethod) and method.allocation == "uniform":
        ranks = method.critical_layers * method.critical_rank + (shape.layers - method.critical_layers) * method.rank
        if ranks % shape.layers:
            problems.append(
                f"{key}.critical_rank: no uniform rank has exactly the size of {method.critical_rank} in "
                f"{method.critical_layers} and {method.rank} in the other of {shape.layers} layers of model '{model}', "
                f"whose mean is {ranks / shape.layers:.4g}; choose ranks whose mean is whole, or another allocation"
            )
    for layers_key in ("include_layers", "exclude_layers"):
        if beyond := [layer for layer in getattr(method, layers_key, ()) if layer >= shape.layers]:
            problems.append(
                f"{key}.{layers_key}: model '{model}' has no layers {beyond}, only 0 to {shape.layers - 1}; remove them"
            )
    if isinstance(method, RandomLoraMethod) and not problems:
        left = shape.layers - len(set(method.exclude_layers))
        if method.critical_layers > left:
            problems.append(
                f"{key}.exclude_layers: leaves {left} layers of model '{model}', fewer than critical_layers "
                f"{method.critical_layers}; exclude fewer"
            )
    return problems


def _rounded_up(share: float) -> str:
    """A share with two digits, not below it."""
    digits = 1 - math.floor(math.log10(share))
    return f"{math.ceil(share * 10**digits) / 10**digits:.{digits}f}"
