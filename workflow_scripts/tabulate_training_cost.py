"""Stage ``tabulate_training_cost``: what each method's training costs, with and without its phase 1."""

from pathlib import Path
from typing import Any

from circuitdrift import stage
from circuitdrift.figures import tables
from circuitdrift.figures.costs import read_seconds, training_cost
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tables


def main(
    accuracy: list[Path],
    training_log: list[Path],
    benchmarks: list[Path],
    scoring_benchmarks: list[Path],
    benchmarked: list[dict[str, Any]],
    scored: list[dict[str, Any]],
    phase_1: dict[str, str],
    csv: Path,
    md: Path,
    tex: Path,
    provenance: Provenance,
) -> None:
    """Write the table.

    Args:
        accuracy: accuracy tables of all runs.
        training_log: training logs of all runs.
        benchmarks: Snakemake's measurements of all fine-tuning jobs.
        scoring_benchmarks: Snakemake's measurements of the jobs that scored the circuits of each phase 1.
        benchmarked: model, task, method and seed of each of ``benchmarks``.
        scored: model, task, method and seed of each of ``scoring_benchmarks``.
        phase_1: the method that is the phase 1 of each method that has one.
        csv: output, one observation a row.
        md: output, laid out for reading.
        tex: output, laid out for reading; needs the booktabs package.
        provenance: origin of the outputs; text tables have no place for it, so it is not written.
    """
    cost = training_cost(
        read_tables(accuracy, "accuracy"),
        read_tables(training_log, "training_log"),
        read_seconds(benchmarks, benchmarked),
        read_seconds(scoring_benchmarks, scored),
        phase_1,
    )
    tables.write_table_files(tables.training_cost(cost), csv, md, tex)


if __name__ == "__main__":
    stage.run(main)
