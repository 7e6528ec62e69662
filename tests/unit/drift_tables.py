"""Circuit tables for the drift tests: a small graph, circuits drawn on it, and plain-set twins of the measures."""

from __future__ import annotations

import pandas as pd
from hypothesis import strategies as st

N_LAYERS, N_HEADS = 3, 2


def graph_edges(n_layers: int = N_LAYERS, n_heads: int = N_HEADS) -> list[tuple[str, str, str | None]]:
    """Every edge of a sequential graph: source, target and qkv."""
    edges: list[tuple[str, str, str | None]] = []
    written = ["input"]
    for layer in range(n_layers):
        heads = [f"a{layer}.h{head}" for head in range(n_heads)]
        edges += [(source, head, qkv) for source in written for head in heads for qkv in "qkv"]
        written += heads
        edges += [(source, f"m{layer}", None) for source in written]
        written.append(f"m{layer}")
    return edges + [(source, "logits", None) for source in written]


def layer_of(node: str, n_layers: int = N_LAYERS) -> int:
    """The layer of a node: 0 for the input, the number of layers for the logits."""
    if node in {"input", "logits"}:
        return 0 if node == "input" else n_layers
    return int(node[1:].split(".")[0])


def tables(
    scores: dict[tuple[str, str, str | None], float], n_layers: int = N_LAYERS, n_heads: int = N_HEADS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The edges and nodes tables of the circuit that keeps exactly the scored edges; other edges score 0.5."""
    edges = graph_edges(n_layers, n_heads)
    ends = {end for source, target, _ in scores for end in (source, target)}
    kinds = {"i": "input", "a": "head", "m": "mlp", "l": "logits"}
    names = list(dict.fromkeys(end for source, target, _ in edges for end in (source, target)))
    edges_table = pd.DataFrame(
        [
            {
                "source": source,
                "target": target,
                "qkv": qkv,
                "source_layer": layer_of(source, n_layers),
                "target_layer": layer_of(target, n_layers),
                "score": scores.get((source, target, qkv), 0.5),
                "in_circuit": (source, target, qkv) in scores,
            }
            for source, target, qkv in edges
        ]
    ).astype({"qkv": "str"})
    nodes_table = pd.DataFrame(
        [
            {
                "node": name,
                "kind": kinds[name[0]],
                "layer": layer_of(name, n_layers),
                "head": int(name.split(".h")[1]) if ".h" in name else -1,
                "in_circuit": name in ends | {"input", "logits"},
            }
            for name in names
        ]
    )
    return edges_table, nodes_table


def slow_merge(scores: dict[tuple[str, str, str | None], float]) -> dict[tuple[str, str], float]:
    """Merged scores of the kept edges, by plain addition."""
    merged: dict[tuple[str, str], float] = {}
    for (source, target, _), score in sorted(scores.items(), key=str):
        merged[source, target] = merged.get((source, target), 0.0) + score
    return merged


def slow_nodes(scores: dict[tuple[str, str, str | None], float]) -> set[str]:
    """The nodes that `tables` marks as held."""
    return {end for source, target, _ in scores for end in (source, target)} | {"input", "logits"}


# Scores of ordinary size, so that sums are exact enough to compare with a tolerance.
a_score = st.floats(min_value=-8.0, max_value=8.0, width=32).filter(lambda score: abs(score) > 1e-3)
a_circuit = st.dictionaries(st.sampled_from(graph_edges()), a_score, min_size=1, max_size=25)
some_circuits = st.lists(a_circuit, min_size=2, max_size=4)
