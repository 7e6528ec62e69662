"""Stage ``tabulate_method_accuracy``: accuracy after fine-tuning by method and task, with trainable parameters."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.figures import tables
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables


def main(accuracy: list[Path], csv: Path, md: Path, tex: Path, provenance: Provenance) -> None:
    """Write the table.

    Args:
        accuracy: accuracy tables of all runs, with trainable_parameters and trainable_share.
        csv: output, one observation a row.
        md: output, laid out for reading.
        tex: output, laid out for reading; needs the booktabs package.
        provenance: origin of the outputs; text tables have no place for it, so it is not written.
    """
    tables.write_table_files(tables.method_accuracy(read_tables(accuracy, "accuracy")), csv, md, tex)


if __name__ == "__main__":
    stage.run(main)
