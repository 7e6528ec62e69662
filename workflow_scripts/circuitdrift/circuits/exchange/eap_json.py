"""The names of edges in EAP-IG's JSON, and the tables that they stand for.

``Graph.to_json`` and ``Graph.from_json`` of the package EAP-IG define the format, which the circuit track of the MIB
benchmark reads too: ``cfg`` with the graph's shape, ``nodes`` by name, ``edges`` by name with ``score`` and
``in_graph``. An edge is named ``a0.h1->m2``, and ``a0.h1->a2.h3<q>`` if it enters an input of a head. If the three
inputs of a head were merged into one, the names of its edges end without the input.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from circuitdrift.circuits.selection import edge_table
from circuitdrift.decoder.graph import Graph
from circuitdrift.errors import CircuitDriftError

GRAPH_KEYS = ("n_layers", "n_heads", "parallel_attn_mlp")


class ExchangeError(CircuitDriftError):
    """A circuit that cannot be exchanged; the message names the file, the place in it, and the fix."""


def edge_names(edges: pd.DataFrame) -> list[str]:
    """The name of each edge of an edges table."""
    ends = edges["source"] + "->" + edges["target"]
    inputs = ["" if pd.isna(which) else f"<{which}>" for which in edges["qkv"].tolist()]
    return [name + which for name, which in zip(ends.tolist(), inputs, strict=True)]


def empty_edge_table(graph: Graph, merged: bool) -> pd.DataFrame:
    """Every edge of the graph, with score 0 and outside the circuit.

    Args:
        graph: the graph.
        merged: whether the three inputs of a head count as one, so that ``qkv`` is null everywhere.
    """
    nothing = torch.zeros(graph.edge_mask.shape)
    edges = edge_table(graph, nothing, nothing.bool())
    return merge_rows(edges) if merged else edges


def merge_rows(edges: pd.DataFrame) -> pd.DataFrame:
    """The row of q, with ``qkv`` null, in place of the three rows of a head's inputs. Scores are not summed."""
    first = edges.loc[edges["qkv"].isna() | (edges["qkv"] == "q")].reset_index(drop=True)
    return first.assign(qkv=pd.Series([None] * len(first), dtype="str"))


def graph_of_table(edges: pd.DataFrame, origin: Path) -> Graph:
    """The graph whose edges an edges table lists, merged or not.

    Raises:
        ExchangeError: the rows are not the edges of any graph, in its order.
    """
    heads = edges.loc[edges["target"].str.startswith("a"), "target"]
    within_block = edges["source"].str.startswith("a") & edges["target"].str.startswith("m")
    within_block &= edges["source_layer"] == edges["target_layer"]
    if heads.empty:
        raise ExchangeError(f"{origin}: has no edge into an attention head; select the circuit again")
    graph = Graph(
        n_layers=int(edges["target_layer"].max()),
        n_heads=int(heads.str.partition(".h")[2].astype(int).max()) + 1,
        parallel=not bool(within_block.any()),
    )
    if edge_names(edges) != edge_names(empty_edge_table(graph, is_merged(edges))):
        raise ExchangeError(f"{origin}: its rows are not the edges of {graph}, in its order; select the circuit again")
    return graph


def is_merged(edges: pd.DataFrame) -> bool:
    """Whether the three inputs of each head count as one in an edges table."""
    return bool(edges["qkv"].isna().all())
