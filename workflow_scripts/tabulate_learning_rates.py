"""Stage ``tabulate_learning_rates``: every learning rate that was tried, and which were chosen."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.figures import tables
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables


def main(trials: list[Path], csv: Path, md: Path, tex: Path, provenance: Provenance) -> None:
    """Write the table.

    Args:
        trials: trials tables of all searches.
        csv: output, one observation a row.
        md: output, laid out for reading.
        tex: output, laid out for reading; needs the booktabs package.
        provenance: origin of the outputs; text tables have no place for it, so it is not written.
    """
    tables.write_table_files(tables.learning_rates(read_tables(trials, "trials")), csv, md, tex)


if __name__ == "__main__":
    stage.run(main)
