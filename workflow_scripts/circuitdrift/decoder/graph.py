"""The computation graph of a decoder: the nodes that write to the residual stream, the inputs that read it, and edges.

A *writer* is the token embedding (``input``), an attention head (``a3.h1``) or an MLP (``m3``). A *reader* is one of
a head's three inputs (``a3.h1<q>``, ``<k>``, ``<v>``), an MLP, or ``logits``. An edge goes from every writer to every
reader that comes after it. If attention and MLP of a block run in parallel, the MLP does not read the heads of its own
block; otherwise it does. In tables the two ends of an edge are its ``source`` and ``target`` node.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuitdrift.decoder.size import number_of_edges

INPUTS_OF_A_HEAD = ("q", "k", "v")


@dataclass(frozen=True)
class Graph:
    """Index spaces of writers and readers, in the order in which a model computes them.

    Writers: ``input``, then for each layer its heads and its MLP. Readers: for each layer all heads' q, then all k,
    then all v, then the MLP; ``logits`` last. Tensors over edges have the shape ``[writers, readers]``.

    Attributes:
        n_layers: number of blocks.
        n_heads: number of query heads in a block; with grouped-query attention each query head is a node of its own.
        parallel: whether attention and MLP of a block both read the block's input.
    """

    n_layers: int
    n_heads: int
    parallel: bool

    @property
    def n_writers(self) -> int:
        """Number of writers: all nodes but ``logits``."""
        return 1 + self.n_layers * (self.n_heads + 1)

    @property
    def n_readers(self) -> int:
        """Number of readers, the three inputs of a head counted separately."""
        return self.n_layers * (3 * self.n_heads + 1) + 1

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Names of the writers, in order."""
        names = ["input"]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)] + [f"m{layer}"]
        return tuple(names)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Names of the readers, in order."""
        names = []
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}<{which}>" for which in INPUTS_OF_A_HEAD for head in range(self.n_heads)]
            names.append(f"m{layer}")
        return (*names, "logits")

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes: the writers, then ``logits``."""
        return (*self.writers, "logits")

    def heads(self, layer: int) -> slice:
        """Writer indices of a layer's heads."""
        first = 1 + layer * (self.n_heads + 1)
        return slice(first, first + self.n_heads)

    def mlp(self, layer: int) -> int:
        """Writer index of a layer's MLP."""
        return self.heads(layer).stop

    def head_readers(self, layer: int, which: str | None = None) -> slice:
        """Reader indices of a layer's heads: of their q, k or v inputs, or of all three (q, then k, then v)."""
        first = layer * (3 * self.n_heads + 1)
        if which is None:
            return slice(first, first + 3 * self.n_heads)
        first += INPUTS_OF_A_HEAD.index(which) * self.n_heads
        return slice(first, first + self.n_heads)

    def mlp_reader(self, layer: int) -> int:
        """Reader index of a layer's MLP."""
        return self.head_readers(layer).stop

    def n_writers_before_heads(self, layer: int) -> int:
        """Number of writers that a layer's heads read: the first ones in order."""
        return self.heads(layer).start

    def n_writers_before_mlp(self, layer: int) -> int:
        """Number of writers that a layer's MLP reads: the first ones in order."""
        return self.heads(layer).start if self.parallel else self.heads(layer).stop

    @cached_property
    def edge_mask(self) -> Bool[Tensor, "writers readers"]:
        """True where the graph has an edge."""
        mask = torch.zeros(self.n_writers, self.n_readers, dtype=torch.bool)
        for layer in range(self.n_layers):
            mask[: self.n_writers_before_heads(layer), self.head_readers(layer)] = True
            mask[: self.n_writers_before_mlp(layer), self.mlp_reader(layer)] = True
        mask[:, -1] = True
        return mask

    @cached_property
    def edge_ends(self) -> tuple[Int[Tensor, " edge"], Int[Tensor, " edge"]]:
        """The writer and the reader of each edge, row-major by writer."""
        writers, readers = self.edge_mask.nonzero(as_tuple=True)
        return writers, readers

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return number_of_edges(self.n_layers, self.n_heads, self.parallel)

    @cached_property
    def node_of_reader(self) -> Int[Tensor, " readers"]:
        """For each reader the index of its node in :attr:`nodes`."""
        index = torch.empty(self.n_readers, dtype=torch.long)
        for layer in range(self.n_layers):
            heads = torch.arange(self.heads(layer).start, self.heads(layer).stop)
            index[self.head_readers(layer)] = heads.repeat(len(INPUTS_OF_A_HEAD))
            index[self.mlp_reader(layer)] = self.mlp(layer)
        index[-1] = self.n_writers
        return index

    @cached_property
    def layer_of_node(self) -> Int[Tensor, " nodes"]:
        """The layer of each node: ``input`` counts as layer 0, ``logits`` as layer ``n_layers``."""
        blocks = torch.arange(self.n_layers).repeat_interleave(self.n_heads + 1)
        return torch.cat([torch.tensor([0]), blocks, torch.tensor([self.n_layers])])
