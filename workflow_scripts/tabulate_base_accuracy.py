"""Stage ``tabulate_base_accuracy``: accuracy of the pre-trained model on each task, beside guessing."""

from pathlib import Path

from circuitdrift import stage
from circuitdrift.figures import tables
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables


def main(accuracy: list[Path], test: list[Path], csv: Path, md: Path, tex: Path, provenance: Provenance) -> None:
    """Write the table.

    Args:
        accuracy: accuracy tables of runs: at least one for each model and task.
        test: test splits of the same models and tasks.
        csv: output, one observation a row.
        md: output, laid out for reading.
        tex: output, laid out for reading; needs the booktabs package.
        provenance: origin of the outputs; text tables have no place for it, so it is not written.
    """
    tables.write_table_files(
        tables.base_accuracy(read_tables(accuracy, "accuracy"), read_tables(test, "examples")), csv, md, tex
    )


if __name__ == "__main__":
    stage.run(main)
