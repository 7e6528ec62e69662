"""The circuits that a study would select from scores of some folds, and the scores, as arrays over edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdrift.circuits.score_file import ScoreFile
from circuitdrift.circuits.selection import edge_table, pruned_edges, selected
from circuitdrift.config.circuits import Selection
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.edge_changes import CircuitSelection
from circuitdrift.drift.reliability import Describe, Features, FoldScores
from circuitdrift.drift.series import EDGE_KEY, DriftError


def features_of_circuits(graph: Graph, choice: Selection) -> Describe:
    """How to describe rows of scores, by level and measure.

    At the level ``edge``, ``jaccard`` compares the structural edges of the selected and pruned circuits (q, k and v
    inputs of a head merged), the other measures compare the scores of all edges: ``ruzicka`` absolute scores of unit
    mass, ``spearman`` ranks of absolute scores, ``pearson`` signed scores. At the level ``node``, ``jaccard`` compares
    the circuits' nodes, the others the absolute scores of a node's outgoing edges, added up.

    Args:
        graph: the model's graph, in whose order the edges of a row stand.
        choice: the study's selection.
    """
    writers, n_nodes = graph.edge_ends[0].numpy(), len(graph.nodes)
    first_of_writer = np.searchsorted(writers, np.arange(graph.n_writers))

    def describe(rows: Float[np.ndarray, "row edge"]) -> Features:
        strength = np.abs(rows)
        kept = pruned_edges(graph, selected(graph, torch.from_numpy(strength), choice))
        edges = np.zeros((len(rows), graph.n_writers, n_nodes), dtype=bool)
        edges[kept.circuit, kept.writer, kept.node] = True
        nodes = np.zeros((len(rows), n_nodes), dtype=bool)
        nodes[kept.circuit, kept.writer] = True
        nodes[kept.circuit, kept.node] = True
        outgoing = np.add.reduceat(strength, first_of_writer, axis=1)
        return {
            ("edge", "jaccard"): edges.reshape(len(rows), -1),
            ("edge", "ruzicka"): _unit_mass(strength),
            ("edge", "spearman"): average_ranks(strength),
            ("edge", "pearson"): rows,
            ("node", "jaccard"): nodes,
            ("node", "ruzicka"): _unit_mass(outgoing),
            ("node", "spearman"): average_ranks(outgoing),
            ("node", "pearson"): outgoing,
        }

    return describe


def average_ranks(values: Float[np.ndarray, "row value"]) -> Float[np.ndarray, "row value"]:
    """Ranks from 1 within each row; equal values share the mean of their ranks. As scipy's, in a third of the time."""
    n_values = values.shape[1]
    order = torch.from_numpy(np.argsort(values, axis=1))  # torch gathers and scatters faster, numpy sorts faster
    ordered = torch.from_numpy(values).gather(1, order).numpy()
    ranks = np.tile(np.arange(1.0, n_values + 1), (len(values), 1))
    as_next = np.zeros(values.shape, dtype=bool)
    np.equal(ordered[:, :-1], ordered[:, 1:], out=as_next[:, :-1])
    tied = np.flatnonzero(as_next)  # no run of them crosses a row's end
    if len(tied):
        starts = np.flatnonzero(np.diff(tied, prepend=-2) > 1)
        lengths = np.diff(starts, append=len(tied)) + 1
        flat, first = ranks.reshape(-1), tied[starts]
        places = np.repeat(first - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        flat[places] = np.repeat(flat[first] + (lengths - 1) / 2, lengths)
    return torch.empty(values.shape, dtype=torch.float64).scatter_(1, order, torch.from_numpy(ranks)).numpy()


def selection_of_circuits(graph: Graph, choice: Selection) -> CircuitSelection:
    """How a study takes circuits from rows of scores.

    Args:
        graph: the model's graph, in whose order the edges of a row stand.
        choice: the study's selection, not ``minimal``, which scores do not determine.
    """
    writers, readers = graph.edge_ends
    pairs = writers * len(graph.nodes) + graph.node_of_reader[readers]

    def keep(rows: Float[np.ndarray, "row edge"]) -> Bool[np.ndarray, "row edge"]:
        kept: Bool[np.ndarray, "row edge"] = selected(graph, torch.from_numpy(np.abs(rows)), choice).numpy()
        return kept

    def keep_and_prune(rows: Float[np.ndarray, "row edge"]) -> Bool[np.ndarray, "row edge"]:
        kept = keep(rows)
        pruned = np.zeros(kept.shape, dtype=bool)
        pruned.reshape(-1)[pruned_edges(graph, torch.from_numpy(kept)).places.numpy()] = True
        return pruned

    return CircuitSelection(
        names=edge_table(graph, torch.zeros(graph.edge_mask.shape), graph.edge_mask)[EDGE_KEY],
        merged=np.unique(pairs.numpy(), return_inverse=True)[1],
        selected=keep,
        pruned=keep_and_prune,
    )


def fold_scores(file: ScoreFile) -> FoldScores:
    """The scores of the graph's edges by fold, in float64."""
    return edges_by_fold(file.graph, file.by_fold, file.fold_sizes)


def edges_by_fold(
    graph: Graph, by_fold: Float[Tensor, "fold writers readers"], fold_sizes: Sequence[int]
) -> FoldScores:
    """Scores by fold, of the graph's edges alone and in float64.

    Args:
        graph: the model's graph.
        by_fold: mean scores over the prompts of each fold.
        fold_sizes: prompts of each fold.
    """
    return FoldScores(by_fold[:, graph.edge_mask].double().numpy(), np.array(fold_sizes))


def check_one_graph(files: Sequence[ScoreFile]) -> None:
    """Refuse scores of several graphs.

    Raises:
        DriftError: a file is of another graph than the first.
    """
    first = files[0]
    for file in files:
        if file.graph != first.graph:
            raise DriftError(
                f"{first.path} is of {first.graph} but {file.path} of {file.graph}; take the scores of one model"
            )


def comparable_fold_scores(files: Sequence[ScoreFile]) -> dict[str, FoldScores]:
    """The scores by fold of several checkpoints, by name and in order.

    Raises:
        DriftError: the files are of different graphs, or of folds of different sizes.
    """
    check_one_graph(files)
    first = files[0]
    for file in files:
        if file.fold_sizes != first.fold_sizes:
            raise DriftError(
                f"{file.path} was scored in folds of {list(file.fold_sizes)} prompts, {first.path} in folds of "
                f"{list(first.fold_sizes)}; score all checkpoints on the same prompts"
            )
    return {file.checkpoint: fold_scores(file) for file in files}


def rows_of_scores(graph: Graph, rows: Float[np.ndarray, "row edge"]) -> Float[Tensor, "row writers readers"]:
    """Scores of the graph's edges on its axes; zero where it has no edge."""
    scores = torch.zeros(len(rows), *graph.edge_mask.shape, dtype=torch.float64)
    scores[:, graph.edge_mask] = torch.from_numpy(rows)
    return scores


def _unit_mass(masses: Float[np.ndarray, "row part"]) -> Float[np.ndarray, "row part"]:
    total = masses.sum(axis=1, keepdims=True)
    return masses / np.where(total > 0, total, 1)
