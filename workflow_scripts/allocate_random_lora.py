"""Allocate the LoRA ranks of CircuitLoRA's control: its critical layers are drawn at random."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.allocation.policies import draw_layers
from circuitdrift.config.methods import RandomLoraMethod, Training
from circuitdrift.models.loading import load_shape
from circuitdrift.models.manifest import base_model_name
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table
from circuitdrift.training.allocated_adapter import write_allocated_adapter


def main(
    *,
    manifest: Path,
    critical_layers: Path,
    adapter_config: Path,
    method: RandomLoraMethod,
    training: Training,
    seed: int,
    provenance: Provenance,
) -> None:
    """Order all layers of the model at random, by the names of model and task, the seed and the method's draw.

    Args:
        manifest: the base model.
        critical_layers: output, every layer.
        adapter_config: output, the LoRA configuration that plain PEFT reads.
        method: the ranks, the number of critical layers, the layers that always or never are critical, and the draw.
        training: holds alpha as a multiple of the rank.
        seed: seed of the fine-tuning.
        provenance: origin of the table, which names model and task.
    """
    model = load_shape(manifest)
    drawn_for = f"{provenance.wildcards['model']}/{provenance.wildcards['task']}"
    n_layers = model.config.num_hidden_layers
    table = draw_layers(
        n_layers, method.critical_layers, seed, method.draw, drawn_for, method.include_layers, method.exclude_layers
    )
    write_table(critical_layers, table, "critical_layers", provenance.with_seed(seed))
    write_allocated_adapter(adapter_config, model, base_model_name(manifest), method, table, None, training)


if __name__ == "__main__":
    stage.run(main)
