"""Stage ``write_table``: a table of the list in ``circuitdrift.figures.catalogue``."""

from circuitdrift import stage

from pathlib import Path
from typing import Any

from circuitdrift.config.methods import MethodConfig
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.layout import write_table_files
from circuitdrift.figures.modules import call, module_of, read_files


def main(
    table: str,
    reads: dict[str, list[Path]],
    settings: dict[str, Any],
    methods: dict[str, MethodConfig],
    csv: Path,
    md: Path,
    tex: Path,
    html: Path,
) -> None:
    """Write the table.

    Args:
        table: the name of its module.
        reads: the files that the module reads, by the keyword that takes them.
        settings: what else the module takes, by keyword.
        methods: the study's methods, for their labels.
        csv: output, one observation a row.
        md: output, laid out for reading.
        tex: output, laid out for reading; needs the booktabs package.
        html: output, laid out for the report.
    """
    given = {**read_files(reads), **settings, "labels": MethodLabels(methods)}
    write_table_files(call(module_of(table).table, given), csv, md, tex, html)


if __name__ == "__main__":
    stage.run(main)
