"""Let EVA redistribute ranks by the activations of the base model on the train split, without its initialisation."""

from circuitdrift import stage

import math
from pathlib import Path

import pandas as pd

from circuitdrift.allocation.other_rules import mean_rank
from circuitdrift.compute import resolve_device
from circuitdrift.config.methods import AllocatedLoraMethod
from circuitdrift.decoder.linears import block_linears
from circuitdrift.models.loading import load_model
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.eva import activation_ranks as ranks_by_activations
from circuitdrift.training.examples import Examples


def main(
    *,
    manifest: Path,
    train: Path,
    activation_ranks: Path,
    method: AllocatedLoraMethod,
    device: str,
    provenance: Provenance,
) -> None:
    """Write the rank of each linear that EVA gives from the method's mean rank, rounded up.

    Args:
        manifest: the base model.
        train: the train split.
        activation_ranks: output, a row for each linear of the blocks.
        method: the ranks that set the mean rank.
        device: execution.device.
        provenance: origin of the table.

    Raises:
        AdapterError: the train split determines too few directions.
    """
    target = resolve_device(device)
    model = load_model(manifest, target)
    rank = math.ceil(mean_rank(method, model.config.num_hidden_layers))
    ranks = ranks_by_activations(model, Examples(read_table(train, "examples"), target), rank)
    rows = [(linear.layer, linear.name, ranks[linear.name]) for linear in block_linears(model)]
    table = pd.DataFrame(rows, columns=["layer", "module", "rank"])
    write_table(activation_ranks, table, "activation_ranks", provenance.on(target, model.dtype))


if __name__ == "__main__":
    stage.run(main)
