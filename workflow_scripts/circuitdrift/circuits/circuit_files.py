"""The tables of a circuit as files, beside its score file."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdrift.circuits.score_file import ScoreFile, read_scores
from circuitdrift.circuits.selection import (
    consistent_edges,
    edge_count,
    edge_table,
    node_table,
    prune,
    select_circuit,
)
from circuitdrift.config.circuits import Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table

logger = logging.getLogger(__name__)


def write_circuit(
    edges: Path,
    nodes: Path,
    graph: Graph,
    scores: Float[Tensor, "writers readers"],
    circuit: Bool[Tensor, "writers readers"],
    origin: Provenance,
) -> None:
    """Write the edges and the nodes table of one circuit, whose checkpoint ``origin`` names."""
    write_table(edges, edge_table(graph, scores, circuit), "edges", origin)
    write_table(nodes, node_table(graph, circuit), "nodes", origin)
    checkpoint = origin.wildcards["checkpoint"]
    logger.info("checkpoint %s: %d of %d edges kept", checkpoint, int(circuit.sum()), graph.n_edges)


def graph_of_table(edges: pd.DataFrame) -> Graph:
    """The graph of an edges table, read off the names of its edges.

    Whether the table holds just the edges of this graph is checked by
    :func:`circuitdrift.circuits.selection.tensors_of_table`.
    """
    into_first_layer = edges[edges["target_layer"] == 0]
    heads = into_first_layer.loc[into_first_layer["qkv"].notna(), "target"].unique()
    into_first_mlp = set(into_first_layer.loc[into_first_layer["target"] == "m0", "source"])
    return Graph(
        n_layers=int(edges["target_layer"].max()),
        n_heads=len(heads),
        parallel=into_first_mlp.isdisjoint(heads),
    )


def select_from_file(scores: Path, edges: Path, nodes: Path, choice: Selection, provenance: Provenance) -> None:
    """Select the circuit of one score file and write its tables.

    Raises:
        ValueError: the selection is ``minimal``, which needs the model (rule select_minimal_circuits).
    """
    scored = read_scores(scores)
    circuit = circuit_of_scores(scored, choice)
    write_circuit(edges, nodes, scored.graph, scored.scores, circuit, provenance.for_checkpoint(scored.checkpoint))


def circuit_of_scores(scored: ScoreFile, choice: Selection) -> Bool[Tensor, "writers readers"]:
    """The pruned circuit that a study selects from a score file.

    Raises:
        CircuitDriftError: the selection is ``minimal``, which needs the model.
    """
    if choice.selection != "consistent":
        return select_circuit(scored.graph, scored.scores, choice)
    n = edge_count(scored.graph, choice.fraction)
    kept = consistent_edges(scored.graph, scored.scores, scored.by_fold, scored.fold_sizes, n)
    return prune(scored.graph, kept)
