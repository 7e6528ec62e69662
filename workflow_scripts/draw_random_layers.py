"""Draw critical layers at random: the control for critical layers by the circuit's drift."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.allocation.policies import draw_layers
from circuitdrift.config.methods import RandomLoraMethod
from circuitdrift.models.sizes import size_of_model
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table


def main(*, manifest: Path, critical_layers: Path, method: RandomLoraMethod, seed: int, provenance: Provenance) -> None:
    """Order all layers of the model at random, by the names of model and task, the seed and the method's draw.

    Args:
        manifest: the base model.
        critical_layers: table to write.
        method: the number of critical layers, the layers that always or never are critical, and the draw.
        seed: seed of the fine-tuning.
        provenance: origin of the file, which names model and task.
    """
    drawn_for = f"{provenance.wildcards['model']}/{provenance.wildcards['task']}"
    n_layers = size_of_model(manifest, "num_hidden_layers")
    table = draw_layers(
        n_layers, method.critical_layers, seed, method.draw, drawn_for, method.include_layers, method.exclude_layers
    )
    write_table(critical_layers, table, "critical_layers", provenance.with_seed(seed))


if __name__ == "__main__":
    stage.run(main)
