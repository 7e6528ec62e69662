"""What writers write along a path of embeddings, watched in the passes that take the gradients.

Conductance multiplies the gradients of each step of a path with what each writer's output changes by in this step
(docs/method.md#conductance). The passes that take the gradients write these outputs anyway, so no pass is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuitdrift.circuits.gradients import Intervention, PassGradients
from circuitdrift.circuits.traced_pairs import WriterOutputs
from circuitdrift.config.circuits import Quadrature
from circuitdrift.decoder.anatomy import Anatomy, Block
from circuitdrift.decoder.tracing import AfterHook


@dataclass(frozen=True)
class PathPoint:
    """What the writers write at one point of a path.

    Attributes:
        embeddings: the output of node ``input``.
        head_values: for each layer the input of the output projection, all heads side by side.
        mlp_outputs: for each layer what the MLP writes to the residual stream.
    """

    embeddings: Float[Tensor, "batch position d_model"]
    head_values: tuple[Float[Tensor, "batch position d_attention"], ...]
    mlp_outputs: tuple[Float[Tensor, "batch position d_model"], ...]


class OutputWatch:
    """Hooks that keep what the heads and MLPs of several passes write, and change nothing."""

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._seen: dict[nn.Module, Tensor] = {}

    @property
    def hooks(self) -> Intervention:
        """Hooks for :func:`~circuitdrift.circuits.gradients.pass_gradients`."""
        keep = self._seen.update
        blocks = self._anatomy.blocks
        return Intervention(
            before=[(block.output, lambda module, args: keep({module: args[0].detach()})) for block in blocks],
            after=[(block.mlp, self._keep_written(block)) for block in blocks],
        )

    def _keep_written(self, block: Block) -> AfterHook:
        return lambda module, args, output: self._seen.update({module: block.written_by_mlp(output.detach())})

    def points(self, gradients: PassGradients) -> list[PathPoint]:
        """The outputs of each pass, after the passes that gave these gradients have run."""
        blocks = self._anatomy.blocks
        embeddings = gradients.blocks[0].attention_input
        n_passes, batch, position, _ = embeddings.shape

        def by_pass(tensor: Tensor) -> Tensor:
            # OPT's MLP has batch and positions in one dimension.
            return tensor.reshape(n_passes, batch, position, tensor.shape[-1])

        heads = [by_pass(self._seen[block.output]) for block in blocks]
        mlps = [by_pass(self._seen[block.mlp]) for block in blocks]
        return [
            PathPoint(embeddings[k], tuple(layer[k] for layer in heads), tuple(layer[k] for layer in mlps))
            for k in range(n_passes)
        ]


def ends_of_steps(
    points: Sequence[WriterOutputs], corrupted: WriterOutputs, clean: WriterOutputs, quadrature: Quadrature
) -> list[WriterOutputs]:
    """The outputs at both ends of each step, in order: the end of a step is the beginning of the next.

    Args:
        points: the outputs where each step's gradients are taken; with quadrature ``right`` the last may be missing,
            and with it the last step.
        corrupted: the outputs at the beginning of the path.
        clean: the outputs at its end.
        quadrature: where in its step a point lies. Steps around ``midpoint`` points meet halfway between two of them.
    """
    if quadrature == "right":
        return [corrupted, *points]
    if quadrature == "left":
        return [*points, clean]
    return [corrupted, *(_halfway(*pair) for pair in pairwise(points)), clean]


def _halfway(one: WriterOutputs, other: WriterOutputs) -> PathPoint:
    return PathPoint(
        torch.lerp(one.embeddings, other.embeddings, 0.5),
        tuple(torch.lerp(*pair, 0.5) for pair in zip(one.head_values, other.head_values, strict=True)),
        tuple(torch.lerp(*pair, 0.5) for pair in zip(one.mlp_outputs, other.mlp_outputs, strict=True)),
    )
