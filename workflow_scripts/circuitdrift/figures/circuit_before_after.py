"""The figure of a circuit before and after fine-tuning: heads and MLPs layer by layer, edges between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from circuitdrift.config.figures import Figures
from circuitdrift.drift.edge_changes import bound_node_changes
from circuitdrift.drift.series import merge_inputs
from circuitdrift.figures.edge_changes import CHANGE_COLOURS, UNDECIDED_INK
from circuitdrift.figures.labels import checkpoint_label
from circuitdrift.figures.style import legend_below
from circuitdrift.figures.tidy import FigureDataError

COLOURS = {**CHANGE_COLOURS, "undecided": UNDECIDED_INK}
_NODE_COLOURS = {**COLOURS, "kept": "#4d4d4d", "undecided": "#ededed"}
_ABSENT = "#d9d9d9"
_DASHED: Any = (0, (2.5, 1.5))
_MARKERS = {"input": "s", "head": "o", "mlp": "s", "logits": "s"}
_MLP_RISE = 0.42
_THINNEST, _THICKEST = 0.35, 2.6
_FAINTEST, _STRONGEST = 0.25, 0.95
_CURVE_POINTS = 14
_MOST_DRAWN = 400
"""More curves than these are a haze in which none can be followed."""


def tidy(
    before_edges: pd.DataFrame,
    after_edges: pd.DataFrame,
    before_nodes: pd.DataFrame,
    after_nodes: pd.DataFrame,
    edges_changed: pd.DataFrame,
) -> pd.DataFrame:
    """Tell how surely nodes and edges of two circuits of one graph were kept, lost and gained.

    Args:
        before_edges: edges table of the earlier circuit.
        after_edges: edges table of the later circuit.
        before_nodes: nodes table of the earlier circuit.
        after_nodes: nodes table of the later circuit.
        edges_changed: the classes of all edges from resampled prompts.

    Returns:
        Nodes (``part`` is node) with node, kind, layer, head, x and y, absent ones included; edges (``part`` is edge)
        of either circuit with source, target, score_before and score_after (0 where absent). Both have in_before and
        in_after (in the circuit of all prompts) and ``status``: kept, gained, lost or undecided; absent in neither
        circuit. A part that is in a circuit of all prompts but in few of resampled prompts is undecided.

    Raises:
        FigureDataError: the tables are not of the same graph.
    """
    if set(before_nodes["node"]) != set(after_nodes["node"]):
        raise FigureDataError(
            "before_nodes and after_nodes: tables of different graphs; give two circuits of one model"
        )
    columns = ["node", "kind", "layer", "head", "in_circuit"]
    nodes = before_nodes[columns].merge(after_nodes[["node", "in_circuit"]], on="node", suffixes=("", "_after"))
    nodes = nodes.rename(columns={"in_circuit": "in_before", "in_circuit_after": "in_after"})
    nodes = nodes.merge(bound_node_changes(edges_changed).reset_index(), on="node", how="left")
    x, y = node_places(nodes)
    nodes = nodes.assign(x=x, y=y, part="node")

    before, after = (merge_inputs(edges)["score"].reset_index() for edges in (before_edges, after_edges))
    edges = before.merge(after, on=["source", "target"], how="outer", suffixes=("_before", "_after"), sort=True)
    classes = edges_changed[["source", "target", "merged_change"]].drop_duplicates(["source", "target"])
    edges = edges.merge(classes.rename(columns={"merged_change": "change"}), on=["source", "target"], how="left")
    edges = edges.assign(in_before=edges["score_before"].notna(), in_after=edges["score_after"].notna(), part="edge")
    both = pd.concat([nodes, edges.fillna({"score_before": 0.0, "score_after": 0.0})], ignore_index=True)
    if both["change"].isna().any():
        raise FigureDataError("edges_changed: a table of another graph; give that of the run of both circuits")
    status = both["change"].where(both["change"] != "outside", "undecided")
    both["status"] = status.where(both["in_before"] | both["in_after"], "absent")
    return both.drop(columns="change")


def node_places(nodes: pd.DataFrame) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Where nodes stand: x by head, MLPs right of the heads and a little higher, y by layer.

    The input stands at y = 0 in the middle of the heads, layer l at y = l + 1, the logits above the last layer.
    """
    heads = int(nodes["head"].max()) + 1
    n_layers = int(nodes.loc[nodes["kind"].isin(["head", "mlp"]), "layer"].max()) + 1
    kind = nodes["kind"].to_numpy()
    layer = nodes["layer"].to_numpy(dtype=float)
    middle = (heads - 1) / 2
    x = np.select(
        [kind == "head", kind == "mlp"],
        [nodes["head"].to_numpy(dtype=float), heads - 1 + max(1.0, heads / 8)],
        default=middle,
    )
    y = np.select(
        [kind == "input", kind == "logits", kind == "mlp"],
        [0.0, n_layers + 1.0, layer + 1 + _MLP_RISE],
        default=layer + 1,
    )
    return x, y


def draw(table: pd.DataFrame, style: Figures, before_edges: pd.DataFrame, after_edges: pd.DataFrame) -> Figure:
    """Draw the two circuits side by side, with the colours of what was kept, lost, gained and is undecided.

    Args:
        table: from :func:`tidy`.
        style: the study's figure settings.
        before_edges: names the checkpoint of the earlier circuit.
        after_edges: names the checkpoint of the later circuit.
    """
    nodes, edges = table[table["part"] == "node"], table[table["part"] == "edge"]
    before, after = (checkpoint_label(of_circuit["checkpoint"].iloc[0]) for of_circuit in (before_edges, after_edges))
    n_layers = int(nodes["y"].max())
    height = style.width_inches * float(np.clip(0.09 * n_layers, 0.6, 1.15))
    figure = Figure(figsize=(style.width_inches, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    strongest = float(edges[["score_before", "score_after"]].abs().to_numpy().max(initial=0.0))
    for ax, title, circuit, score in (
        (left, f"Before: {before}", "in_before", "score_before"),
        (right, f"After: {after}", "in_after", "score_after"),
    ):
        shown = edges[edges[circuit]]
        drawn = strongest_edges(shown, score)
        for sure in (False, True):
            draw_edges(ax, nodes, drawn[(drawn["status"] != "undecided") == sure], score, strongest, len(drawn))
        draw_nodes(ax, nodes, circuit)
        counts = f"{int(nodes[circuit].sum()):,} nodes, {len(shown):,} edges"
        ax.set_title(f"{title}\n{counts}{what_is_drawn(drawn, shown, score)}", fontsize="medium")
        layer_axes(ax, nodes)
    left.set_ylabel("Layer")
    legend_below(figure, [*(_handle(table, status) for status in COLOURS), absent_handle()])
    return figure


def strongest_edges(shown: pd.DataFrame, score: str) -> pd.DataFrame:
    """The edges of largest absolute score, as many as can be followed."""
    order = shown[score].abs().sort_values(ascending=False, kind="stable").index
    return shown.loc[order[:_MOST_DRAWN]]


def what_is_drawn(drawn: pd.DataFrame, shown: pd.DataFrame, score: str) -> str:
    """How many edges are drawn, and their share of all absolute scores; nothing where all are."""
    if len(drawn) == len(shown):
        return ""
    share = drawn[score].abs().sum() / shown[score].abs().sum()
    return f"\ndrawn: strongest {len(drawn):,}, {100 * share:.0f} % of |score|"


def draw_edges(
    ax: Axes, nodes: pd.DataFrame, shown: pd.DataFrame, score: str, strongest: float, in_circuit: int
) -> None:
    """Curves, the weakest at the back; width and opacity grow with the cube root of |score|. Undecided: dashed.

    Args:
        ax: one circuit's picture.
        nodes: all nodes and their places.
        shown: the edges, all undecided or none.
        score: the column of their scores.
        strongest: the score that is drawn widest.
        in_circuit: number of edges drawn of the circuit; the more, the fainter are weak ones.
    """
    if shown.empty or strongest == 0.0:
        return
    strength = np.cbrt(shown[score].abs().to_numpy(dtype=float) / strongest)
    order = np.argsort(strength, kind="stable")
    place = nodes.set_index("node")[["x", "y"]]
    starts = place.loc[shown["source"]].to_numpy()[order]
    ends = place.loc[shown["target"]].to_numpy()[order]
    crowding = min(1.0, 300 / in_circuit)
    visible = (_FAINTEST + (_STRONGEST - _FAINTEST) * strength[order]) * crowding ** (1 - strength[order])
    opacity = np.clip(visible, 0.02, 1.0)
    statuses = shown["status"].to_numpy()[order]
    colours = [(*to_rgba(COLOURS[status])[:3], alpha) for status, alpha in zip(statuses, opacity, strict=True)]
    lines = LineCollection(
        list(_curves(starts, ends)),
        colors=colours,
        linewidths=_THINNEST + (_THICKEST - _THINNEST) * strength[order],
        linestyles=[_DASHED if status == "undecided" else "-" for status in statuses],
        capstyle="butt" if statuses[0] == "undecided" else "round",
        zorder=1,
    )
    ax.add_collection(lines)


def _curves(
    starts: Float[np.ndarray, "edges 2"], ends: Float[np.ndarray, "edges 2"]
) -> Float[np.ndarray, "edges points 2"]:
    """Upright S-curves from start to end, so that edges leave and reach nodes along the flow of the layers."""
    t = np.linspace(0.0, 1.0, _CURVE_POINTS)
    ease = t * t * (3 - 2 * t)
    x = starts[:, :1] + (ends[:, :1] - starts[:, :1]) * ease
    y = starts[:, 1:] + (ends[:, 1:] - starts[:, 1:]) * t
    span = ends[:, 1:] - starts[:, 1:]
    straight_up = np.abs(ends[:, :1] - starts[:, :1]) < 0.5
    bow = np.where(straight_up & (span > 1.5), -0.06 * span, 0.0)
    return np.stack([x + bow * np.sin(np.pi * t), y], axis=-1)


def draw_nodes(ax: Axes, nodes: pd.DataFrame, circuit: str) -> None:
    """Filled symbols in the circuit, open ones outside it; undecided nodes have a dashed outline."""
    crowd = max(int(nodes["head"].max()) + 2, int(nodes["y"].max()))
    size = float(np.clip(900 / crowd, 9, 70))
    for (kind, is_in, status), alike in nodes.groupby(["kind", circuit, "status"], sort=False):
        look: dict[str, Any] = {
            "facecolor": _NODE_COLOURS.get(str(status), _ABSENT),
            "edgecolor": "white",
            "linewidth": 0.7,
            "zorder": 4,
        }
        if status == "undecided":
            look |= {"edgecolor": UNDECIDED_INK, "linewidth": 0.9, "linestyle": (0, (2, 1))}
        if not is_in:
            look = {"facecolor": "white", "edgecolor": _ABSENT, "linewidth": 0.8, "zorder": 3}
        ax.scatter(alike["x"], alike["y"], s=size, marker=_MARKERS[str(kind)], **look)


def layer_axes(ax: Axes, nodes: pd.DataFrame) -> None:
    """Layers as y ticks, heads and the MLP column as x ticks."""
    heads = int(nodes["head"].max()) + 1
    n_layers = int(nodes["y"].max()) - 1
    step = max(1, round(n_layers / 12))
    layers = list(range(0, n_layers, step))
    ax.set_yticks(
        [0, *(layer + 1 for layer in layers), n_layers + 1], ["input", *map(str, layers), "logits"], fontsize="small"
    )
    head_step = max(1, round(heads / 6))
    shown_heads = list(range(0, heads, head_step))
    right = float(nodes["x"].max())
    ax.set_xticks([*shown_heads, right], [*(str(head) for head in shown_heads), "MLP"], fontsize="small")
    ax.set_xlabel("Head")
    ax.tick_params(length=0, labelleft=True)
    ax.set_xlim(-0.7, right + 0.7)
    ax.set_ylim(-0.5, n_layers + 1.5)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _handle(table: pd.DataFrame, status: str) -> Line2D:
    nodes, edges = (int(((table["part"] == part) & (table["status"] == status)).sum()) for part in ("node", "edge"))
    label = f"{status}: {nodes:,} nodes, {edges:,} edges"
    dashed: dict[str, Any] = (
        {"linestyle": _DASHED, "markerfacecolor": _NODE_COLOURS["undecided"]} if status == "undecided" else {}
    )
    return Line2D([], [], color=COLOURS[status], linewidth=1.8, marker="o", markersize=5, label=label, **dashed)


def absent_handle() -> Line2D:
    """The legend's entry for parts that a circuit lacks."""
    return Line2D(
        [],
        [],
        linestyle="",
        marker="o",
        markersize=5,
        color=_ABSENT,
        markerfacecolor="white",
        label="not in this circuit",
    )
