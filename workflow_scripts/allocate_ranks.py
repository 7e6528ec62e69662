"""Allocate LoRA ranks by another rule than drift, at exactly the size of a CircuitLoRA."""

from circuitdrift import stage

import logging
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from circuitdrift.allocation.other_rules import ranks_of_equal_size
from circuitdrift.allocation.policies import draw_layers
from circuitdrift.config.methods import AllocatedLoraMethod, Training
from circuitdrift.decoder.linears import BlockLinear, block_linears, group_by_layer
from circuitdrift.drift.layer_order import order_layers
from circuitdrift.models.loading import load_shape
from circuitdrift.models.manifest import base_model_name
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_json, read_table, write_table
from circuitdrift.training.allocated_adapter import write_adapter_of_ranks
from circuitdrift.training.checkpoints import RANKS

logger = logging.getLogger(__name__)


def main(
    *,
    manifest: Path,
    gradients: Path | None,
    activation_ranks: Path | None,
    layers: Path | None,
    checkpoint: Path | None,
    ranks: Path,
    adapter_config: Path,
    method: AllocatedLoraMethod,
    training: Training,
    seed: int,
    provenance: Provenance,
) -> None:
    """Write the rank of every linear beside what it follows, and the LoRA configuration that plain PEFT reads.

    Args:
        manifest: the base model.
        gradients: the gradients of the base model, for ``fisher`` and ``gradient_norm``.
        activation_ranks: EVA's ranks, for ``eva``.
        layers: changes layer by layer of phase 1, same seed, for ``inverted``.
        checkpoint: the last checkpoint of phase 1, same seed, for ``adalora``.
        ranks: output, a row for each linear of the blocks.
        adapter_config: output, the LoRA configuration.
        method: the ranks that set the size, and the allocation.
        training: holds alpha as a multiple of the rank.
        seed: seed of the fine-tuning.
        provenance: origin of the table, which names model and task.

    Raises:
        AllocationError: no ranks of this allocation have exactly the size.
    """
    model = load_shape(manifest)
    linears = block_linears(model)
    values: dict[str, float] = {}
    if method.allocation == "random":
        drawn_for = f"{provenance.wildcards['model']}/{provenance.wildcards['task']}"
        n_layers = model.config.num_hidden_layers
        values = of_layers(linears, draw_layers(n_layers, method.critical_layers, seed, method.draw, drawn_for))
    elif layers is not None:
        ordered = order_layers(read_table(layers, "layers"), method.critical_layers, str(layers))
        values = of_layers(linears, ordered[ordered["policy"] == "score_change"])
    elif gradients is not None:
        values = of_gradients(read_table(gradients, "gradients"), method)
    elif activation_ranks is not None:
        values = read_table(activation_ranks, "activation_ranks").set_index("module")["rank"].astype(float).to_dict()
    elif checkpoint is not None:
        values = {name: float(rank) for name, rank in read_json(checkpoint / RANKS).items()}
    found = ranks_of_equal_size(model, method, values)
    table = pd.DataFrame(
        {
            "layer": [linear.layer for linear in linears],
            "module": [linear.name for linear in linears],
            "value": [values.get(linear.name, float("nan")) for linear in linears],
            "rank": [found[linear.name] for linear in linears],
            "parameters": [found[linear.name] * linear.parameters_per_rank for linear in linears],
        }
    )
    write_table(ranks, table, "ranks", provenance.with_seed(seed))
    write_adapter_of_ranks(
        adapter_config, model, base_model_name(manifest), found, method.rank, training.lora_alpha_per_rank
    )
    logger.info(
        "ranks by layer: %s; %d parameters, exactly those of rank %d in %d layers and %d in the others",
        {layer: [found[linear.name] for linear in own] for layer, own in group_by_layer(linears).items()},
        table["parameters"].sum(),
        method.critical_rank,
        method.critical_layers,
        method.rank,
    )


def of_layers(linears: Iterable[BlockLinear], table: pd.DataFrame) -> dict[str, float]:
    """The value of each linear's layer, from a table with a row for each layer."""
    by_layer = table.set_index("layer")["value"].to_dict()
    return {linear.name: float(by_layer[linear.layer]) for linear in linears}


def of_gradients(table: pd.DataFrame, method: AllocatedLoraMethod) -> dict[str, float]:
    """The gradients of each linear that ranks follow: summed over its weights by layer, their mean by module."""
    values = table[method.allocation] * (table["weights"] if method.by == "layers" else 1)
    return dict(zip(table["module"], values.astype(float), strict=True))


if __name__ == "__main__":
    stage.run(main)
