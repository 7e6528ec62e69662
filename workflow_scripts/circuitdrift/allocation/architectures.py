"""The modules of a base model, from its architecture and number of layers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig

from circuitdrift.allocation.ranks import AllocationError
from circuitdrift.decoder.architecture import always, never
from circuitdrift.decoder.architectures import ARCHITECTURES, MODEL_TYPES
from circuitdrift.decoder.linears import shape_of_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARALLEL = "gpt_neox"
"""The architecture that circuits with attention and MLP in parallel belong to where no other is named."""


def base_architecture(wanted: str | None, parallel: bool) -> str:
    """The architecture of the config, or the one that a graph with attention and MLP in parallel means by default.

    Args:
        wanted: the architecture of the config; None leaves the choice to the graph.
        parallel: whether attention and MLP of a block both read the block's input.

    Raises:
        AllocationError: several architectures fit the graph, or the graph contradicts the config.
    """
    if wanted is None and not parallel:
        raise AllocationError(
            "architecture: the circuits' MLPs read their own layer's heads, as in several architectures; "
            "name one, such as architecture: gpt2"
        )
    if wanted is None:
        return PARALLEL
    of_model = ARCHITECTURES[MODEL_TYPES[wanted]].parallel
    if parallel and of_model is never:
        raise AllocationError(
            f"architecture: attention and MLP of the circuits run in parallel, those of {wanted} do not; "
            f"name another one, such as {PARALLEL}, or import circuits of a {wanted} model"
        )
    if not parallel and of_model is always:
        raise AllocationError(
            f"architecture: attention and MLP of {wanted} run in parallel, those of the circuits do not; "
            f"name another one, such as gpt2, or import circuits of a {wanted} model"
        )
    return wanted


def shape_of_architecture(architecture: str, n_layers: int) -> PreTrainedModel:
    """A small model of the architecture on the meta device; the names of its modules do not depend on the size."""
    settings: dict[str, Any] = {
        "num_hidden_layers": n_layers,
        "hidden_size": 64,
        "num_attention_heads": 4,
        **({"attention_types": [[["global"], n_layers]]} if architecture == "gpt_neo" else {}),
    }
    return shape_of_config(AutoConfig.for_model(architecture, **settings))
