"""Make the report of a finished study: Snakemake's own, with an introduction, captions and the explorer."""

from circuitdrift import stage

from pathlib import Path

from circuitdrift.config.study import StudyConfig
from circuitdrift.planned_job import config_file_of
from circuitdrift.reporting import make_report, numbers_of
from circuitdrift.study import Study


def main(report: Path, snakefile: Path, settings: StudyConfig, stylesheet: Path) -> None:
    """Write ``report`` of the whole study.

    Args:
        report: the HTML file.
        snakefile: the workflow's Snakefile.
        settings: config of the study.
        stylesheet: CSS that is added to Snakemake's own.
    """
    with config_file_of(settings) as config_file:
        make_report(snakefile, config_file, ["all"], report, stylesheet, numbers_of(Study(settings)))


if __name__ == "__main__":
    stage.run(main)
