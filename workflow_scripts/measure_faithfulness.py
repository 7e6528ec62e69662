"""Rule measure_faithfulness: how well circuits of several sizes do their model's work, at each checkpoint."""

import logging
import time
from pathlib import Path

from circuitdrift import stage
from circuitdrift.circuits.metrics import faithfulness_curve, prompt_pairs
from circuitdrift.circuits.selection import scores_of_table
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Faithfulness
from circuitdrift.models.anatomy import anatomy_of
from circuitdrift.provenance import BASE_CHECKPOINT, Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.checkpoints import load_checkpoint

logger = logging.getLogger(__name__)


def main(
    manifest: Path,
    examples: Path,
    edges: list[Path],
    checkpoints: list[Path],
    faithfulness: list[Path],
    measure: Faithfulness,
    fraction: float,
    device: str,
    provenance: Provenance,
) -> None:
    """Measure the circuits of each edge table on the first examples, with the checkpoint of the same place."""
    pairs = prompt_pairs(read_table(examples, "examples").head(measure.examples))
    on = resolve_device(device)
    of: list[Path | None] = [*checkpoints] or [None]
    for checkpoint, edge_path, path in zip(of, edges, faithfulness, strict=True):
        started = time.monotonic()
        name = BASE_CHECKPOINT if checkpoint is None else checkpoint.name
        model = load_checkpoint(manifest, checkpoint, on)
        anatomy = anatomy_of(model)
        scores = scores_of_table(anatomy.graph, read_table(edge_path, "edges"))
        curve = faithfulness_curve(anatomy, pairs, scores, measure, fraction)
        write_table(path, curve, "faithfulness", provenance.for_checkpoint(name).on(on, model.dtype))
        sizes, seconds = curve["size_fraction"].nunique(), time.monotonic() - started
        logger.info("checkpoint %s: circuits of %d sizes run in %.1f s", name, sizes, seconds)


if __name__ == "__main__":
    stage.run(main)
