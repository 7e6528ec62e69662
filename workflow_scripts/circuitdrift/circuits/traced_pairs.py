"""The clean and the corrupted pass over a batch, with the outputs of all writers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdrift.circuits.prompts import PairBatch
from circuitdrift.decoder.anatomy import Anatomy, AnatomyError
from circuitdrift.decoder.tracing import Prefix, Trace, run_prefix, trace, written_by_heads


@dataclass(frozen=True)
class TracedPair:
    """Both passes over a batch, from the first token on in which a pair of it differs.

    Attributes:
        prefix: the tokens before that, shared by both passes.
        clean_embeddings: token embeddings of the clean prompts. The traces hold the output of node ``input``, which
            may have positions added.
        corrupted_embeddings: token embeddings of the corrupted prompts.
        clean: the clean pass.
        corrupted: the corrupted pass.
    """

    prefix: Prefix
    clean_embeddings: Float[Tensor, "batch position d_model"]
    corrupted_embeddings: Float[Tensor, "batch position d_model"]
    clean: Trace
    corrupted: Trace


class WriterOutputs(Protocol):
    """What all writers of a pass write: a :class:`~circuitdrift.decoder.tracing.Trace`, or the same part of it."""

    @property
    def embeddings(self) -> Float[Tensor, "batch position d_model"]:
        """The output of node ``input``."""

    @property
    def head_values(self) -> tuple[Float[Tensor, "batch position d_attention"], ...]:
        """For each layer the input of the output projection, all heads side by side."""

    @property
    def mlp_outputs(self) -> tuple[Float[Tensor, "batch position d_model"], ...]:
        """For each layer what the MLP writes to the residual stream."""


@torch.no_grad()
def trace_pair(anatomy: Anatomy, batch: PairBatch) -> TracedPair:
    """Run the tokens that a batch's prompts share once, and the rest of both prompts as one batch.

    Raises:
        AnatomyError: the prompts are so long that their first tokens would be encoded otherwise by themselves.
    """
    if anatomy.longest is not None and batch.clean.shape[1] > anatomy.longest:
        raise AnatomyError(
            f"a prompt has {batch.clean.shape[1]} tokens, but from {anatomy.longest + 1} on this model's rotary "
            "frequencies depend on the length of the sequence, so that the tokens which prompts share cannot run by "
            f"themselves; use prompts of at most {anatomy.longest} tokens"
        )
    prefix = run_prefix(anatomy, batch.clean[:, : batch.n_shared])
    both = anatomy.embed(torch.cat([batch.clean, batch.corrupted])[:, batch.n_shared :])
    traced = trace(anatomy, both, prefix, batch.n_answer)
    n = len(batch.indices)
    return TracedPair(
        prefix=prefix,
        clean_embeddings=both[:n],
        corrupted_embeddings=both[n:],
        clean=traced.rows(slice(0, n)),
        corrupted=traced.rows(slice(n, None)),
    )


@torch.no_grad()
def writer_differences(
    anatomy: Anatomy, traced: WriterOutputs, base: WriterOutputs
) -> Float[Tensor, "writer batch position d_model"]:
    """Each writer's output in one pass less its output in another. Constant biases cancel."""
    graph, dtype = anatomy.graph, anatomy.accumulation_dtype
    batch, position, d_model = traced.embeddings.shape
    differences = torch.empty(graph.n_writers, batch, position, d_model, dtype=dtype, device=anatomy.device)
    differences[0] = traced.embeddings.to(dtype) - base.embeddings.to(dtype)
    for layer, block in enumerate(anatomy.blocks):
        values = traced.head_values[layer].to(dtype) - base.head_values[layer].to(dtype)
        differences[graph.heads(layer)] = written_by_heads(block, values, graph.n_heads)
        differences[graph.mlp(layer)] = traced.mlp_outputs[layer].to(dtype) - base.mlp_outputs[layer].to(dtype)
    return differences
