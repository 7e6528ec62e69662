"""Writing circuits for other tools: EAP-IG's JSON, which the circuit track of the MIB benchmark reads too.

There are two forms. ``Graph.from_json`` of today looks up the edges into each input of a head; tools made for older
versions, the paper's among them, look up one edge into a head.

``Graph.from_json`` of EAP-IG opens a plain text file, needs ``d_model`` in ``cfg``, and reads each score as float32.
MIB expects a folder named ``{task}_{model}`` that holds one such file, ``importances.json``. It makes circuits of many
sizes from the scores, by their absolute value if called with ``--absolute``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from circuitdrift.circuits.exchange.eap_json import ExchangeError, edge_names, graph_of_table, is_merged, merge_rows
from circuitdrift.storage import write_text


def eap_json(edges: pd.DataFrame, nodes: pd.DataFrame, d_model: int, origin: Path) -> dict[str, Any]:
    """A circuit and the scores of its whole graph in EAP-IG's form, edges and nodes in the tables' order.

    Args:
        edges: an edges table with every edge of the graph.
        nodes: the nodes table of the same circuit.
        d_model: width of the model's residual stream.
        origin: source of the tables, for messages.

    Raises:
        ExchangeError: the tables do not cover a whole graph, their heads' inputs are merged, or a score is not finite.
    """
    if is_merged(edges):
        raise ExchangeError(
            f"{origin}: the q, k and v inputs of heads are merged, but EAP-IG needs the edges into each input; "
            "export a circuit that was selected from scores of all edges"
        )
    content = _content(edges, nodes, origin)
    return {**content, "cfg": {**content["cfg"], "d_model": d_model}}


def merged_eap_json(edges: pd.DataFrame, nodes: pd.DataFrame, origin: Path) -> dict[str, Any]:
    """A circuit in EAP-IG's older form, in which an edge enters a head as a whole.

    The score of such an edge is the signed sum of those into q, k and v, hence that of one input that all three share.
    It is in the circuit if one of the three is.

    Args:
        edges: an edges table with every edge of the graph, its heads' inputs apart or merged.
        nodes: the nodes table of the same circuit.
        origin: source of the tables, for messages.

    Raises:
        ExchangeError: the tables do not cover a whole graph, or a score is not finite.
    """
    return _content(edges if is_merged(edges) else _merged(edges), nodes, origin)


def _merged(edges: pd.DataFrame) -> pd.DataFrame:
    """The edges into a head's three inputs as one, in the graph's order."""
    ends = ["source", "target"]
    sums = edges.groupby(ends, sort=False, as_index=False).agg({"score": "sum", "in_circuit": "any"})
    return merge_rows(edges).drop(columns=["score", "in_circuit"]).merge(sums, on=ends, how="left")


def _content(edges: pd.DataFrame, nodes: pd.DataFrame, origin: Path) -> dict[str, Any]:
    graph = graph_of_table(edges, origin)
    if nodes["node"].tolist() != list(graph.nodes):
        raise ExchangeError(f"{origin}: the nodes table is of another graph; select the circuit again")
    scores = edges["score"].astype("float32").tolist()
    flags = edges["in_circuit"].astype(bool).tolist()
    members = nodes["in_circuit"].astype(bool).tolist()
    return {
        "cfg": {"n_layers": graph.n_layers, "n_heads": graph.n_heads, "parallel_attn_mlp": graph.parallel},
        "nodes": {name: {"in_graph": kept} for name, kept in zip(graph.nodes, members, strict=True)},
        "edges": {
            name: {"score": score, "in_graph": kept}
            for name, score, kept in zip(edge_names(edges), scores, flags, strict=True)
        },
    }


def write_eap_json(path: Path, edges: pd.DataFrame, nodes: pd.DataFrame, d_model: int, origin: Path) -> None:
    """Write :func:`eap_json` to a plain text file.

    Raises:
        ExchangeError: see :func:`eap_json`.
    """
    _write(path, eap_json(edges, nodes, d_model, origin), origin)


def write_merged_eap_json(path: Path, edges: pd.DataFrame, nodes: pd.DataFrame, origin: Path) -> None:
    """Write :func:`merged_eap_json` to a plain text file.

    Raises:
        ExchangeError: see :func:`merged_eap_json`.
    """
    _write(path, merged_eap_json(edges, nodes, origin), origin)


def _write(path: Path, content: dict[str, Any], origin: Path) -> None:
    try:
        text = json.dumps(content, allow_nan=False)
    except ValueError:
        name = next(name for name, edge in content["edges"].items() if not abs(edge["score"]) < float("inf"))
        raise ExchangeError(
            f"{origin}: the score of edge {name} is not finite; score the checkpoint again, in float32"
        ) from None
    write_text(path, text + "\n")
