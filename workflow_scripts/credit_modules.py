"""Credit the changes of single edges in a method's phase 1 to the modules that they touch."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.drift.modules import tabulate_module_changes
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table


def main(before: Path, after: Path, module_changes: Path, provenance: Provenance) -> None:
    """Compare the base model's circuit with the circuit at the end of phase 1, edge by edge.

    Args:
        before: the base model's edges table.
        after: the edges table of the last checkpoint of the method's phase 1, same seed.
        module_changes: output, every edge that either circuit keeps, once for each module that it touches.
        provenance: origin of the output.

    Raises:
        DriftError: the circuits cannot be compared.
    """
    tables = read_table(before, "edges"), read_table(after, "edges")
    changes = tabulate_module_changes(*tables, (str(before), str(after)))
    write_table(module_changes, changes, "module_changes", provenance)


if __name__ == "__main__":
    stage.run(main)
