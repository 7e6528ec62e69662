"""How many of their strongest edges two circuits share, beside chance (docs/method.md#composition). No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from circuitdrift.drift.series import merge_inputs


def tabulate_overlaps(
    circuits: Mapping[str, pd.DataFrame], pairs: Iterable[tuple[str, str]], sizes: Sequence[int]
) -> pd.DataFrame:
    """Overlaps of the k strongest edges of two circuits, the q, k and v edges of a head merged.

    Args:
        circuits: edges tables of one graph by name.
        pairs: the names of the circuits that are compared.
        sizes: numbers k of edges.

    Returns:
        Columns of the ``overlaps`` schema but ``checkpoint``, one row for each pair and each k. Numbers k above that of
        the merged edges of either circuit are left out.
    """
    ranked = {name: _by_strength(edges) for name, edges in circuits.items()}
    n_edges = number_of_merged_edges(next(iter(circuits.values())))
    rows = [
        (first, second, k, len(ranked[first][:k].intersection(ranked[second][:k])), k * k / n_edges)
        for first, second in pairs
        for k in sizes
        if k <= min(len(ranked[first]), len(ranked[second]))
    ]
    return pd.DataFrame(rows, columns=["first", "second", "k", "overlap", "expected"])


def number_of_merged_edges(edges: pd.DataFrame) -> int:
    """Number of edges of the graph of an edges table, the q, k and v edges of a head merged."""
    return len(edges[["source", "target"]].drop_duplicates())


def _by_strength(edges: pd.DataFrame) -> pd.Index:
    """The merged edges of a circuit, the strongest first; of equal scores the first by name."""
    return merge_inputs(edges)["score"].abs().sort_values(ascending=False, kind="stable").index
