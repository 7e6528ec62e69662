"""The Snakemake job that makes a file, for a stage script that is started by hand, say under a debugger."""

from __future__ import annotations

import json
import logging
import os
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from snakemake.api import SnakemakeApi
from snakemake.dag import DAG
from snakemake.exceptions import RuleException, WorkflowError
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

from circuitdrift.config.study import StudyConfig


def job_of_command_line(script: Path, arguments: Sequence[str]) -> SimpleNamespace:
    """The job that ``script.py FILE [--configfile FILE]`` asks for.

    Raises:
        SystemExit: with code 2, the usage and the reason, where no job of the script can make the file as things stand.
    """
    parser = ArgumentParser(script.name, description=f"Do the job of {script.stem} that makes FILE.")
    parser.add_argument("file", help="path of the file as Snakemake names it: results/STUDY/...")
    parser.add_argument("--configfile", type=Path, help="config file of the study; default: config.yaml")
    wanted = parser.parse_args(arguments)
    try:
        job = planned_job(script.parents[1] / "Snakefile", os.path.relpath(wanted.file), wanted.configfile)
    except (WorkflowError, RuleException, OSError) as error:
        parser.error(f"Snakemake cannot plan {wanted.file}: {error}")
    if job.script != script.stem:
        parser.error(f"{wanted.file} is made by {job.script}.py, not by {script.name}")
    if missing := [path for path in job.input if not Path(path).exists()]:
        parser.error(f"inputs are missing; make them first: snakemake {' '.join(missing)}")
    return job


def planned_job(snakefile: Path, file: str, config_file: Path | None) -> SimpleNamespace:
    """The job by which Snakemake would make a file: its rule, script, input, output, params, wildcards and log.

    Raises:
        RuleException: no rule makes the file.
        WorkflowError: the config cannot be used.
    """
    job = next(job for job in dry_run(snakefile, [file], config_file).jobs if file in job.output)
    return SimpleNamespace(
        rule=job.rule.name,
        script=Path(str(job.rule.script)).stem,
        input=job.input,
        output=job.output,
        params=job.params,
        wildcards=job.wildcards,
        log=job.log,
    )


@contextmanager
def config_file_of(settings: StudyConfig) -> Iterator[Path]:
    """A file with a study's config, for a call of Snakemake within a job; in a module the study has no file."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(settings.model_dump(mode="json")))
        yield file


def dry_run(snakefile: Path, targets: Sequence[str], config_file: Path | None, cores: int = 1) -> DAG:
    """Snakemake's graph of jobs for some targets on so many cores, from a dry run that prints nothing.

    Raises:
        RuleException: no rule makes a target.
        WorkflowError: the config cannot be used.
    """
    settings = ConfigSettings(configfiles=[config_file] if config_file else [])
    logging.disable(logging.INFO)
    try:
        with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
            workflow = api.workflow(ResourceSettings(cores=cores), config_settings=settings, snakefile=snakefile)
            workflow.dag(DAGSettings(targets=set(targets))).execute_workflow(executor="dryrun")
            return workflow._workflow.dag
    finally:
        logging.disable(logging.NOTSET)
