"""Count the strongest edges that the circuits of a compositional task and of its sub-tasks share."""

from circuitdrift import stage

from itertools import combinations
from pathlib import Path

import pandas as pd

from circuitdrift.composition.overlaps import tabulate_overlaps
from circuitdrift.provenance import Provenance
from circuitdrift.storage import provenance_of, read_table, write_table


def main(
    *,
    edges: list[Path],
    sub_task_edges: list[Path],
    union_edges: list[Path],
    intersection_edges: list[Path],
    overlaps: Path,
    sub_tasks: list[str],
    sizes: list[int],
    provenance: Provenance,
) -> None:
    """Compare the own circuit with union, intersection and both sub-tasks' circuits, and these two, at each checkpoint.

    Args:
        edges: edges tables of a run on the compositional task, one for each checkpoint, the base model's first.
        sub_task_edges: those of the same run on the first sub-task, then those on the second.
        union_edges: edges tables of the unions of these two.
        intersection_edges: edges tables of their intersections.
        overlaps: output.
        sub_tasks: names of the two sub-tasks.
        sizes: numbers of strongest edges.
        provenance: origin of the output.
    """
    pairs = [*(("own", other) for other in ("union", "intersection", *sub_tasks)), *combinations(sub_tasks, 2)]
    frames = []
    for place, own in enumerate(edges):
        of_sub_tasks = dict(zip(sub_tasks, sub_task_edges[place :: len(edges)], strict=True))
        files = {"own": own, "union": union_edges[place], "intersection": intersection_edges[place], **of_sub_tasks}
        tables = {name: read_table(path, "edges") for name, path in files.items()}
        found = tabulate_overlaps(tables, pairs, sizes)
        frames.append(found.assign(checkpoint=provenance_of(own).wildcards["checkpoint"]))
    write_table(overlaps, pd.concat(frames, ignore_index=True), "overlaps", provenance)


if __name__ == "__main__":
    stage.run(main)
