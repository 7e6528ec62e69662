"""The figure of the circuit of a model as it is: heads and MLPs layer by layer, edges between them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from circuitdrift.config.figures import Figures
from circuitdrift.drift.series import merge_inputs
from circuitdrift.figures.circuit_before_after import (
    COLOURS,
    absent_handle,
    draw_edges,
    draw_nodes,
    layer_axes,
    node_places,
    strongest_edges,
    what_is_drawn,
)
from circuitdrift.figures.labels import task_label
from circuitdrift.figures.style import legend_below

_IN_CIRCUIT = "kept"
"""The look of a part of the circuit: that of a part which both circuits of the figure before and after keep."""


def tidy(base_edges: pd.DataFrame, base_nodes: pd.DataFrame) -> pd.DataFrame:
    """The nodes and edges of one circuit, with the places of the nodes.

    Args:
        base_edges: edges table of the circuit.
        base_nodes: nodes table of the circuit.

    Returns:
        Nodes (``part`` is node) with node, kind, layer, head, in_circuit, x and y, absent ones included; edges
        (``part`` is edge) of the circuit with source, target and score, those into q, k and v of a head as one. Both
        with model and task.
    """
    x, y = node_places(base_nodes)
    nodes = base_nodes.assign(x=x, y=y, part="node")
    edges = merge_inputs(base_edges)["score"].reset_index().assign(in_circuit=True, part="edge")
    names = {name: base_nodes[name].iloc[0] for name in ("model", "task")}
    columns = ["node", "kind", "layer", "head", "in_circuit", "x", "y", "part"]
    return pd.concat([nodes[columns], edges], ignore_index=True).assign(**names)


def draw(table: pd.DataFrame, style: Figures) -> Figure:
    """Draw the circuit: the wider a curve, the larger the absolute score of its edge."""
    table = table.assign(status=_IN_CIRCUIT)
    nodes, edges = table[table["part"] == "node"], table[table["part"] == "edge"]
    height = style.width_inches * float(np.clip(0.09 * nodes["y"].max(), 0.6, 1.15))
    figure = Figure(figsize=(0.7 * style.width_inches, height), layout="constrained")
    ax = figure.subplots()
    drawn = strongest_edges(edges, "score")
    draw_edges(ax, nodes, drawn, "score", float(edges["score"].abs().max()) if len(edges) else 0.0, len(drawn))
    draw_nodes(ax, nodes, "in_circuit")
    present = int(nodes["in_circuit"].sum())
    name = f"{task_label(str(table['task'].iloc[0]))}, {table['model'].iloc[0]}"
    counts = f"{present:,} nodes, {len(edges):,} edges{what_is_drawn(drawn, edges, 'score')}"
    ax.set_title(f"{name}\n{counts}", fontsize="medium")
    layer_axes(ax, nodes)
    ax.set_ylabel("Layer")
    handle = Line2D([], [], color=COLOURS[_IN_CIRCUIT], linewidth=1.8, marker="o", markersize=5, label="in the circuit")
    legend_below(figure, [handle, absent_handle()])
    return figure
