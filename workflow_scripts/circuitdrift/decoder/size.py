"""The size of a decoder's graph, without the graph. No torch: configs are checked at each parsing of the Snakefile."""

from __future__ import annotations

import math
from fractions import Fraction


def number_of_edges(n_layers: int, n_heads: int, parallel: bool) -> int:
    """Number of edges of :class:`circuitdrift.decoder.graph.Graph`.

    Layer l has 1 + l (H + 1) writers before it, which its 3 H inputs of heads and its MLP read. The MLP reads the H
    heads of its own layer too, unless both run in parallel. The logits read all writers.
    """
    writers_before = [1 + layer * (n_heads + 1) for layer in range(n_layers + 1)]
    own_heads = 0 if parallel else n_layers * n_heads
    return (3 * n_heads + 1) * sum(writers_before[:-1]) + own_heads + writers_before[-1]


def edges_in_share(n_edges: int, share: float) -> int:
    """Number of edges in a share of the graph, rounded down.

    The share is taken as the decimal number that is written, so that 0.05 of 3,580 is 179 on every machine.
    """
    return math.floor(Fraction(str(share)) * n_edges)
