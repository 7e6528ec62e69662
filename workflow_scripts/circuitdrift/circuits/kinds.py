"""The file of the base model's scores by kind of prompt: ``scores_by_kind.safetensors``, one for each model and task.

Each kind that the data name (an operator, a kind of number pair) is scored as if its prompts were the whole task. The
tensor ``scores_by_fold/{kind}`` [fold, writers, readers] holds the means over the examples of each fold, where example
i of the kind belongs to fold i mod n. The header holds the graph's shape, the recipe, the sizes of each kind's folds
and the provenance. See docs/method.md#controls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from circuitdrift.circuits.score_file import ScoreFile
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.graph import Graph
from circuitdrift.provenance import Provenance
from circuitdrift.storage import StorageError, fix_of_damage, read_tensors, write_tensors

PREFIX = "scores_by_fold/"


def write_scores_by_kind(kinds: Mapping[str, ScoreFile], recipe: Attribution) -> None:
    """Write the scores of a model's kinds of prompts into the one file that is the path of them all.

    Args:
        kinds: scores by the name of the kind, of one model.
        recipe: the recipe of the scoring.
    """
    first = next(iter(kinds.values()))
    metadata = {
        "graph": json.dumps(asdict(first.graph)),
        "recipe": recipe.model_dump_json(),
        "fold_sizes": json.dumps({kind: scored.fold_sizes for kind, scored in kinds.items()}),
    }
    tensors = {f"{PREFIX}{kind}": scored.by_fold for kind, scored in kinds.items()}
    write_tensors(first.path, tensors, metadata, first.origin)


def read_scores_by_kind(path: Path) -> dict[str, ScoreFile]:
    """Read the scores of each kind of prompt, in the order of the kinds' names.

    Raises:
        StorageError: the file is missing or damaged, or its header does not name the kinds.
    """
    tensors, metadata = read_tensors(path)
    missing = [name for name in ("graph", "fold_sizes", "provenance") if name not in metadata]
    if missing:
        raise StorageError(f"{path}: not a whole file of scores by kind (missing: {missing}); {fix_of_damage(path)}")
    fold_sizes: dict[str, list[int]] = json.loads(metadata["fold_sizes"])
    if {f"{PREFIX}{kind}" for kind in fold_sizes} != set(tensors):
        raise StorageError(
            f"{path}: holds {sorted(tensors)}, but its header names the kinds {sorted(fold_sizes)}; "
            f"{fix_of_damage(path)}"
        )
    graph = Graph(**json.loads(metadata["graph"]))
    origin = Provenance.model_validate_json(metadata["provenance"])
    found = {}
    for kind in sorted(fold_sizes):
        by_fold, sizes = tensors[f"{PREFIX}{kind}"], tuple(fold_sizes[kind])
        weights = torch.tensor(sizes, dtype=by_fold.dtype)
        scores = (by_fold * weights[:, None, None]).sum(dim=0) / weights.sum()
        found[kind] = ScoreFile(path, graph, origin, scores, by_fold, sizes)
    return found
