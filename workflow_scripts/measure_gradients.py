"""Measure the gradients of the base model on the train split, which some allocations of ranks follow."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.compute import resolve_device
from circuitdrift.models.loading import load_model
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.examples import Examples
from circuitdrift.training.weight_gradients import gradients_of_linears


def main(*, manifest: Path, train: Path, gradients: Path, device: str, provenance: Provenance) -> None:
    """Write the empirical Fisher information and GoRA's importance of each linear, in float32 passes.

    Args:
        manifest: the base model.
        train: the train split.
        gradients: output, a row for each linear of the blocks.
        device: execution.device.
        provenance: origin of the table.
    """
    target = resolve_device(device)
    model = load_model(manifest, target)
    table = gradients_of_linears(model, Examples(read_table(train, "examples"), target))
    write_table(gradients, table, "gradients", provenance.on(target, "float32"))


if __name__ == "__main__":
    stage.run(main)
