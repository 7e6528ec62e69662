"""The circuits of one fine-tuning on common axes: the nodes and edges that each checkpoint keeps, and their scores.

Circuits are compared structurally: the q, k and v edges from a writer to a head count as one edge. It is kept if any of
the three is kept, and its score is the signed sum of the kept edges' scores (docs/method.md#merged-edges).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from circuitdrift.errors import CircuitDriftError

EDGE_KEY = ["source", "target", "qkv"]


class DriftError(CircuitDriftError):
    """Circuits that cannot be compared; the message names the tables, what is wrong with them, and the fix."""


@dataclass(frozen=True)
class GraphIdentity:
    """The number of nodes and of edges, and a digest of all their names, by which two tables of one graph agree."""

    n_nodes: int
    n_edges: int
    digest: int

    def __str__(self) -> str:
        return f"{self.n_nodes} nodes and {self.n_edges} edges"


@dataclass(frozen=True)
class StructuralCircuit:
    """One circuit with the inputs of each head merged.

    Attributes:
        checkpoint: name of the checkpoint.
        origin: source (a file), for messages.
        graph: the graph from which the circuit was selected.
        nodes: every node of the graph, indexed by name in sorted order: ``kind``, ``layer``, ``in_circuit``.
        edges: the kept edges, indexed by (source, target) in sorted order: ``source_layer``, ``score`` (float64).
    """

    checkpoint: str
    origin: str
    graph: GraphIdentity
    nodes: pd.DataFrame
    edges: pd.DataFrame


@dataclass(frozen=True)
class CircuitSeries:
    """Circuits of one graph, in the order of their checkpoints.

    The edge axis holds the structural edges that at least one circuit keeps; all others never change.

    Attributes:
        checkpoints: names, the base model's first.
        n_layers: number of layers of the model.
        nodes: names of the nodes.
        node_layer: layer of each node: 0 for the input, ``n_layers`` for the logits.
        node_kept: whether a circuit holds a node.
        edge_source, edge_target: positions on the node axis.
        edge_source_layer: the layer to which an edge's change is credited, 0 for the input.
        edge_kept: whether a circuit holds an edge.
        edge_score: signed score, 0 if the circuit lacks the edge.
    """

    checkpoints: tuple[str, ...]
    n_layers: int
    nodes: tuple[str, ...]
    node_layer: Int[np.ndarray, " nodes"]
    node_kept: Bool[np.ndarray, "checkpoints nodes"]
    edge_source: Int[np.ndarray, " edges"]
    edge_target: Int[np.ndarray, " edges"]
    edge_source_layer: Int[np.ndarray, " edges"]
    edge_kept: Bool[np.ndarray, "checkpoints edges"]
    edge_score: Float[np.ndarray, "checkpoints edges"]

    def consecutive(self) -> list[tuple[int, int]]:
        """Positions of the checkpoints before and after each transition."""
        return [(after - 1, after) for after in range(1, len(self.checkpoints))]

    def with_net(self) -> list[tuple[int, int]]:
        """The consecutive pairs and, if it is not among them, the pair of the first and the last checkpoint."""
        net = (0, len(self.checkpoints) - 1)
        return [*self.consecutive(), *([net] if len(self.checkpoints) > 2 else [])]


def merge_inputs(edges: pd.DataFrame) -> pd.DataFrame:
    """The kept edges, with the q, k and v edges of each (source, target) merged into one.

    Args:
        edges: columns source, target, qkv, source_layer, score, in_circuit; one row for each edge of the graph.

    Returns:
        ``source_layer`` and ``score`` (float64, the signed sum of the kept edges' scores), indexed by
        (source, target) in sorted order.
    """
    kept = edges.loc[edges["in_circuit"]].astype({"score": "float64"}).sort_values(EDGE_KEY, kind="stable")
    pairs = kept.groupby(["source", "target"], sort=True)
    return pairs.agg(source_layer=("source_layer", "first"), score=("score", "sum"))


def check_kept_edges(edges: pd.DataFrame, origin: str) -> None:
    """Refuse the edges table of a circuit that cannot be compared.

    Raises:
        DriftError: the table holds a kept edge twice, or a kept edge has no finite score.
    """
    kept = edges.loc[edges["in_circuit"]]
    if kept.duplicated(EDGE_KEY).any():
        first = kept.loc[kept.duplicated(EDGE_KEY), EDGE_KEY].iloc[0].tolist()
        raise DriftError(f"{origin}: the table holds the edge {first} twice; delete the table and select again")
    bad_scores = kept.loc[~np.isfinite(kept["score"].to_numpy(dtype="float64")), EDGE_KEY]
    if len(bad_scores):
        raise DriftError(
            f"{origin}: the circuit's edge {bad_scores.iloc[0].tolist()} has no finite score; "
            "score the checkpoint again, in float32 if activations overflowed"
        )


def structural_circuit(edges: pd.DataFrame, nodes: pd.DataFrame, checkpoint: str, origin: str) -> StructuralCircuit:
    """One checkpoint's circuit with merged inputs; the order of the tables' rows does not matter.

    Args:
        edges: the edges table of the circuit, with every edge of the graph.
        nodes: the nodes table of the circuit, with every node of the graph.
        checkpoint: the checkpoint's name.
        origin: source of the tables, for messages.

    Raises:
        DriftError: the tables repeat a node or an edge, hold a kept edge without a finite score, or keep an edge
            whose nodes the circuit lacks (tables of two different circuits).
    """
    check_kept_edges(edges, origin)
    kept = edges.loc[edges["in_circuit"]]
    if nodes["node"].duplicated().any():
        first = nodes.loc[nodes["node"].duplicated(), "node"].iloc[0]
        raise DriftError(f"{origin}: the table holds the node '{first}' twice; delete the table and select again")
    in_circuit = set(nodes.loc[nodes["in_circuit"], "node"])
    strays = (set(kept["source"]) | set(kept["target"])) - in_circuit
    if strays:
        raise DriftError(
            f"{origin}: the circuit keeps edges at node '{min(strays)}' but lacks the node; "
            "the edges and nodes tables belong to different circuits, so select both again"
        )
    return StructuralCircuit(
        checkpoint=checkpoint,
        origin=origin,
        graph=_identity(edges, nodes),
        nodes=nodes.set_index("node")[["kind", "layer", "in_circuit"]].sort_index(),
        edges=merge_inputs(edges),
    )


def _identity(edges: pd.DataFrame, nodes: pd.DataFrame) -> GraphIdentity:
    """The graph's identity, whatever the order of the rows: hashes of single rows are summed (modulo 2**64)."""
    edge_hashes = pd.util.hash_pandas_object(edges[EDGE_KEY].fillna("").astype(str), index=False)
    node_hashes = pd.util.hash_pandas_object(nodes["node"].astype(str), index=False)
    digest = edge_hashes.to_numpy(dtype=np.uint64).sum() ^ node_hashes.to_numpy(dtype=np.uint64).sum()
    return GraphIdentity(n_nodes=len(nodes), n_edges=len(edges), digest=int(digest))


def stack_circuits(circuits: Sequence[StructuralCircuit]) -> CircuitSeries:
    """Put the circuits of one fine-tuning on common axes, in the given order.

    Raises:
        DriftError: there are fewer than two circuits, a checkpoint twice, or circuits of different graphs.
    """
    if len(circuits) < 2:
        given = ", ".join(circuit.origin for circuit in circuits) or "none"
        raise DriftError(
            f"drift needs the circuits of at least two checkpoints, the base model's and a later one; given: {given}"
        )
    first = circuits[0]
    for position, circuit in enumerate(circuits):
        if circuit.graph != first.graph:
            raise DriftError(
                f"circuits of different graphs cannot be compared: {first.origin} has {first.graph}, "
                f"{circuit.origin} has {circuit.graph}{_same_size_note(first, circuit)}; "
                "take checkpoints of one model, selected by one version of the code"
            )
        if circuit.checkpoint in {earlier.checkpoint for earlier in circuits[:position]}:
            raise DriftError(f"{circuit.origin}: checkpoint '{circuit.checkpoint}' is given twice; give each once")
    nodes = first.nodes
    index = pd.concat([circuit.edges for circuit in circuits])
    index = index.loc[~index.index.duplicated()].sort_index()
    kept = np.stack([index.index.isin(circuit.edges.index) for circuit in circuits])
    score = np.stack([circuit.edges["score"].reindex(index.index, fill_value=0.0).to_numpy() for circuit in circuits])
    layered = nodes.loc[nodes["kind"] != "logits", "layer"]
    return CircuitSeries(
        checkpoints=tuple(circuit.checkpoint for circuit in circuits),
        n_layers=int(layered.max()) + 1,
        nodes=tuple(nodes.index),
        node_layer=nodes["layer"].to_numpy(dtype=np.int64),
        node_kept=np.stack([circuit.nodes["in_circuit"].to_numpy(dtype=bool) for circuit in circuits]),
        edge_source=nodes.index.get_indexer(index.index.get_level_values("source")).astype(np.int64),
        edge_target=nodes.index.get_indexer(index.index.get_level_values("target")).astype(np.int64),
        edge_source_layer=index["source_layer"].to_numpy(dtype=np.int64),
        edge_kept=kept,
        edge_score=score.astype(np.float64),
    )


def _same_size_note(first: StructuralCircuit, other: StructuralCircuit) -> str:
    same_size = (first.graph.n_nodes, first.graph.n_edges) == (other.graph.n_nodes, other.graph.n_edges)
    return " under other names" if same_size else ""
