"""Snakemake's report of a finished study, made inside a job: it only reads, so it needs no lock."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from snakemake.api import SnakemakeApi
from snakemake.report.html_reporter import ReportSettings
from snakemake.settings.enums import Quietness
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    GlobalReportSettings,
    OutputSettings,
    ResourceSettings,
)

from circuitdrift.study import Study


def make_report(
    snakefile: Path,
    config_file: Path,
    targets: Sequence[str],
    report: Path,
    stylesheet: Path,
    numbers: Mapping[str, int],
) -> None:
    """Write Snakemake's report.

    Args:
        snakefile: the workflow's Snakefile.
        config_file: config of the study.
        targets: what the report is about; their files are there.
        report: the file to write, .html or .zip.
        stylesheet: CSS that is added to Snakemake's own.
        numbers: what the first page shows below the introduction. With it, Snakemake moves the graph of the rules to a
            page of its own.

    Raises:
        WorkflowError: a figure or table of the report is missing.
    """
    logging.disable(logging.INFO)
    try:
        with TemporaryDirectory() as folder, SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
            metadata = Path(folder) / "numbers.yaml"
            metadata.write_text(json.dumps(dict(numbers)))
            settings = ConfigSettings(configfiles=[config_file])
            workflow = api.workflow(ResourceSettings(cores=1), config_settings=settings, snakefile=snakefile)
            workflow.dag(DAGSettings(targets=set(targets))).create_report(
                report_settings=ReportSettings(path=report, stylesheet_path=stylesheet),
                global_report_settings=GlobalReportSettings(metadata_template=metadata),
            )
    finally:
        logging.disable(logging.NOTSET)


def numbers_of(study: Study) -> dict[str, int]:
    """What a study contains, in numbers."""
    return {
        "Models": len(study.config.models),
        "Tasks": len(study.config.tasks),
        "Methods": len(study.config.methods),
        "Seeds": len(study.config.seeds),
        "Fine-tunings": len(study.runs),
        "Fine-tunings whose circuits are extracted": len(study.drift_runs),
        "Checkpoints of each, with the base model": len(study.checkpoints),
    }
