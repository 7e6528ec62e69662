"""What a description of an architecture holds: paths of modules, facts that settings decide, options that are refused.

No torch and no transformers, like the descriptions themselves (:mod:`circuitdrift.decoder.architectures`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]
"""The entries of a model's config.json, of which those with their default value may be missing."""


@dataclass(frozen=True)
class Fused:
    """One linear map for queries, keys and values.

    Attributes:
        path: its path in the attention.
        axes: the axes of its output, the slowest first: ``projection`` (q, k, v), ``head``, ``d_head``. Where query
            heads share keys and values, ``projection`` first means all queries, then all keys, then all values, and
            ``head`` first means group by group: its queries, its key, its value.
    """

    path: str
    axes: tuple[str, str, str]


def never(settings: Settings) -> bool:
    """Attention and MLP of a block never run in parallel."""
    return False


def always(settings: Settings) -> bool:
    """Attention and MLP of a block always run in parallel."""
    return True


@dataclass(frozen=True)
class Limit:
    """An option of an architecture that the circuit engine does not support.

    Attributes:
        excludes: whether the settings of a model have the option.
        reason: its effect, why that is not supported, and the fix.
    """

    excludes: Callable[[Settings], bool]
    reason: str


@dataclass(frozen=True)
class Architecture:
    """Paths of a decoder's modules, and the facts that its settings decide.

    Attributes:
        backbone: path in the model of the module from embeddings to the final norm's output.
        embedding: path in the backbone of the token embedding.
        blocks: path in the backbone of the list of blocks.
        final_norm: path in the backbone of the norm before the unembedding.
        attention_norm: path in a block of the norm before the attention; None where q, k and v read the stream itself.
        attention: path in a block of the module that holds the projections.
        projections: paths in the attention of the maps to queries, keys and values, or the one map for all three.
        output: path in the attention of the output projection.
        mlp_norm: path in a block of the norm before the MLP; where it is the attention's, both read its one output;
            None where ``mlp_input`` reads the stream itself.
        mlp: path in a block of the module whose output the MLP writes to the residual stream; where MLP and attention
            share a norm, the module that reads its output too.
        mlp_output: path in a block of the MLP's last linear map; its other linear maps read the MLP's input.
        parallel: whether attention and MLP of a block both read the block's input.
        limits: options that are refused.
        post_norm: path in a block of the RMSNorm of the heads' sum, after the output projection; None where this sum
            itself is added to the residual stream (docs/method.md#post-norms).
        mlp_input: path in a block of the module whose input the MLP reads, where no norm comes before the MLP.
        joint_key_norm: path in the attention of a norm over the keys of all heads together, if there is one.
        gain_offset: what norms add to their weight to get their gain.
        centred: whether norms that are not torch's subtract the mean over d_model.
        epsilon: the constant in their root, where the modules do not name it.
        embedding_norm: path in the backbone of a norm between the token embedding and the residual stream.
        multiplier: what a block multiplies the outputs of its heads and its MLP by before it adds them to the
            residual stream.
        in_place: whether a block changes in place what its projections or its MLP return.
        variant: the above, where the settings of a model change them (:func:`architecture_of`).
    """

    backbone: str
    embedding: str
    blocks: str
    final_norm: str
    attention_norm: str | None
    attention: str
    projections: tuple[str, str, str] | Fused
    output: str
    mlp_norm: str | None
    mlp: str
    mlp_output: str
    parallel: Callable[[Settings], bool] = never
    limits: tuple[Limit, ...] = ()
    post_norm: str | None = None
    mlp_input: str = "mlp"
    joint_key_norm: str | None = None
    gain_offset: float = 0.0
    centred: bool = False
    epsilon: float | None = None
    embedding_norm: str | None = None
    multiplier: float = 1.0
    in_place: bool = False
    variant: Callable[[Settings], Mapping[str, Any]] = lambda settings: {}
