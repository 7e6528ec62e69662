"""The file of edge scores: ``scores.safetensors``, one for each checkpoint.

``scores`` [writers, readers] holds the means over all examples, ``scores_by_fold`` [fold, writers, readers] the means
over the examples of each fold. The header holds the names of writers and readers, the graph's shape, the recipe of the
scoring, the number of examples, the sizes of the folds, and the provenance.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.graph import Graph
from circuitdrift.provenance import Provenance
from circuitdrift.storage import StorageError, fix_of_damage, read_tensors, write_tensors

TENSORS = ("scores", "scores_by_fold")


@dataclass(frozen=True)
class ScoreFile:
    """One checkpoint's scores.

    Attributes:
        path: the file.
        graph: the graph whose edges are scored.
        origin: the file's provenance, which names the checkpoint.
        scores: signed scores from all examples.
        by_fold: scores from the examples of each fold.
        fold_sizes: examples of each fold.
    """

    path: Path
    graph: Graph
    origin: Provenance
    scores: Float[Tensor, "writers readers"]
    by_fold: Float[Tensor, "fold writers readers"]
    fold_sizes: tuple[int, ...]

    @property
    def checkpoint(self) -> str:
        """The checkpoint that was scored."""
        return self.origin.wildcards["checkpoint"]


def write_scores(file: ScoreFile, recipe: Attribution) -> None:
    """Write a score file.

    Args:
        file: the scores and their path.
        recipe: the recipe of the scoring.
    """
    metadata = {
        "writers": json.dumps(file.graph.writers),
        "readers": json.dumps(file.graph.readers),
        "graph": json.dumps(asdict(file.graph)),
        "recipe": recipe.model_dump_json(),
        "examples": str(sum(file.fold_sizes)),
        "fold_sizes": json.dumps(file.fold_sizes),
    }
    tensors = dict(zip(TENSORS, (file.scores, file.by_fold), strict=True))
    write_tensors(file.path, tensors, metadata, file.origin)


def read_scores(path: Path) -> ScoreFile:
    """Read a score file.

    Raises:
        StorageError: the file is missing or damaged, or lacks scores from all examples or by fold.
    """
    tensors, metadata = read_tensors(path)
    missing = [name for name in TENSORS if name not in tensors]
    missing += [name for name in ("graph", "fold_sizes", "provenance") if name not in metadata]
    if missing:
        raise StorageError(f"{path}: not a whole file of edge scores (missing: {missing}); {fix_of_damage(path)}")
    return ScoreFile(
        path=path,
        graph=Graph(**json.loads(metadata["graph"])),
        origin=Provenance.model_validate_json(metadata["provenance"]),
        scores=tensors["scores"],
        by_fold=tensors["scores_by_fold"],
        fold_sizes=tuple(json.loads(metadata["fold_sizes"])),
    )
