"""Print what a study will still take: jobs, core hours, memory, files and disk, stage by stage."""

from circuitdrift import stage

from contextlib import suppress
from pathlib import Path

from circuitdrift.config.models import HubModel
from circuitdrift.config.study import StudyConfig
from circuitdrift.models.hub import fetch_config
from circuitdrift.models.manifest import ManifestError
from circuitdrift.planned_job import config_file_of, dry_run
from circuitdrift.planning.plan import describe, plan_of
from circuitdrift.preloaded import preloads
from circuitdrift.study import Study


def main(snakefile: Path, settings: StudyConfig, cores: int, on_this_machine: bool) -> None:
    """Plan the jobs of the default target that are left to do.

    Args:
        snakefile: the workflow's Snakefile.
        settings: config of the study.
        cores: number of cores that the jobs will share.
        on_this_machine: whether they will run here, and not on a cluster.
    """
    study = Study(settings)
    for model in study.config.models.values():
        if isinstance(model, HubModel):
            with suppress(ManifestError):
                fetch_config(model.id, model.revision)
    with config_file_of(settings) as config_file:
        jobs = list(dry_run(snakefile, ["all"], config_file, cores).needrun_jobs(exclude_finished=False))
    print(describe(plan_of(study, jobs, cores, on_this_machine and preloads(len(jobs))), study.config.study))


if __name__ == "__main__":
    stage.run(main)
