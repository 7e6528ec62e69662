"""Stage ``rank_layers``: the layers whose circuit drifted most in a search run (PAPER section 5)."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.methods import CircuitLoraMethod
from circuitdrift.drift.layers import order_layers
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table


def main(layers: Path, critical_layers: Path, method: CircuitLoraMethod, provenance: Provenance) -> None:
    """Rank all layers by each policy and mark as many as the method calls critical.

    Args:
        layers: changes layer by layer of the method's phase 1, same seed.
        critical_layers: output, every layer once for each policy.
        method: the method that will spend its rank by this ranking; ``critical_layers`` is how many are marked.
        provenance: origin of the output.

    Raises:
        DriftError: the table cannot be ranked, or has fewer layers than are to be marked.
    """
    ranked = order_layers(read_table(layers, "layers"), method.critical_layers, str(layers))
    write_table(critical_layers, ranked, "critical_layers", provenance)


if __name__ == "__main__":
    stage.run(main)
