"""Rule measure_faithfulness: how well circuits of several sizes do their model's work, at each checkpoint."""

import logging
import time
from pathlib import Path

import torch

from circuitdrift import stage
from circuitdrift.circuits.metrics import faithfulness_areas, faithfulness_curve, measure_circuits, sized_circuits
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.compute import precision_of_weights, resolve_device
from circuitdrift.config.circuits import Faithfulness, Selection
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
    areas: list[Path],
    measure: Faithfulness,
    choice: Selection,
    device: str,
    provenance: Provenance,
) -> None:
    """Measure the circuits of each edge table on the first examples, with the checkpoint of the same place."""
    pairs = prompt_pairs(read_table(examples, "examples").head(measure.examples))
    on = resolve_device(device)
    of: list[Path | None] = [*checkpoints] or [None]
    for checkpoint, edge_path, curve_path, area_path in zip(of, edges, faithfulness, areas, strict=True):
        started = time.monotonic()
        name = BASE_CHECKPOINT if checkpoint is None else checkpoint.name
        model = load_checkpoint(manifest, checkpoint, on)
        model.to(precision_of_weights(measure.precision, model.dtype, on))  # type: ignore[arg-type]
        anatomy = anatomy_of(model)
        circuits = sized_circuits(anatomy.graph, read_table(edge_path, "edges"), measure.size_fractions, choice)
        outcomes = measure_circuits(anatomy, pairs, torch.stack([circuit.edges for circuit in circuits]), measure)
        origin = provenance.for_checkpoint(name).on(on, model.dtype)
        curve = faithfulness_curve(circuits, outcomes, measure.bootstrap)
        write_table(curve_path, curve, "faithfulness", origin)
        write_table(area_path, faithfulness_areas(circuits, outcomes, measure), "faithfulness_areas", origin)
        logger.info(
            "checkpoint %s: circuits of %d sizes run in %.1f s", name, len(circuits), time.monotonic() - started
        )


if __name__ == "__main__":
    stage.run(main)
