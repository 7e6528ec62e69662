"""Circuit runs: every edge outside the circuit carries an ablated activation (docs/method.md#circuit-runs).

In a circuit run a reader's input is its input with every writer ablated, plus, for each circuit edge into it, the
writer's activation in this run less its ablated activation. Heads read through q, k and v separately, so each input of
each head is a residual stream of its own. With all edges the run is the clean pass.

Ablated activations come from the corrupted pass (``patching``, the paper's choice: with no edges the run is then the
corrupted pass), are the writer's mean over all tokens of all clean prompts (``mean``), or are zero (``zero``).

Hooks replace values of the model at three places: the outputs of the q, k and v projections, which are recomputed
from the patched inputs; the input of the norm before the MLP; the input of the final norm. Attention, MLP and head are
the model's own. Nothing reads the residual stream that the model itself adds up. Several circuits run as one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from circuitdrift.circuits.prompts import PairBatch
from circuitdrift.circuits.traced_pairs import TracedPair, trace_pair
from circuitdrift.decoder.anatomy import Anatomy, Block, Projection
from circuitdrift.decoder.logits import last_logits
from circuitdrift.decoder.tracing import (
    AfterHook,
    BeforeHook,
    Trace,
    hooked,
    logits_after,
    one_key_per_query_head,
    written_by_heads,
)
from circuitdrift.errors import CircuitDriftError

Ablation = Literal["patching", "mean", "zero"]
Circuits = Bool[Tensor, "circuit writers readers"]


@dataclass(frozen=True)
class AblatedLogits:
    """Logits at the positions that predict the answer.

    Attributes:
        clean: logits of the clean pass.
        ablated: logits of the ablated run, which has no edges.
        circuits: logits of each circuit's run.
    """

    clean: Float[Tensor, "batch answer vocabulary"]
    ablated: Float[Tensor, "batch answer vocabulary"]
    circuits: Float[Tensor, "circuit batch answer vocabulary"]


@dataclass(frozen=True)
class Ablated:
    """Activations that replace a writer's own for ``mean`` and ``zero``, the same for every prompt and token."""

    embeddings: Float[Tensor, " d_model"]
    head_values: tuple[Float[Tensor, " d_attention"], ...]
    mlp_outputs: tuple[Float[Tensor, " d_model"], ...]


def batches_for(ablation: Ablation, batches: Sequence[PairBatch]) -> list[PairBatch]:
    """The batches in the form that the ablation needs.

    The tokens that a pair shares are alike in the clean and in the corrupted pass, but not in an ablated run. So
    ``mean`` and ``zero`` run whole prompts.
    """
    return list(batches) if ablation == "patching" else [replace(batch, n_shared=0) for batch in batches]


def ablated_activations(anatomy: Anatomy, batches: Iterable[PairBatch], ablation: Ablation) -> Ablated | None:
    """Replacements for ``mean`` and ``zero``; None for ``patching``, which takes them from the corrupted pass.

    Means are taken over all positions of all clean prompts of ``batches``, which must hold whole prompts.
    """
    if ablation == "patching":
        return None
    n_tokens = 0
    sums: list[Tensor] = []
    with one_key_per_query_head(anatomy):
        for batch in batches:
            clean = trace_pair(anatomy, batch).clean
            found = [clean.embeddings, *clean.head_values, *clean.mlp_outputs]
            totals = [tensor.to(anatomy.accumulation_dtype).sum(dim=(0, 1)) for tensor in found]
            sums = [a + b for a, b in zip(sums, totals, strict=True)] if sums else totals
            n_tokens += batch.clean.numel()
    means = [total / n_tokens if ablation == "mean" else torch.zeros_like(total) for total in sums]
    n_layers = anatomy.graph.n_layers
    return Ablated(means[0], tuple(means[1 : 1 + n_layers]), tuple(means[1 + n_layers :]))


@torch.no_grad()
def run_circuits(
    anatomy: Anatomy, batch: PairBatch, circuits: Circuits, ablated: Ablated | None = None, at_once: int = 8
) -> AblatedLogits:
    """Run several circuits on one batch; the clean and the ablated run are made once for all of them.

    Args:
        anatomy: the model.
        batch: the prompts, whole unless the ablation is ``patching`` (:func:`batches_for`).
        circuits: the edges of each circuit.
        ablated: from :func:`ablated_activations`; None for ``patching``.
        at_once: number of circuits that run as one batch.

    Raises:
        CircuitDriftError: a circuit holds an edge that the graph does not have.
    """
    mask = anatomy.graph.edge_mask
    if circuits.shape[1:] != mask.shape or bool((circuits & ~mask).any()):
        raise CircuitDriftError(
            "the circuit has edges that are not in this model's graph; select it from this model's scores"
        )
    with one_key_per_query_head(anatomy):
        pair = trace_pair(anatomy, batch)
        base = pair.corrupted if ablated is None else _trace_of(anatomy, ablated, pair, batch.n_answer)
        runs = [circuit_logits(anatomy, pair, base, some) for some in circuits.split(at_once)]
    return AblatedLogits(pair.clean.logits, base.logits, torch.cat(runs))


def _trace_of(anatomy: Anatomy, ablated: Ablated, pair: TracedPair, n_answer: int) -> Trace:
    """The run in which every writer is ablated, of the same shape as the clean pass."""
    dtype = pair.clean.embeddings.dtype

    def everywhere(vector: Tensor) -> Tensor:
        return vector.to(dtype).expand(*pair.clean.embeddings.shape[:2], -1)

    stream = ablated.embeddings
    attention_inputs, mlp_inputs = [], []
    for block, values, mlp in zip(anatomy.blocks, ablated.head_values, ablated.mlp_outputs, strict=True):
        attention_inputs.append(everywhere(stream))
        heads = written_by_heads(block, values[None, None], anatomy.graph.n_heads).sum(dim=0)[0, 0]
        bias = block.output_bias()
        heads = heads if bias is None else heads + bias.to(heads.dtype)
        mlp_inputs.append(everywhere(stream if anatomy.graph.parallel else stream + heads))
        stream = stream + heads + mlp
    final_input = everywhere(stream)
    return Trace(
        head_values=tuple(map(everywhere, ablated.head_values)),
        mlp_outputs=tuple(map(everywhere, ablated.mlp_outputs)),
        attention_inputs=tuple(attention_inputs),
        mlp_inputs=tuple(mlp_inputs),
        final_input=final_input,
        logits=_logits_of_stream(anatomy, stream).expand(len(pair.clean.logits), n_answer, -1),
    )


def _logits_of_stream(anatomy: Anatomy, stream: Float[Tensor, " d_model"]) -> Float[Tensor, "1 1 vocabulary"]:
    """What the model makes of a residual stream at its end: norm, head, and whatever bounds or scales its logits."""
    last = stream.to(anatomy.dtype)[None, None]
    with hooked(before=[(anatomy.final_norm.module, lambda module, args: (last,))]):
        return last_logits(anatomy.model, last, cache=None, n_last=1)


@torch.no_grad()
def circuit_logits(
    anatomy: Anatomy, pair: TracedPair, base: Trace, circuits: Circuits
) -> Float[Tensor, "circuit batch answer vocabulary"]:
    """Run circuits as one batch, inside :func:`one_key_per_query_head`; ``base`` is the ablated run."""
    run = _CircuitRun(anatomy, pair, base, circuits)
    rows = pair.clean_embeddings.repeat(len(circuits), 1, 1)
    with hooked(*run.hooks()):
        logits = logits_after(anatomy, pair.prefix, rows, pair.clean.logits.shape[1])
    return logits.unflatten(0, (len(circuits), -1))


class _CircuitRun:
    """The hooks of one circuit run, and the difference between each writer's activation so far and its ablated one."""

    def __init__(self, anatomy: Anatomy, pair: TracedPair, base: Trace, circuits: Circuits) -> None:
        self.anatomy = anatomy
        self.base = base
        dtype = anatomy.accumulation_dtype
        self.circuits = circuits.to(anatomy.device, dtype)
        self.shape = pair.clean_embeddings.shape
        self.differences: Float[Tensor, "circuit writer batch position d_model"]
        self.differences = torch.empty(
            len(circuits), anatomy.graph.n_writers, *self.shape, dtype=dtype, device=anatomy.device
        )
        self.differences[:, 0] = pair.clean.embeddings.to(dtype) - base.embeddings.to(dtype)

    def hooks(self) -> tuple[list[tuple[nn.Module, BeforeHook]], list[tuple[nn.Module, AfterHook]]]:
        """All hooks, those on inputs and those on outputs."""
        before: list[tuple[nn.Module, BeforeHook]] = []
        after: list[tuple[nn.Module, AfterHook]] = []
        for layer, block in enumerate(self.anatomy.blocks):
            for module, parts in block.projections_by_module.items():
                after.append((module, self._replace_projections(layer, block, parts)))
            before.append((block.output, self._record_heads(layer, block)))
            before.append((block.mlp_norm.module, self._replace_mlp_input(layer)))
            after.append((block.mlp, self._record_mlp(layer, block)))
        before.append((self.anatomy.final_norm.module, self._replace_final_input))
        return before, after

    def patched(
        self, base: Float[Tensor, "batch position d_model"], readers: slice, n_writers: int
    ) -> Float[Tensor, "circuit reader batch position d_model"]:
        """The inputs of some readers in this run, from the one input that they share in the ablated run."""
        kept = self.circuits[:, :n_writers, readers].transpose(1, 2)
        change = torch.bmm(kept, self.differences[:, :n_writers].flatten(2))
        return change.unflatten(2, self.shape).add_(base).to(base.dtype)

    def by_circuit(self, stream: Float[Tensor, "*rows d"]) -> Float[Tensor, "circuit batch position d"]:
        """A module's input or output with circuit, batch and position as separate axes."""
        return stream.reshape(len(self.circuits), *self.shape[:2], stream.shape[-1])

    def _replace_projections(self, layer: int, block: Block, parts: dict[str, Projection]) -> AfterHook:
        graph = self.anatomy.graph

        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            replaced = torch.empty_like(output)
            for which, projection in parts.items():
                readers, n_writers = graph.head_readers(layer, which), graph.n_writers_before_heads(layer)
                patched = self.patched(self.base.attention_inputs[layer], readers, n_writers)
                read = block.attention_norm.module.forward(patched)  # no hooks: the norm may be the MLP's too
                vectors = torch.einsum("chbpd,hed->cbphe", read, projection.weight()).flatten(0, 1)
                bias = projection.bias()
                projection.by_head(replaced).copy_(vectors if bias is None else vectors + bias)
            return replaced

        return hook

    def _record_heads(self, layer: int, block: Block) -> BeforeHook:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            dtype, graph = self.differences.dtype, self.anatomy.graph
            values = self.by_circuit(args[0]).to(dtype) - self.base.head_values[layer].to(dtype)
            written = written_by_heads(block, values.flatten(0, 1), graph.n_heads)
            self.differences[:, graph.heads(layer)] = written.unflatten(1, (len(self.circuits), -1)).transpose(0, 1)

        return hook

    def _replace_mlp_input(self, layer: int) -> BeforeHook:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            reader, graph = self.anatomy.graph.mlp_reader(layer), self.anatomy.graph
            patched = self.patched(
                self.base.mlp_inputs[layer], slice(reader, reader + 1), graph.n_writers_before_mlp(layer)
            )
            return (patched.reshape(args[0].shape),)

        return hook

    def _record_mlp(self, layer: int, block: Block) -> AfterHook:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            dtype = self.differences.dtype
            written = self.by_circuit(block.written_by_mlp(output)).to(dtype)
            self.differences[:, self.anatomy.graph.mlp(layer)] = written - self.base.mlp_outputs[layer].to(dtype)

        return hook

    def _replace_final_input(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        graph = self.anatomy.graph
        readers = slice(graph.n_readers - 1, graph.n_readers)
        return (self.patched(self.base.final_input, readers, graph.n_writers).reshape(args[0].shape),)
