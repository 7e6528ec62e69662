"""The modules of a base model of which only the architecture and the number of layers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig

from circuitdrift.allocation.ranks import AllocationError
from circuitdrift.decoder.linears import shape_of_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARALLEL = "gpt_neox"
"""The one architecture whose attention and MLP run in parallel."""


def base_architecture(wanted: str | None, parallel: bool) -> str:
    """The architecture to take: the one wanted, or the only one that fits.

    Args:
        wanted: what the config says; None leaves it to the graph.
        parallel: whether attention and MLP of a block both read the block's input.

    Raises:
        AllocationError: the graph does not tell the architecture, or contradicts the one wanted.
    """
    if wanted is None and not parallel:
        raise AllocationError(
            "architecture: the circuits' MLPs read their own layer's heads, as in several architectures; "
            "say which, such as architecture: gpt2"
        )
    if wanted not in {None, PARALLEL} and parallel:
        raise AllocationError(
            f"architecture: the circuits' attention and MLP run in parallel, those of {wanted} do not; "
            f"set it to {PARALLEL}, or import circuits of a {wanted} model"
        )
    return wanted or PARALLEL


def shape_of_architecture(architecture: str, n_layers: int) -> PreTrainedModel:
    """A small model of that architecture on the meta device; its modules have the names that they have in any size."""
    settings: dict[str, Any] = {
        "num_hidden_layers": n_layers,
        "hidden_size": 64,
        "num_attention_heads": 4,
        **({"attention_types": [[["global"], n_layers]]} if architecture == "gpt_neo" else {}),
    }
    return shape_of_config(AutoConfig.for_model(architecture, **settings))
