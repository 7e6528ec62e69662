"""The file of edge scores: ``scores.safetensors``, one for each checkpoint.

Three tensors [writers, readers] hold the scores from all examples and from each half of them. The header holds the
names of writers and readers, the graph's shape, the recipe of the scoring, the number of examples, and the provenance.
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
from circuitdrift.storage import StorageError, read_tensors, write_tensors

TENSORS = ("scores", "scores_half_a", "scores_half_b")


@dataclass(frozen=True)
class ScoreFile:
    """One checkpoint's scores.

    Attributes:
        path: the file.
        graph: the graph whose edges are scored.
        origin: the file's provenance, which names the checkpoint.
        scores: signed scores from all examples.
        half_a: scores from the even examples.
        half_b: scores from the odd examples.
    """

    path: Path
    graph: Graph
    origin: Provenance
    scores: Float[Tensor, "writers readers"]
    half_a: Float[Tensor, "writers readers"]
    half_b: Float[Tensor, "writers readers"]

    @property
    def checkpoint(self) -> str:
        """The checkpoint that was scored."""
        return self.origin.wildcards["checkpoint"]


def write_scores(file: ScoreFile, recipe: Attribution, n_examples: int) -> None:
    """Write a score file.

    Args:
        file: the scores and their path.
        recipe: the recipe of the scoring.
        n_examples: number of examples that were scored.
    """
    metadata = {
        "writers": json.dumps(file.graph.writers),
        "readers": json.dumps(file.graph.readers),
        "graph": json.dumps(asdict(file.graph)),
        "recipe": recipe.model_dump_json(),
        "examples": str(n_examples),
    }
    tensors = dict(zip(TENSORS, (file.scores, file.half_a, file.half_b), strict=True))
    write_tensors(file.path, tensors, metadata, file.origin)


def read_scores(path: Path) -> ScoreFile:
    """Read a score file.

    Raises:
        StorageError: the file is missing or damaged, or lacks scores from all examples or from a half of them.
    """
    tensors, metadata = read_tensors(path)
    missing = [name for name in TENSORS if name not in tensors]
    missing += [name for name in ("graph", "provenance") if name not in metadata]
    if missing:
        raise StorageError(f"{path}: not a whole file of edge scores (missing: {missing}); delete it and run again")
    return ScoreFile(
        path,
        Graph(**json.loads(metadata["graph"])),
        Provenance.model_validate_json(metadata["provenance"]),
        *(tensors[name] for name in TENSORS),
    )
