"""The linears of a decoder's blocks: their names, their shapes, and their parts in the block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from circuitdrift.decoder.architecture import Architecture, Fused
from circuitdrift.decoder.architectures import ARCHITECTURES
from circuitdrift.decoder.modules import MODULES
from circuitdrift.errors import CircuitDriftError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class LinearsError(CircuitDriftError):
    """A model whose blocks or linears are not recognised; the message names the model and the fix."""


@dataclass(frozen=True)
class BlockLinear:
    """A linear of a decoder block: its full module name, its block's index, and its shape."""

    name: str
    layer: int
    in_features: int
    out_features: int

    @property
    def parameters_per_rank(self) -> int:
        """Parameters that one unit of rank adds to this linear."""
        return self.in_features + self.out_features


@dataclass(frozen=True)
class ModuleGroup:
    """Linears of one layer that get one rank, by their names in :data:`circuitdrift.decoder.modules.MODULES`.

    A fused linear for queries, keys and values is a group with these three names; the two input linears of a gated
    MLP are one group.
    """

    layer: int
    modules: tuple[str, ...]


def shape_of_config(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a Hugging Face configuration on the meta device."""
    with torch.device("meta"):
        return cast("PreTrainedModel", AutoModelForCausalLM.from_config(config))


def decoder_blocks(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The decoder blocks by name, in order: the one module list with an entry for each hidden layer.

    Raises:
        LinearsError: the model has no such module list, or more than one.
    """
    n_layers = model.config.num_hidden_layers
    lists = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outermost) != 1:
        raise LinearsError(
            f"{type(model).__name__}: expected one list of {n_layers} decoder blocks, found {outermost or 'none'}; "
            "adapters and sharding do not support this architecture, use another model"
        )
    blocks = model.get_submodule(outermost[0]).children()
    return {f"{outermost[0]}.{layer}": block for layer, block in enumerate(blocks)}


def block_linears(model: PreTrainedModel) -> tuple[BlockLinear, ...]:
    """Every linear inside a decoder block, in module order, without the embeddings and the output head.

    Raises:
        LinearsError: see ``decoder_blocks``.
    """
    head = model.get_output_embeddings()
    linears = []
    for layer, (prefix, block) in enumerate(decoder_blocks(model).items()):
        for name, module in block.named_modules(prefix=prefix):
            if isinstance(module, nn.Linear | Conv1D) and module is not head:
                in_features, out_features = _features(module)
                linears.append(BlockLinear(name, layer, in_features, out_features))
    return tuple(linears)


def _features(module: nn.Linear | Conv1D) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return int(module.nx), int(module.nf)


def group_by_layer(linears: Sequence[BlockLinear]) -> dict[int, list[BlockLinear]]:
    """The linears of each layer, in ascending order of the layers."""
    return {
        layer: [linear for linear in linears if linear.layer == layer]
        for layer in sorted({linear.layer for linear in linears})
    }


def group_by_module(model: PreTrainedModel, linears: Sequence[BlockLinear]) -> dict[ModuleGroup, list[BlockLinear]]:
    """The linears of each group, by layer and in the order in which a block computes them.

    Args:
        model: the base model; the meta device is enough.
        linears: its block linears.

    Raises:
        LinearsError: the paths of this architecture are not declared.
    """
    architecture = ARCHITECTURES.get(type(model).__name__)
    if architecture is None:
        raise LinearsError(
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
    """The modules of each linear by its path in the block; the remaining linears are the MLP's input linears."""
    attention, projections = architecture.attention, architecture.projections
    inputs = (
        {f"{attention}.{projections.path}": ("q", "k", "v")}
        if isinstance(projections, Fused)
        else {f"{attention}.{path}": (which,) for path, which in zip(projections, "qkv", strict=True)}
    )
    return {**inputs, f"{attention}.{architecture.output}": ("output",), architecture.mlp_output: ("mlp_output",)}
