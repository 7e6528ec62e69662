"""The tables that the explorer reads, of a made-up study, and the page that is drawn from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from figure_tables import METHODS, MadeUpStudy, parallel_graph

import plot_figure
import unite_circuits
from circuitdrift.circuits.selection import edge_table
from circuitdrift.config.figures import Figures
from circuitdrift.decoder.graph import Graph
from circuitdrift.drift.edge_changes import change_of
from circuitdrift.provenance import Provenance


def reads_of(study: MadeUpStudy, fraction: float = 0.2) -> dict[str, list[Path]]:
    """Every table that the explorer reads, by its name there.

    Scores have random signs and log-normal sizes, and move from checkpoint to checkpoint; a fifth of the edges is
    undecided, and the others are certain.
    """
    _, nodes = parallel_graph(study.n_layers, study.n_heads)
    graph = Graph(study.n_layers, study.n_heads, parallel=True)
    edges = edge_table(graph, torch.zeros(graph.edge_mask.shape), torch.zeros(graph.edge_mask.shape, dtype=torch.bool))
    rng = np.random.default_rng(7)
    found: dict[str, list[Path]] = {"explored_nodes": [], "explored_edges": [], "explored_changes": []}
    bases: dict[tuple[str, str], pd.DataFrame] = {}
    for run in study.runs():
        place = {"model": run["model"], "task": run["task"]}
        if tuple(place.values()) not in bases:
            sizes = 1e-3 * np.exp(1.3 * rng.normal(size=len(edges)))
            base = bases[tuple(place.values())] = _kept(
                edges.assign(score=sizes * rng.choice([-1, 1], len(edges))), fraction
            )
            found["explored_edges"].append(study.write("edges", base, "edges", **place, checkpoint="00"))
            in_base = {*base.loc[base["in_circuit"], "source"], *base.loc[base["in_circuit"], "target"]}
            table = nodes.assign(in_circuit=nodes["node"].isin(in_base))
            found["explored_nodes"].append(study.write("nodes", table, "nodes", **place, checkpoint="00"))
        first = last = bases[tuple(place.values())]
        for checkpoint in study.checkpoints[1:]:
            moved = last["score"] * (1 + 0.3 * rng.normal(size=len(edges))) + 1e-3 * rng.normal(size=len(edges))
            last = _kept(edges.assign(score=moved), fraction)
            found["explored_edges"].append(study.write("edges", last, "edges", **run, checkpoint=checkpoint))
        changes = changes_of(first, last, rng)
        found["explored_changes"].append(study.write("edges_changed", changes, "edges_changed", **run))
    charts = {"accuracy": study.accuracy(), "faithfulness": study.faithfulness()}
    united: dict[str, list[Path]] = {"explored_unions": [], "explored_intersections": []}
    return {**charts, "transitions": study.transitions(), "layers": study.layers(), **found, **united}


def with_compositions(
    study: MadeUpStudy, reads: dict[str, list[Path]], sub_tasks: dict[str, list[str]]
) -> dict[str, list[Path]]:
    """The same tables, and the unions and intersections that stage ``unite_circuits`` makes of their circuits."""
    edges = {tuple(path.relative_to(study.folder).parts[:-1]): path for path in reads["explored_edges"]}
    found: dict[str, list[Path]] = {"explored_unions": [], "explored_intersections": []}

    def of_run(run: dict[str, str], task: str) -> list[Path]:
        model, _, method, seed = run.values()
        base, *later = study.checkpoints
        return [edges[model, task, base], *(edges[model, task, method, seed, checkpoint] for checkpoint in later)]

    for run in (run for run in study.runs() if run["task"] in sub_tasks):
        folder = study.folder.joinpath("composition", *run.values())
        united, common = (
            [folder / checkpoint / kind for checkpoint in study.checkpoints] for kind in ("union", "both")
        )
        unite_circuits.main(
            edges=of_run(run, run["task"]),
            sub_task_edges=[path for task in sub_tasks[run["task"]] for path in of_run(run, task)],
            union_edges=[place / "edges.parquet" for place in united],
            union_nodes=[place / "nodes.parquet" for place in united],
            intersection_edges=[place / "edges.parquet" for place in common],
            intersection_nodes=[place / "nodes.parquet" for place in common],
            transitions=folder / "transitions.parquet",
            summary=folder / "summary.parquet",
            layers=folder / "layers.parquet",
            scale="raw",
            provenance=Provenance.detached(**run),
        )
        found["explored_unions"] += [place / "edges.parquet" for place in united]
        found["explored_intersections"] += [place / "edges.parquet" for place in common]
    return {**reads, **found}


def _kept(edges: pd.DataFrame, fraction: float) -> pd.DataFrame:
    size = edges["score"].abs()
    return edges.assign(score=edges["score"].astype("float32"), in_circuit=size > size.quantile(1 - fraction))


def changes_of(first: pd.DataFrame, last: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Edges one by one of two edges tables."""
    names = first[["source", "target", "qkv"]]
    unsure = rng.random(len(names)) < 0.2
    before, after = (np.where(unsure, 0.425, np.where(table["in_circuit"], 0.985, 0.01)) for table in (first, last))
    ends = [names["source"], names["target"]]
    merged = [pd.Series(share).groupby(ends).transform("max").to_numpy() for share in (before, after)]
    effect = (last["score"] - first["score"]).to_numpy() / 2e-3
    reach = 0.5 * rng.random(len(names))
    return names.assign(
        score_before=first["score"],
        score_after=last["score"],
        effect=effect,
        effect_lower=effect - reach,
        effect_upper=effect + reach,
        q_value=rng.random(len(names)) ** 4,
        included_before=before,
        included_after=after,
        change=change_of(before, after),
        merged_included_before=merged[0],
        merged_included_after=merged[1],
        merged_change=change_of(*merged),
    )


def draw_page(
    page: Path, reads: dict[str, list[Path]], study: str = "smoke", sub_tasks: dict[str, list[str]] | None = None
) -> None:
    """Draw the explorer as its rule does."""
    settings = {"study": study, "sub_tasks": sub_tasks or {}}
    plot_figure.main("explorer", reads, {"html": page}, settings, METHODS, Figures(), Provenance.detached())
