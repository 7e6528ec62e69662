"""Reading circuits of other tools from EAP-IG's JSON.

Both versions of the format are read: nodes as ``{name: {"in_graph": bool}}`` and, as older versions of EAP-IG wrote
them, as ``{name: bool}``. A file may hold the whole graph or some of its edges: the missing edges are outside the
circuit with score 0, as in EAP-IG itself.

Files come from elsewhere, so the bytes, the number of values and the size of the graph are bounded before the memory
that they ask for is taken; the bounds leave room for models of about 30 billion parameters.
"""

from __future__ import annotations

import gzip
import json
import reprlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from circuitdrift.circuits.exchange.eap_json import GRAPH_KEYS, ExchangeError, edge_names, empty_edge_table
from circuitdrift.circuits.selection import node_table
from circuitdrift.decoder.graph import INPUTS_OF_A_HEAD, Graph

GZIP_MAGIC = b"\x1f\x8b"
LARGEST_SCORE = float(np.finfo(np.float32).max)
LARGEST_FILE = 2**30
"""Most bytes of a file, after decompression."""
MOST_VALUES = 2**26
"""Most values (objects, numbers, ...) of a file; an edge takes three or four."""
LARGEST_GRAPH = 2**25
"""Most pairs of a writer and a reader of the graph that a file describes; at most half of them are edges."""

_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = _shortener.maxlong = 60
_shown = _shortener.repr
"""A value of the file for a message: on one line, without control characters, and cut if long."""


@dataclass(frozen=True)
class ImportedCircuit:
    """One circuit as tables, in the graph's order.

    Attributes:
        graph: the whole graph.
        edges: every edge of the graph, in the columns of schema "edges".
        nodes: every node of the graph, in the columns of schema "nodes".
    """

    graph: Graph
    edges: pd.DataFrame
    nodes: pd.DataFrame


@dataclass(frozen=True)
class _Content:
    """The content of one file; ``merged`` is None if the file lists no edge into a head, which would show it."""

    path: Path
    graph: Graph
    node_kept: dict[str, bool]
    edge_score: dict[str, float]
    edge_kept: dict[str, bool]
    merged: bool | None


def read_circuits(paths: Sequence[Path]) -> list[ImportedCircuit]:
    """Read the circuits of one fine-tuning, which must be parts of one graph.

    Args:
        paths: a file for each checkpoint, plain or gzipped; the content tells which.

    Raises:
        ExchangeError: a file is not EAP-IG's JSON, names nodes or edges that its graph lacks, has a score that is not
            finite, or keeps no edge; or two files are of different graphs.
    """
    contents = [_read(path) for path in paths]
    first = contents[0]
    for content in contents:
        if content.graph != first.graph:
            raise ExchangeError(
                f"{first.path} is of {_described(first.graph)} but {content.path} of {_described(content.graph)} "
                "(key cfg); give the checkpoints of one model"
            )
    forms = {content.merged: content.path for content in contents if content.merged is not None}
    if len(forms) == 2:
        raise ExchangeError(
            f"{forms[True]} has the q, k and v inputs of each head merged but {forms[False]} has them apart; "
            "write both in the same form"
        )
    merged = next(iter(forms), False)
    return [_tables(content, merged) for content in contents]


# ----------------------------------------------------------------------------------------------------- parsing


def _read(path: Path) -> _Content:
    """One file, with all checks that need no other file."""
    raw = _load_json(path)
    if not isinstance(raw, dict) or not {"cfg", "nodes", "edges"} <= set(raw):
        found = _shown(sorted(raw)) if isinstance(raw, dict) else f"a {type(raw).__name__}"
        raise ExchangeError(
            f"{path}: holds {found}, but EAP-IG's JSON is an object with the keys cfg, nodes and edges; "
            "write it with Graph.to_json"
        )
    for key in ("cfg", "nodes", "edges"):
        if not isinstance(raw[key], dict):
            raise ExchangeError(f"{path}: {key} is a {type(raw[key]).__name__}, not an object; write the file again")
    graph = _graph(path, raw["cfg"])
    node_kept = _node_membership(path, graph, raw["nodes"])
    merged = _input_form(path, raw["edges"])
    known = set(edge_names(empty_edge_table(graph, bool(merged))))
    scores, kept = {}, {}
    for name, entry in raw["edges"].items():
        if name not in known:
            raise ExchangeError(f"{path}: edges[{_shown(name)}]: {_why_unknown(name, graph)}")
        scores[name] = _score(path, name, entry)
        kept[name] = _flag(path, f"edges['{name}'].in_graph", entry.get("in_graph"))
        if kept[name] and not all(node_kept.get(node) for node in _ends(name)):
            outside = next(node for node in _ends(name) if not node_kept.get(node))
            raise ExchangeError(
                f"{path}: edges['{name}'] is in the circuit but its node '{outside}' is not; "
                "call Graph.prune before Graph.to_json"
            )
    if not any(kept.values()):
        raise ExchangeError(
            f"{path}: no edge is in the circuit (in_graph is false everywhere); select one, "
            "such as with Graph.apply_topn, before Graph.to_json"
        )
    return _Content(path, graph, node_kept, scores, kept, merged)


def _load_json(path: Path) -> Any:
    if not path.is_file():
        raise ExchangeError(f"{path}: no such file; correct the path in imports")
    data = _read_bytes(path)
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MOST_VALUES:
        raise ExchangeError(
            f"{path}: holds more than {MOST_VALUES:,} values, too many for a circuit; "
            "write only the edges in the circuit"
        )
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ExchangeError(
            f"{path}: neither JSON nor gzipped JSON; a .pt file is a pickle, which is not read: "
            "load it in EAP-IG and write it with Graph.to_json"
        ) from None
    except ValueError as error:
        raise ExchangeError(f"{path}: truncated, or not JSON ({error}); write it with Graph.to_json") from None
    except RecursionError:
        raise ExchangeError(f"{path}: nested too deeply to be EAP-IG's JSON; write it with Graph.to_json") from None


def _read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if it is gzipped; never more than :data:`LARGEST_FILE` bytes of it."""
    with path.open("rb") as plain:
        is_gzipped = plain.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        plain.seek(0)
        try:
            data = (gzip.GzipFile(fileobj=plain) if is_gzipped else plain).read(LARGEST_FILE + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise ExchangeError(f"{path}: truncated or damaged gzip file ({error}); copy it again") from None
    if len(data) > LARGEST_FILE:
        decompressed = " after decompression" if is_gzipped else ""
        raise ExchangeError(
            f"{path}: has more than {LARGEST_FILE:,} bytes{decompressed}, too many for a circuit; "
            "write only the edges in the circuit"
        )
    return data


def _graph(path: Path, cfg: Mapping[str, Any]) -> Graph:
    for key, wanted in zip(GRAPH_KEYS, (int, int, bool), strict=True):
        if key not in cfg:
            raise ExchangeError(
                f"{path}: cfg has no {key}, only {_shown(sorted(cfg))}; add it (cfg.{key} of the model)"
            )
        if type(cfg[key]) is not wanted or (wanted is int and cfg[key] < 1):
            form = "true or false" if wanted is bool else "a whole number from 1"
            raise ExchangeError(f"{path}: cfg.{key} is {_shown(cfg[key])}; it must be {form}")
    layers, heads, parallel = (cfg[key] for key in GRAPH_KEYS)
    graph = Graph(n_layers=layers, n_heads=heads, parallel=parallel)
    if graph.n_writers * graph.n_readers > LARGEST_GRAPH:
        raise ExchangeError(
            f"{path}: cfg has {_shown(layers)} layers of {_shown(heads)} heads, a graph of more than "
            f"{LARGEST_GRAPH:,} pairs of nodes, which is not read; correct cfg"
        )
    return graph


def _node_membership(path: Path, graph: Graph, entries: Mapping[str, Any]) -> dict[str, bool]:
    """Which nodes the circuit holds, from either version of the format."""
    known = set(graph.nodes)
    kept = {}
    for name, entry in entries.items():
        if name not in known:
            raise ExchangeError(
                f"{path}: nodes[{_shown(name)}]: not a node of {_described(graph)}; "
                "correct cfg, or write the file again"
            )
        place = f"nodes['{name}']"
        kept[name] = (
            _flag(path, f"{place}.in_graph", entry.get("in_graph"))
            if isinstance(entry, dict)
            else _flag(path, place, entry)
        )
    return kept


def _flag(path: Path, place: str, value: Any) -> bool:
    if not isinstance(value, bool):
        found = "missing" if value is None else _shown(value)
        raise ExchangeError(f"{path}: {place} is {found}; it must be true or false")
    return value


def _score(path: Path, name: str, entry: Any) -> float:
    place = f"{path}: edges['{name}']"
    if not isinstance(entry, dict):
        raise ExchangeError(f"{place} is {_shown(entry)}; it must be an object with score and in_graph")
    score = entry.get("score")
    if score is None:
        raise ExchangeError(f"{place} has no score; without scores there are no critical layers: write them too")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise ExchangeError(f"{place}.score is {_shown(score)}; it must be a number")
    if not abs(score) <= LARGEST_SCORE:
        raise ExchangeError(
            f"{place}.score is {_shown(score)}, not a finite float32; score again, in float32 if it overflowed"
        )
    return float(score)


def _input_form(path: Path, entries: Mapping[str, Any]) -> bool | None:
    """Whether the inputs of heads are merged: False if edges name them, otherwise True; None without such edges."""
    apart = next((name for name in entries if name.endswith(">") and "<" in name), None)
    merged = next((name for name in entries if name.partition("->")[2].startswith("a") and "<" not in name), None)
    if apart is not None and merged is not None:
        raise ExchangeError(
            f"{path}: edges[{_shown(apart)}] names the input of a head but edges[{_shown(merged)}] does not; "
            "write all edges in the same form"
        )
    return None if apart is merged else merged is not None


def _ends(name: str) -> tuple[str, str]:
    source, _, target = name.partition("->")
    return source, target.partition("<")[0]


def _why_unknown(name: str, graph: Graph) -> str:
    for node in _ends(name):
        if node not in graph.nodes:
            return f"{_shown(node)} is not a node of {_described(graph)}; correct cfg, or write the file again"
    inputs = " or ".join(f"<{which}>" for which in INPUTS_OF_A_HEAD)
    return (
        f"not an edge of {_described(graph)}, where edges lead from earlier nodes to later nodes and may name the "
        f"input of a head ({inputs}); correct cfg, or write the file again"
    )


def _described(graph: Graph) -> str:
    order = "attention and MLP in parallel" if graph.parallel else "the MLP after attention"
    return f"a graph of {graph.n_layers} layers of {graph.n_heads} heads, {order}"


# ------------------------------------------------------------------------------------------------------ tables


def _tables(content: _Content, merged: bool) -> ImportedCircuit:
    edges = empty_edge_table(content.graph, merged)
    names = edge_names(edges)
    nothing = torch.zeros(content.graph.edge_mask.shape, dtype=torch.bool)
    nodes = node_table(content.graph, nothing)
    return ImportedCircuit(
        graph=content.graph,
        edges=edges.assign(
            score=np.array([content.edge_score.get(name, 0.0) for name in names], dtype=np.float32),
            in_circuit=[content.edge_kept.get(name, False) for name in names],
        ),
        nodes=nodes.assign(in_circuit=[content.node_kept.get(name, False) for name in content.graph.nodes]),
    )
