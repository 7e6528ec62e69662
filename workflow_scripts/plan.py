"""Print what a study will still take: jobs, core hours, memory, files and disk, stage by stage."""

from contextlib import suppress
from pathlib import Path

from circuitdrift import stage
from circuitdrift.config.models import HubModel
from circuitdrift.models.hub import fetch_config
from circuitdrift.models.manifest import ManifestError
from circuitdrift.planned_job import dry_run
from circuitdrift.planning.plan import describe, plan_of
from circuitdrift.study import read_study


def main(snakefile: Path, config_file: Path, cores: int) -> None:
    """Plan the jobs of the default target that are left to do.

    Args:
        snakefile: the workflow's Snakefile.
        config_file: config of the study.
        cores: number of cores that the jobs will share.
    """
    study = read_study(config_file)
    for model in study.config.models.values():
        if isinstance(model, HubModel):
            with suppress(ManifestError):
                fetch_config(model.id, model.revision)
    jobs = list(dry_run(snakefile, ["all"], config_file).needrun_jobs(exclude_finished=False))
    print(describe(plan_of(study, jobs, cores), study.config.study))


if __name__ == "__main__":
    stage.run(main)
