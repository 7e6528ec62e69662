"""Stage ``tabulate_change_rates``: change rates of nodes and edges, beside the controls."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.figures import tables
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables


def main(summary: list[Path], controls: list[Path], csv: Path, md: Path, tex: Path, provenance: Provenance) -> None:
    """Write the table.

    Args:
        summary: summary tables of all runs with circuits.
        controls: controls tables of the same models, tasks and methods.
        csv: output, one observation a row.
        md: output, laid out for reading.
        tex: output, laid out for reading; needs the booktabs package.
        provenance: origin of the outputs; text tables have no place for it, so it is not written.
    """
    tables.write_table_files(
        tables.change_rates(read_tables(summary, "summary"), read_tables(controls, "controls")), csv, md, tex
    )


if __name__ == "__main__":
    stage.run(main)
