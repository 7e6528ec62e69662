"""Writing a circuit as GraphML, for networkx, Gephi and other tools that draw graphs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from circuitdrift.circuits.exchange.eap_json import edge_names
from circuitdrift.storage import write_text

NAMESPACE = "http://graphml.graphdrawing.org/xmlns"

ATTRIBUTES = {
    "node": {"kind": "string", "layer": "int", "head": "int"},
    "edge": {"qkv": "string", "score": "double", "weight": "double"},
}


def graphml(edges: pd.DataFrame, nodes: pd.DataFrame) -> str:
    """The kept nodes and edges of a circuit, as a directed graph.

    A node has a ``kind`` (input, head, mlp, logits), a ``layer`` and, for a head, its number ``head``. An edge has a
    signed ``score``, a ``weight`` (the absolute score, which layouts need) and, into a head, the input that it enters
    (``qkv``): a head may have up to three edges from one node, which the ids of the edges tell apart.

    Args:
        edges: an edges table.
        nodes: the nodes table of the same circuit.
    """
    root = ElementTree.Element("graphml", xmlns=NAMESPACE)
    for element, attributes in ATTRIBUTES.items():
        for name, kind in attributes.items():
            key = {"id": f"{element}_{name}", "for": element, "attr.name": name, "attr.type": kind}
            ElementTree.SubElement(root, "key", key)
    graph = ElementTree.SubElement(root, "graph", edgedefault="directed")
    for name, kind, layer, head in _rows(nodes, ["node", "kind", "layer", "head"]):
        node = ElementTree.SubElement(graph, "node", id=name)
        _describe(node, {"kind": kind, "layer": layer, "head": head if head >= 0 else None})
    names = edge_names(edges.loc[edges["in_circuit"]])
    for name, (source, target, qkv, score) in zip(
        names, _rows(edges, ["source", "target", "qkv", "score"]), strict=True
    ):
        edge = ElementTree.SubElement(graph, "edge", id=name, source=source, target=target)
        _describe(edge, {"qkv": None if pd.isna(qkv) else qkv, "score": score, "weight": abs(score)})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _rows(table: pd.DataFrame, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """Values of some columns, as Python's own types, in the rows that the circuit keeps."""
    kept = table.loc[table["in_circuit"]]
    return zip(*(kept[column].tolist() for column in columns), strict=True)


def _describe(element: ElementTree.Element, values: dict[str, object]) -> None:
    """Add all values but None, in the order of the keys."""
    for name, value in values.items():
        if value is not None:
            ElementTree.SubElement(element, "data", key=f"{element.tag}_{name}").text = str(value)


def write_graphml(path: Path, edges: pd.DataFrame, nodes: pd.DataFrame) -> None:
    """Write :func:`graphml` to a file."""
    write_text(path, graphml(edges, nodes))
