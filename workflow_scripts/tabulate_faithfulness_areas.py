"""Stage ``tabulate_faithfulness_areas``: CPR and CMD of the MIB benchmark, before and after fine-tuning."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.figures import tables
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables


def main(areas: list[Path], csv: Path, md: Path, tex: Path, provenance: Provenance) -> None:
    """Write the table.

    Args:
        areas: tables of areas under faithfulness curves, of the base models and of the last checkpoints.
        csv: output, one observation a row.
        md: output, laid out for reading.
        tex: output, laid out for reading; needs the booktabs package.
        provenance: origin of the outputs; text tables have no place for it, so it is not written.
    """
    tables.write_table_files(tables.faithfulness_areas(read_tables(areas, "faithfulness_areas")), csv, md, tex)


if __name__ == "__main__":
    stage.run(main)
