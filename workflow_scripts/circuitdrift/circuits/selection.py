"""From edge scores to a circuit, pruned, as tables of edges and nodes (docs/method.md#selection)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdrift.config.circuits import Selection
from circuitdrift.decoder.graph import INPUTS_OF_A_HEAD, Graph
from circuitdrift.decoder.size import edges_in_share
from circuitdrift.errors import CircuitDriftError


def edge_count(graph: Graph, fraction: float) -> int:
    """Number of edges in a share of the graph, rounded down (:func:`circuitdrift.decoder.size.edges_in_share`)."""
    return edges_in_share(graph.n_edges, fraction)


def strongest_edges(
    graph: Graph, scores: Float[Tensor, "*rows writers readers"], n: int
) -> Bool[Tensor, "*rows writers readers"]:
    """The n edges of largest absolute score; of equal scores, the first edge in the graph's order wins.

    Raises:
        CircuitDriftError: the scores do not have the graph's shape, or an edge's score is not finite.
    """
    return _on_axes(graph, _largest(_strengths(graph, scores), n))


def strongest_among(
    graph: Graph,
    scores: Float[Tensor, "*rows writers readers"],
    candidates: Bool[Tensor, "*rows writers readers"],
    n: int,
) -> Bool[Tensor, "*rows writers readers"]:
    """The n candidates of largest absolute score, or all if there are fewer; of equal scores the first edge wins.

    Raises:
        CircuitDriftError: as :func:`strongest_edges`.
    """
    allowed = candidates[..., graph.edge_mask]
    return _on_axes(graph, _largest(torch.where(allowed, _strengths(graph, scores), -1), n) & allowed)


def _largest(values: Float[Tensor, "*rows value"], n: int) -> Bool[Tensor, "*rows value"]:
    """The n largest values of each row, the first ones of equal values; faster than a sort for small n."""
    n = min(n, values.shape[-1])
    if n == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    smallest = values.topk(n, dim=-1).values[..., -1:]
    larger, equal = values > smallest, values == smallest
    missing = n - larger.sum(dim=-1, keepdim=True)
    return larger | (equal & (equal.cumsum(dim=-1) <= missing))


def edges_above(
    graph: Graph, scores: Float[Tensor, "*rows writers readers"], threshold: float
) -> Bool[Tensor, "*rows writers readers"]:
    """The edges whose absolute score is at least a threshold.

    Raises:
        CircuitDriftError: as :func:`strongest_edges`.
    """
    return _on_axes(graph, _strengths(graph, scores) >= threshold)


def greedy_edges(
    graph: Graph, scores: Float[Tensor, "*rows writers readers"], n: int
) -> Bool[Tensor, "*rows writers readers"]:
    """N edges, grown from ``logits``: repeatedly the strongest edge into a node that is already reached.

    As EAP-IG's ``apply_greedy``, with a heap in place of repeated merges. From every kept edge a path leads to
    ``logits``, but not always from ``input`` to it; :func:`prune` removes the rest.

    Raises:
        CircuitDriftError: as :func:`strongest_edges`.
    """
    return _on_axes(graph, _grown(graph, _strengths(graph, scores), n))


def _grown(graph: Graph, strength: Float[Tensor, "*rows edge"], n: int) -> Bool[Tensor, "*rows edge"]:
    """The edges that greedy growth keeps of each row."""
    if strength.dim() > 1:
        return torch.stack([_grown(graph, row, n) for row in strength])
    writers, readers = graph.edge_ends
    targets = graph.node_of_reader[readers]
    order = torch.sort(strength, descending=True, stable=True).indices
    waiting: dict[int, list[int]] = {}
    for position, edge in enumerate(order.tolist()):
        waiting.setdefault(int(targets[edge]), []).append(position)
    logits = graph.n_writers
    heap = waiting.pop(logits)
    ordered, sources = order.tolist(), writers[order].tolist()
    kept = torch.zeros(graph.n_edges, dtype=torch.bool)
    for _ in range(min(n, len(ordered))):
        place = heapq.heappop(heap)
        kept[ordered[place]] = True
        for position in waiting.pop(sources[place], ()):
            heapq.heappush(heap, position)
    return kept


def _strengths(graph: Graph, scores: Float[Tensor, "*rows writers readers"]) -> Float[Tensor, "*rows edge"]:
    """The absolute scores of the graph's edges."""
    strength = _of_edges(graph, scores).abs()
    _check_finite(graph, strength)
    return strength


def _of_edges(graph: Graph, scores: Float[Tensor, "*rows writers readers"]) -> Float[Tensor, "*rows edge"]:
    """The scores of the graph's edges, in its order."""
    if scores.shape[-2:] != graph.edge_mask.shape:
        raise CircuitDriftError(
            f"scores of shape {tuple(scores.shape)} do not fit the graph, which has {graph.n_writers} writers and "
            f"{graph.n_readers} readers; score the edges of this model"
        )
    edges: Tensor = scores.detach().cpu()[..., graph.edge_mask]
    return edges


def _check_finite(graph: Graph, strength: Float[Tensor, "*rows edge"]) -> None:
    finite = torch.isfinite(strength)
    if not bool(finite.all()):
        edge = int((~finite).nonzero()[0, -1])
        writer, reader = (int(ends[edge]) for ends in graph.edge_ends)
        raise CircuitDriftError(
            f"the score of edge {graph.writers[writer]} -> {graph.readers[reader]} is not finite; "
            "the model's activations overflow: load it in float32"
        )


def _on_axes(graph: Graph, kept: Bool[Tensor, "*rows edge"]) -> Bool[Tensor, "*rows writers readers"]:
    """Edges in the graph's order on the axes of writers and readers."""
    circuit = torch.zeros(*kept.shape[:-1], *graph.edge_mask.shape, dtype=torch.bool)
    circuit[..., graph.edge_mask] = kept
    return circuit


def nodes_in(graph: Graph, circuit: Bool[Tensor, "*rows writers readers"]) -> Bool[Tensor, "*rows nodes"]:
    """The nodes at either end of the circuit's edges."""
    touched = _nodes_read(graph, circuit)
    touched[..., : graph.n_writers] |= circuit.any(dim=-1)
    return touched


def structural_edges(
    graph: Graph, circuit: Bool[Tensor, "*rows writers readers"]
) -> Bool[Tensor, "*rows writers nodes"]:
    """The circuit's edges with the q, k and v inputs of each head merged (docs/method.md#merged-edges)."""
    inputs_kept = torch.zeros(*circuit.shape[:-1], len(graph.nodes), dtype=torch.int32)
    return inputs_kept.index_add_(-1, graph.node_of_reader, circuit.to(torch.int32)) > 0


def _nodes_read(graph: Graph, circuit: Bool[Tensor, "*rows writers readers"]) -> Bool[Tensor, "*rows nodes"]:
    """The nodes with an edge of the circuit into any of their inputs."""
    read = torch.zeros(*circuit.shape[:-2], len(graph.nodes), dtype=torch.int32)
    return read.index_add_(-1, graph.node_of_reader, circuit.any(dim=-2).to(torch.int32)) > 0


def prune(graph: Graph, circuit: Bool[Tensor, "*rows writers readers"]) -> Bool[Tensor, "*rows writers readers"]:
    """Drop every edge that lies on no path from ``input`` to ``logits`` inside the circuit.

    A head counts as reached through any of its three inputs. Pruning a pruned circuit changes nothing.
    """
    kept = circuit[..., graph.edge_mask]
    pruned = torch.zeros(kept.shape, dtype=torch.bool)
    pruned.view(-1)[pruned_edges(graph, kept.reshape(-1, graph.n_edges)).places] = True
    return _on_axes(graph, pruned)


@dataclass(frozen=True)
class KeptEdges:
    """The edges that some circuits keep, one after the other.

    Attributes:
        circuit: number of the circuit.
        writer: the edge's writer.
        node: index of the node that it goes into.
        places: index in the flattened table of circuits and edges.
    """

    circuit: Int[Tensor, " kept"]
    writer: Int[Tensor, " kept"]
    node: Int[Tensor, " kept"]
    places: Int[Tensor, " kept"]


def pruned_edges(graph: Graph, circuits: Bool[Tensor, "circuit edge"]) -> KeptEdges:
    """What :func:`prune` leaves of circuits that are given in the graph's order of edges.

    Circuits hold few of the graph's edges, so edges are listed rather than marked.
    """
    writers, readers = graph.edge_ends
    circuit, edge = circuits.nonzero(as_tuple=True)
    kept = KeptEdges(circuit, writers[edge], graph.node_of_reader[readers][edge], circuit * graph.n_edges + edge)
    n_nodes, logits = len(graph.nodes), graph.n_writers
    while True:
        reads = torch.zeros(len(circuits), n_nodes, dtype=torch.bool)
        writes = torch.zeros(len(circuits), n_nodes, dtype=torch.bool)
        sources, targets = kept.circuit * n_nodes + kept.writer, kept.circuit * n_nodes + kept.node
        reads.view(-1)[targets] = True
        writes.view(-1)[sources] = True
        reads[:, 0], writes[:, logits] = True, True
        alive = reads.view(-1)[sources] & writes.view(-1)[targets]
        if bool(alive.all()):
            return kept
        kept = KeptEdges(kept.circuit[alive], kept.writer[alive], kept.node[alive], kept.places[alive])


def select_circuit(
    graph: Graph, scores: Float[Tensor, "*rows writers readers"], choice: Selection
) -> Bool[Tensor, "*rows writers readers"]:
    """The circuit that a study takes from scores, pruned (docs/method.md#selection).

    Raises:
        CircuitDriftError: as :func:`select_edges`.
    """
    return prune(graph, select_edges(graph, scores, choice))


def select_edges(
    graph: Graph, scores: Float[Tensor, "*rows writers readers"], choice: Selection
) -> Bool[Tensor, "*rows writers readers"]:
    """The edges that a study takes from scores, before pruning.

    Raises:
        CircuitDriftError: the selection is ``minimal``, which scores do not determine; or as :func:`strongest_edges`.
    """
    return _on_axes(graph, selected(graph, _of_edges(graph, scores), choice))


def selected(graph: Graph, scores: Float[Tensor, "*rows edge"], choice: Selection) -> Bool[Tensor, "*rows edge"]:
    """:func:`select_edges` from scores in the graph's order of edges.

    Raises:
        ValueError: the selection is ``minimal`` or ``consistent``, or a score is not finite.
    """
    strength = scores.abs()
    if choice.selection == "consistent":
        raise CircuitDriftError(
            "circuit.selection consistent: mean scores alone do not determine the circuit; "
            "find it with circuitdrift.circuits.selection.consistent_edges, from scores by fold"
        )
    if choice.selection == "minimal":
        raise CircuitDriftError(
            "circuit.selection minimal: scores alone do not determine the circuit; "
            "find it with circuitdrift.circuits.minimal.minimal_circuit, which runs the model"
        )
    _check_finite(graph, strength)
    if choice.threshold is not None:
        return strength >= choice.threshold
    if choice.selection == "greedy":
        return _grown(graph, strength, edge_count(graph, choice.fraction))
    n = edge_count(graph, choice.fraction)
    return _largest(strength, n) if choice.positive_share is None else _by_sign(scores, n, choice.positive_share)


def _by_sign(scores: Float[Tensor, "*rows edge"], n: int, positive_share: float) -> Bool[Tensor, "*rows edge"]:
    """The largest positive scores, a share of n, and the lowest others; one sign fills up what the other lacks."""
    positive = scores > 0
    available = positive.sum(dim=-1, keepdim=True)
    wanted = edges_in_share(n, positive_share)
    n_positive = torch.full_like(available, wanted).clamp(min=n - (scores.shape[-1] - available)).minimum(available)
    kept = torch.zeros_like(positive)
    for of_sign, count in ((positive, n_positive), (~positive, n - n_positive)):
        order = torch.sort(torch.where(of_sign, scores.abs(), -1), dim=-1, descending=True, stable=True).indices
        first = torch.arange(scores.shape[-1]) < count
        kept |= torch.zeros_like(kept).scatter_(-1, order, first) & of_sign
    return kept


def consistent_edges(
    graph: Graph,
    scores: Float[Tensor, "writers readers"],
    by_fold: Float[Tensor, "fold writers readers"],
    fold_sizes: Sequence[int],
    n: int,
) -> Bool[Tensor, "writers readers"]:
    """The n strongest edges of those whose score has one sign whichever prompts are drawn; fewer if there are fewer.

    Folds are drawn with replacement, as many as there are, :data:`CONSISTENCY_DRAWS` times. An edge's sign is
    consistent if its mean over the draw has the sign of its score in at least the share :data:`CONSISTENCY` of the
    draws (Nikankin et al. 2025, arXiv 2510.25786; docs/method.md#selection).

    Raises:
        CircuitDriftError: as :func:`strongest_edges`.
    """
    folds, signs = _of_edges(graph, by_fold).double(), _of_edges(graph, scores).sign()
    n_folds = len(fold_sizes)
    drawn = np.random.default_rng(0).multinomial(n_folds, np.full(n_folds, 1 / n_folds), size=CONSISTENCY_DRAWS)
    prompts = torch.from_numpy(drawn * np.asarray(fold_sizes)).double()
    # A draw's mean has the sign of its sum. A hundred draws at once bound the memory.
    agreeing = sum(((draws @ folds).sign() == signs).sum(dim=0) for draws in prompts.split(100))
    consistent = (agreeing >= CONSISTENCY * CONSISTENCY_DRAWS) & (signs != 0)
    return strongest_among(graph, scores, _on_axes(graph, consistent), n)


CONSISTENCY = 0.95
"""Share of resamples in which a consistent edge's score has the sign that it has from all prompts."""

CONSISTENCY_DRAWS = 1000


def determined_by_scores(choice: Selection) -> Selection:
    """The selection itself; top circuits of ``fraction`` in place of those that mean scores do not determine.

    ``minimal`` circuits need the model too, ``consistent`` ones the scores of many folds.
    """
    return Selection(fraction=choice.fraction) if choice.selection in {"minimal", "consistent"} else choice


def resized(choice: Selection, fraction: float) -> Selection:
    """The selection of a share of all edges: grown greedily if the study does so, otherwise by score."""
    if choice.selection == "greedy":
        return Selection(selection="greedy", fraction=fraction)
    return Selection(fraction=fraction, positive_share=choice.positive_share)


def size_of_own_circuit(graph: Graph, own: Bool[Tensor, "writers readers"], choice: Selection) -> float:
    """The share of all edges that the study's own circuit counts as.

    The share that was asked for; where none was (``threshold``, ``minimal``), or where it is an upper bound
    (``consistent``), the share of edges that it has.
    """
    return choice.fraction if choice.selection in {"top", "greedy"} else int(own.sum()) / graph.n_edges


def edge_table(
    graph: Graph, scores: Float[Tensor, "writers readers"], circuit: Bool[Tensor, "writers readers"]
) -> pd.DataFrame:
    """Every edge of the graph, row-major by writer, in the columns of schema "edges"."""
    writers, readers = graph.edge_mask.nonzero(as_tuple=True)
    targets = graph.node_of_reader[readers]
    inputs = [_input_of(name) for name in graph.readers]
    return pd.DataFrame(
        {
            "source": [graph.writers[i] for i in writers.tolist()],
            "target": [graph.nodes[i] for i in targets.tolist()],
            "qkv": pd.Series([inputs[i] for i in readers.tolist()], dtype="str"),
            "source_layer": graph.layer_of_node[writers].numpy().astype("int16"),
            "target_layer": graph.layer_of_node[targets].numpy().astype("int16"),
            "score": scores.detach().cpu()[graph.edge_mask].to(torch.float32).numpy(),
            "in_circuit": circuit[graph.edge_mask].numpy(),
        }
    )


def _input_of(reader: str) -> str | None:
    return reader[-2] if reader.endswith(tuple(f"<{which}>" for which in INPUTS_OF_A_HEAD)) else None


def tensors_of_table(
    graph: Graph, edges: pd.DataFrame
) -> tuple[Float[Tensor, "writers readers"], Bool[Tensor, "writers readers"]]:
    """The scores and the circuit of an edges table; zero and false where the graph has no edge.

    Raises:
        CircuitDriftError: the table's edges are not those of the graph, in its order.
    """
    scores = torch.zeros(graph.edge_mask.shape, dtype=torch.float32)
    circuit = torch.zeros(graph.edge_mask.shape, dtype=torch.bool)
    expected = edge_table(graph, scores, circuit)
    ends = ["source", "target", "qkv"]
    if len(edges) != len(expected) or not (edges[ends].fillna("") == expected[ends].fillna("")).all(axis=None):
        raise CircuitDriftError(
            f"the {len(edges)} rows of the edges table are not the {graph.n_edges} edges of this model's graph "
            f"({graph.n_layers} layers, {graph.n_heads} heads); select the circuit from this model's own scores"
        )
    scores[graph.edge_mask] = torch.from_numpy(edges["score"].to_numpy(dtype="float32", copy=True))
    circuit[graph.edge_mask] = torch.from_numpy(edges["in_circuit"].to_numpy(dtype="bool", copy=True))
    return scores, circuit


def node_table(graph: Graph, circuit: Bool[Tensor, "writers readers"]) -> pd.DataFrame:
    """Every node of the graph in its order, in the columns of schema "nodes"; ``head`` is -1 for other nodes."""
    kinds = ["input", *(["head"] * graph.n_heads + ["mlp"]) * graph.n_layers, "logits"]
    heads = [-1, *[*range(graph.n_heads), -1] * graph.n_layers, -1]
    return pd.DataFrame(
        {
            "node": list(graph.nodes),
            "kind": kinds,
            "layer": graph.layer_of_node.numpy().astype("int16"),
            "head": pd.Series(heads, dtype="int16"),
            "in_circuit": nodes_in(graph, circuit).numpy(),
        }
    )
