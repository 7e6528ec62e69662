"""Stage ``tabulate_critical_layers``: critical layers by task, method, policy and seed, and what they share."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.figures import tables
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables


def main(critical_layers: list[Path], csv: Path, md: Path, tex: Path, provenance: Provenance) -> None:
    """Write the table.

    Args:
        critical_layers: critical_layers tables of all allocations.
        csv: output, one observation a row.
        md: output, laid out for reading.
        tex: output, laid out for reading; needs the booktabs package.
        provenance: origin of the outputs; text tables have no place for it, so it is not written.
    """
    tables.write_table_files(tables.critical_layers(read_tables(critical_layers, "critical_layers")), csv, md, tex)


if __name__ == "__main__":
    stage.run(main)
