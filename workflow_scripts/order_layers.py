"""Order a model's layers by how much the circuit drifted there in phase 1, and mark the critical layers."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.drift.layers import order_layers
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table


def main(layers: Path, critical_layers: Path, method: CircuitLoraMethod, provenance: Provenance) -> None:
    """Order all layers by each policy, and mark the first ones as critical.

    Args:
        layers: changes layer by layer of the method's phase 1, same seed.
        critical_layers: output, every layer once for each policy.
        method: the method that allocates LoRA ranks by this order; ``critical_layers`` is the number of layers to mark.
        provenance: origin of the output.

    Raises:
        DriftError: the table has no net changes or values that are not finite, or fewer layers than are to be marked.
    """
    ordered = order_layers(read_table(layers, "layers"), method.critical_layers, str(layers))
    write_table(critical_layers, ordered, "critical_layers", provenance)


if __name__ == "__main__":
    stage.run(main)
