"""Measure the faithfulness of circuits of several sizes at each checkpoint, on prompts that did not choose them."""

from circuitdrift import stage

import logging
import time
from pathlib import Path

import torch

from circuitdrift.circuits.checkpoints import checkpoint_anatomies
from circuitdrift.circuits.metrics import faithfulness_areas, faithfulness_curve, measure_circuits, sized_circuits
from circuitdrift.circuits.prompts import prompt_pairs
from circuitdrift.compute import resolve_device
from circuitdrift.config.circuits import Faithfulness, Selection
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table

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
    """Measure the circuits of each edges table on the first test examples, with the checkpoint at the same position."""
    pairs = prompt_pairs(read_table(examples, "examples").head(measure.examples))
    on = resolve_device(device)
    models = checkpoint_anatomies(manifest, checkpoints, measure.precision, on)
    for (name, anatomy), edge_path, curve_path, area_path in zip(models, edges, faithfulness, areas, strict=True):
        started = time.monotonic()
        circuits = sized_circuits(anatomy.graph, read_table(edge_path, "edges"), measure.size_fractions, choice)
        outcomes = measure_circuits(anatomy, pairs, torch.stack([circuit.edges for circuit in circuits]), measure)
        origin = provenance.for_checkpoint(name).on(on, anatomy.dtype)
        curve = faithfulness_curve(circuits, outcomes, measure.bootstrap)
        write_table(curve_path, curve, "faithfulness", origin)
        write_table(area_path, faithfulness_areas(circuits, outcomes, measure), "faithfulness_areas", origin)
        logger.info(
            "checkpoint %s: circuits of %d sizes run in %.1f s", name, len(circuits), time.monotonic() - started
        )


if __name__ == "__main__":
    stage.run(main)
