"""The methods of a study that together are every set of so many layers: the reference of a randomisation test."""

from __future__ import annotations

from math import comb

from circuitdrift.config.methods import CircuitLoraMethod, RandomLoraMethod
from circuitdrift.config.models import ScratchModel
from circuitdrift.config.study import StudyConfig


def layer_sets(config: StudyConfig) -> dict[str, dict[str, list[int]]]:
    """For each CircuitLoRA the methods that are all sets of as many layers as it has critical ones, with their layers.

    They have CircuitLoRA's ranks and training, and are the reference of its randomisation test
    (docs/method.md#layer-sets). A CircuitLoRA is left out if a set is missing, or if its ranks do not simply go to
    its critical layers.
    """
    circuit_loras = {name: m for name, m in config.methods.items() if isinstance(m, CircuitLoraMethod)}
    found = {name: _sets_like(method, config) for name, method in circuit_loras.items()}
    return {name: sets for name, sets in found.items() if sets}


def _sets_like(method: CircuitLoraMethod, config: StudyConfig) -> dict[str, list[int]]:
    methods = config.methods.items()
    alike = {n: m for n, m in methods if isinstance(m, RandomLoraMethod) and _trained(m) == _trained(method)}
    given = {name: m.given_layers for name, m in alike.items() if m.given_layers}
    sets = {layers: name for name, layers in reversed(given.items())}
    n_layers = 1 + max((layer for layers in sets for layer in layers), default=-1)
    known = {model.layers for model in config.models.values() if isinstance(model, ScratchModel)}
    complete = n_layers > method.critical_layers and len(sets) == comb(n_layers, method.critical_layers)
    if method.allocation != "top" or not complete or not known <= {n_layers}:
        return {}
    return {sets[layers]: list(layers) for layers in sorted(sets)}


def _trained(method: CircuitLoraMethod | RandomLoraMethod) -> tuple[float | None, ...]:
    """What the size and the training of a method depend on."""
    ranks = (method.rank, method.critical_rank, method.critical_layers)
    return *ranks, method.learning_rate, method.epochs, method.warmup_fraction
