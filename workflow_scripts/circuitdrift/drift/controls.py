"""Noise floors: how much circuits differ that should not differ, or differ by chance alone (docs/method.md#controls).

A change between checkpoints means something only if it exceeds these controls, and "edges change more than nodes" only
if the controls' edges do not exceed their nodes just as much:

- ``other_seed``: two fine-tunings that differ in their seed alone, at the last checkpoint. It answers: would another
  fine-tuning by the same recipe end in the same circuit? It includes everything that the seed decides. It includes
  the error of a finite set of examples only as far as the two models differ on it, because both are scored on the
  same examples. It is the null of ``paired``; its excess, from disjoint halves, compares with that of a transition.
- ``data_split``: one model, one checkpoint, circuits from two disjoint halves of the circuit examples, over several
  random half-splits of the folds, which hold equal shares of each kind. It answers: how much does the circuit depend on
  the examples? A half has half of the examples, so circuits from all examples have a lower floor.
- ``kind: a and b``: the base model, circuits from prompts of two kinds (operators, kinds of pairs), beside ``kind:
  a and a``, from disjoint halves of one kind, all at the same number of prompts. It answers: is the task one task?
- ``random_circuit``: circuits from edges drawn uniformly, of the base circuit's size after pruning. It answers: what
  would nodes and edges show if two circuits shared only the graph and the number of edges? It is a ceiling, not a
  floor: with few edges kept out of many, edge sets hardly overlap while nearly every node keeps an edge, so edges
  exceed nodes by combinatorics alone.
- ``degree_preserving``: circuits in which every node has as many edges in and out as in the base circuit;
  ``degree_preserving_base`` compares them with the base circuit itself. They answer: how alike are the edges of
  circuits that share the nodes and their degrees?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from circuitdrift.circuits.score_file import ScoreFile
from circuitdrift.circuits.selection import nodes_in, structural_edges
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.changes import count_change
from circuitdrift.drift.control_names import BASE_SEED, KIND
from circuitdrift.drift.fold_circuits import fold_scores
from circuitdrift.drift.reliability import (
    MEASURES,
    Describe,
    Features,
    FoldScores,
    compare_halves,
    draw_halves,
    excess_of,
    similarity,
)
from circuitdrift.drift.series import DriftError

HALF_SPLITS = 20
SEED = 0


@dataclass(frozen=True)
class Membership:
    """The nodes and structural edges (q, k and v merged) that a circuit holds, on the axes of its graph's nodes."""

    nodes: Bool[np.ndarray, " nodes"]
    edges: Bool[np.ndarray, "writers nodes"]


def circuit_membership(graph: Graph, circuit: Bool[Tensor, "writers readers"]) -> Membership:
    """A circuit with the q, k and v inputs of each head merged."""
    return Membership(nodes=nodes_in(graph, circuit).numpy(), edges=structural_edges(graph, circuit).numpy())


def structural_membership(edges: Bool[np.ndarray, "writers nodes"]) -> Membership:
    """A circuit that is given by its structural edges."""
    writing = np.zeros(edges.shape[1], dtype=bool)
    writing[: len(edges)] = edges.any(axis=1)
    return Membership(nodes=writing | edges.any(axis=0), edges=edges)


def compare_pair(
    control: str, checkpoint: str, seeds: tuple[int, int], circuits: tuple[Membership, Membership]
) -> pd.DataFrame:
    """Compare one pair of circuits of a control as if the second came after the first.

    Returns:
        Columns of the ``controls`` schema, one row for nodes and one row for edges. ``rate`` is changed over initial,
        as for a transition; ``jaccard`` does not depend on the order of the two. Two empty circuits have no Jaccard
        index (NaN), as in the reliability of circuits.
    """
    first, second = circuits
    rows: list[dict[str, Any]] = []
    for level, before, after in (("node", first.nodes, second.nodes), ("edge", first.edges, second.edges)):
        change = count_change(before, after)
        rows.append(
            {
                "control": control,
                "checkpoint": checkpoint,
                "seed_a": seeds[0],
                "seed_b": seeds[1],
                "level": level,
                "initial": change.initial,
                "changed": change.changed,
                "rate": change.rate,
                "jaccard": change.jaccard if change.initial or change.final else np.nan,
            }
        )
    return pd.DataFrame(rows)


def compare_all_pairs(control: str, checkpoint: str, circuits: Mapping[int, Membership]) -> list[pd.DataFrame]:
    """Every pair of a control's circuits once, the lower seed first; no pair for fewer than two circuits."""
    return [
        compare_pair(control, checkpoint, (first, second), (circuits[first], circuits[second]))
        for first, second in combinations(sorted(circuits), 2)
    ]


def compare_seeds(runs: Mapping[int, ScoreFile], describe: Describe) -> list[pd.DataFrame]:
    """The control ``other_seed``: every pair of seeds once, on the same prompts.

    ``excess_{measure}`` is the excess of the two seeds over their noise, from disjoint halves of the prompts.

    Raises:
        DriftError: the runs were scored at different checkpoints, or on different prompts.
    """
    names = {run.checkpoint for run in runs.values()}
    if len(names) != 1:
        raise DriftError(f"scores of checkpoints {sorted(names)}; give every seed's last checkpoint")
    sizes = {run.fold_sizes for run in runs.values()}
    if len(sizes) != 1:
        raise DriftError(f"the seeds' prompts lie in folds of {sorted(sizes)}; score all seeds on the same prompts")
    [checkpoint], [fold_sizes] = names, sizes
    # The scores of all prompts, so that the circuits are the study's own to the last edge.
    features = {s: describe(run.scores[run.graph.edge_mask].double().numpy()[None]) for s, run in runs.items()}
    folds = {seed: fold_scores(run) for seed, run in runs.items()}
    frames = []
    for pair in combinations(sorted(runs), 2):
        [frame] = _compare_rows("other_seed", checkpoint, pair, (features[pair[0]], features[pair[1]]))
        frame = frame.assign(pairing="last checkpoints of two seeds, same prompts", examples=sum(fold_sizes))
        frames.append(frame.assign(**_excesses(folds[pair[0]], folds[pair[1]], describe, frame["level"])))
    return frames


def _excesses(one: FoldScores, other: FoldScores, describe: Describe, levels: pd.Series) -> dict[str, list[float]]:
    """The excess of two runs by measure, for each of the levels; none of fewer than two folds."""
    if one.n_folds < 2:
        return {}
    found = compare_halves(one, other, _random_halves(one.n_folds, one.n_folds // 2), describe)
    return {f"excess_{measure}": [excess_of(found[level, measure]) for level in levels] for measure in MEASURES}


def compare_split_data(scored: ScoreFile, seed: int, describe: Describe) -> list[pd.DataFrame]:
    """The control ``data_split``: circuits from random disjoint halves of one checkpoint's folds."""
    folds = fold_scores(scored)
    if folds.n_folds < 2:
        return []
    halves = _random_halves(folds.n_folds, folds.n_folds // 2)
    features = (describe(folds.means(halves[0])), describe(folds.means(halves[1])))
    return [
        frame.assign(pairing="disjoint halves of one checkpoint's prompts", examples=_prompts(folds, halves[0]))
        for frame in _compare_rows("data_split", scored.checkpoint, (seed, seed), features)
    ]


def comparable_kinds(kinds: Mapping[str, ScoreFile]) -> list[str]:
    """Names of the kinds that can be compared at equal numbers of prompts, in order.

    Prompts are drawn by folds. So half of the smallest kind must be no fewer prompts than a fold of the largest; kinds
    that are too small for this are left out, the smallest first. Fewer than two kinds compare with nothing.
    """
    kept = sorted(kinds, key=lambda kind: (sum(kinds[kind].fold_sizes), kind))
    while kept and _most_in_half(kinds[kept[0]]) < max(_fold_size(kinds[kind]) for kind in kept):
        kept = kept[1:]
    return sorted(kept) if len(kept) > 1 else []


def compare_kinds(kinds: Mapping[str, ScoreFile], describe: Describe) -> list[pd.DataFrame]:
    """The controls of kinds: every two of the base model's kinds, and the halves of each, at one number of prompts.

    The number is half of the prompts of the smallest kind, rounded to whole folds of each kind.

    Args:
        kinds: scores by kind, from :func:`circuitdrift.circuits.kinds.read_scores_by_kind`.
        describe: from :func:`circuitdrift.drift.fold_circuits.features_of_circuits`.
    """
    names = comparable_kinds(kinds)
    prompts = min((_most_in_half(kinds[name]) for name in names), default=0.0)
    halves: dict[str, tuple[tuple[Features, Features], int]] = {}
    for name in names:
        folds = fold_scores(kinds[name])
        size = max(1, round(prompts / _fold_size(kinds[name])))
        drawn = _random_halves(folds.n_folds, size)
        halves[name] = (describe(folds.means(drawn[0])), describe(folds.means(drawn[1]))), _prompts(folds, drawn[0])
    frames = []
    for first, second in combinations_with_replacement(names, 2):
        (one, first_prompts), (other, second_prompts) = halves[first], halves[second]
        pairing = "prompts of two kinds" if first != second else "disjoint halves of the prompts of one kind"
        compared = _compare_rows(
            f"{KIND}{first} and {second}", kinds[first].checkpoint, (BASE_SEED, BASE_SEED), (one[0], other[1])
        )
        examples = (first_prompts + second_prompts) // 2
        frames += [frame.assign(pairing=pairing, examples=examples) for frame in compared]
    return frames


def tabulate_controls(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """All pairs of all controls, in the columns of the ``controls`` schema.

    ``n`` counts the pairs of a control at a checkpoint. ``examples``, the prompts behind each circuit, and the
    similarities of scores are null where a control has none.
    """
    table = pd.concat(frames, ignore_index=True)
    table = table.assign(n=table.groupby(["control", "checkpoint", "level"])["level"].transform("size"))
    absent = {name: np.nan for name in ("pairing", "examples", *MEASURES) if name not in table.columns}
    return table.assign(**absent)


def _compare_rows(
    control: str, checkpoint: str, seeds: tuple[int, int], features: tuple[Features, Features]
) -> list[pd.DataFrame]:
    """Row by row, the circuits and the scores that two sets of features describe."""
    one, other = features
    similarities = {key: similarity(key[1], one[key], other[key]) for key in one}
    frames = []
    for row in range(len(one["edge", "jaccard"])):
        circuits = [Membership(found["node", "jaccard"][row], found["edge", "jaccard"][row]) for found in features]
        frame = compare_pair(control, checkpoint, seeds, (circuits[0], circuits[1]))
        of_scores = {m: [similarities[level, m][row] for level in frame["level"]] for m in MEASURES if m != "jaccard"}
        frames.append(frame.assign(**of_scores))
    return frames


def _random_halves(n_folds: int, size: int) -> tuple[Bool[np.ndarray, "split fold"], Bool[np.ndarray, "split fold"]]:
    return draw_halves(np.arange(n_folds), n_folds, size, HALF_SPLITS, SEED)


def _prompts(folds: FoldScores, chosen: Bool[np.ndarray, "split fold"]) -> int:
    """Mean number of prompts in the chosen folds."""
    return round(float((chosen * folds.sizes).sum(axis=1).mean()))


def _fold_size(scored: ScoreFile) -> float:
    """Mean number of prompts in a fold."""
    return sum(scored.fold_sizes) / len(scored.fold_sizes)


def _most_in_half(scored: ScoreFile) -> float:
    """Prompts in half of the folds."""
    return len(scored.fold_sizes) // 2 * _fold_size(scored)
