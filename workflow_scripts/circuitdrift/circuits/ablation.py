"""Circuit runs: every edge outside the circuit carries its corrupted activation (PAPER section 4.4).

A reader's input in a circuit run is its input in the corrupted run, plus, for each circuit edge into it, what the
edge's writer writes in this run less what it wrote in the corrupted run. Since heads read through q, k and v
separately, every one of a block's head inputs is its own residual stream. With all edges in the circuit the run is
the clean run, with none it is the corrupted run.

Hooks replace what the model computes at three places: the outputs of the q, k and v projections, by those of the
patched inputs; the input of the norm before the MLP; the input of the final norm. Attention, MLP and head are the
model's own. The residual stream that the model itself adds up is read by nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from circuitdrift.circuits.prompts import PairBatch
from circuitdrift.models.anatomy import Anatomy, Block, Projection
from circuitdrift.models.tracing import (
    AfterHook,
    BeforeHook,
    Prefix,
    Trace,
    hooked,
    last_logits,
    one_key_per_query_head,
    run_prefix,
    trace,
    written_by_heads,
)


@dataclass(frozen=True)
class AblatedLogits:
    """Logits at the last position: of the clean run, of the corrupted run, and of one run for each circuit."""

    clean: Float[Tensor, "batch vocabulary"]
    corrupted: Float[Tensor, "batch vocabulary"]
    circuits: tuple[Float[Tensor, "batch vocabulary"], ...]


@torch.no_grad()
def run_circuits(
    anatomy: Anatomy, batch: PairBatch, circuits: Sequence[Bool[Tensor, "writers readers"]]
) -> AblatedLogits:
    """Run several circuits on one batch; the clean and the corrupted run are made once for all of them.

    Raises:
        ValueError: a circuit holds an edge that the graph does not have.
    """
    for circuit in circuits:
        if circuit.shape != anatomy.graph.edge_mask.shape or bool((circuit & ~anatomy.graph.edge_mask).any()):
            raise ValueError("the circuit has edges that are not in this model's graph; take one from its own scores")
    with one_key_per_query_head(anatomy):
        prefix = run_prefix(anatomy, batch.clean[:, : batch.n_shared])
        both = anatomy.embedding(torch.cat([batch.clean, batch.corrupted])[:, batch.n_shared :])
        traced = trace(anatomy, both, prefix)
        clean, corrupted = traced.rows(slice(0, len(batch.indices))), traced.rows(slice(len(batch.indices), None))
        embeddings = both[: len(batch.indices)]
        runs = [_CircuitRun(anatomy, circuit, clean, corrupted).logits(embeddings, prefix) for circuit in circuits]
    return AblatedLogits(clean.logits, corrupted.logits, tuple(runs))


class _CircuitRun:
    """One run: the hooks, and what each writer has written so far less what it wrote in the corrupted run."""

    def __init__(
        self,
        anatomy: Anatomy,
        circuit: Bool[Tensor, "writers readers"],
        clean: Trace,
        corrupted: Trace,
    ) -> None:
        self.anatomy = anatomy
        self.corrupted = corrupted
        dtype = anatomy.accumulation_dtype
        self.circuit = circuit.to(anatomy.device, dtype)
        shape = (anatomy.graph.n_writers, *clean.embeddings.shape)
        self.differences: Float[Tensor, "writer batch position d_model"]
        self.differences = torch.zeros(shape, dtype=dtype, device=anatomy.device)
        self.differences[0] = clean.embeddings.to(dtype) - corrupted.embeddings.to(dtype)

    def logits(
        self, embeddings: Float[Tensor, "batch position d_model"], prefix: Prefix
    ) -> Float[Tensor, "batch vocabulary"]:
        """Run the model with all hooks in place; of the embeddings that it is given nothing but the shape counts."""
        before: list[tuple[nn.Module, BeforeHook]] = []
        after: list[tuple[nn.Module, AfterHook]] = []
        for layer, block in enumerate(self.anatomy.blocks):
            for module, parts in _by_module(block).items():
                after.append((module, self._replace_projections(layer, block, parts)))
            before.append((block.output, self._record_heads(layer, block)))
            before.append((block.mlp_norm.module, self._replace_mlp_input(layer)))
            after.append((block.mlp, self._record_mlp(layer)))
        before.append((self.anatomy.final_norm.module, self._replace_final_input))
        with hooked(before, after):
            return last_logits(self.anatomy, embeddings, prefix)

    def patched(
        self, corrupted: Float[Tensor, "batch position d_model"], readers: slice, n_sources: int
    ) -> Float[Tensor, "reader batch position d_model"]:
        """The inputs of some readers in this run, from what they all read in the corrupted run."""
        kept = self.circuit[:n_sources, readers].T
        change = (kept @ self.differences[:n_sources].flatten(1)).unflatten(1, corrupted.shape)
        return (corrupted + change).to(corrupted.dtype)

    def _replace_projections(self, layer: int, block: Block, parts: dict[str, Projection]) -> AfterHook:
        graph = self.anatomy.graph

        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            replaced = torch.empty_like(output)
            for which, projection in parts.items():
                readers, n_sources = graph.head_readers(layer, which), graph.n_sources_of_heads(layer)
                read = block.attention_norm.module(
                    self.patched(self.corrupted.attention_inputs[layer], readers, n_sources)
                )
                vectors = torch.einsum("hbpd,hed->bphe", read, projection.weight())
                bias = projection.bias()
                replaced[..., projection.columns] = vectors if bias is None else vectors + bias
            return replaced

        return hook

    def _record_heads(self, layer: int, block: Block) -> BeforeHook:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            dtype, graph = self.differences.dtype, self.anatomy.graph
            values = args[0].to(dtype) - self.corrupted.head_values[layer].to(dtype)
            self.differences[graph.heads(layer)] = written_by_heads(block, values, graph.n_heads)

        return hook

    def _replace_mlp_input(self, layer: int) -> BeforeHook:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            reader, graph = self.anatomy.graph.mlp_reader(layer), self.anatomy.graph
            readers = slice(reader, reader + 1)
            patched = self.patched(self.corrupted.mlp_inputs[layer], readers, graph.n_sources_of_mlp(layer))
            return (patched.view(args[0].shape),)

        return hook

    def _record_mlp(self, layer: int) -> AfterHook:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            dtype = self.differences.dtype
            corrupted = self.corrupted.mlp_outputs[layer]
            written = output.view(corrupted.shape).to(dtype) - corrupted.to(dtype)
            self.differences[self.anatomy.graph.mlp(layer)] = written

        return hook

    def _replace_final_input(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        graph = self.anatomy.graph
        readers = slice(graph.n_readers - 1, graph.n_readers)
        return (self.patched(self.corrupted.final_input, readers, graph.n_writers)[0],)


def _by_module(block: Block) -> dict[nn.Module, dict[str, Projection]]:
    """The projections of a block by the module that computes them: one for all three, or one each."""
    modules: dict[nn.Module, dict[str, Projection]] = {}
    for which, projection in block.projections.items():
        modules.setdefault(projection.module, {})[which] = projection
    return modules
