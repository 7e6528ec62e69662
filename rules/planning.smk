# Planning: what a study will take, before it starts and while it runs.
#
# needs     nothing: the config, measured rates, and the files that are already there
# makes     text on the terminal, no file; the preloaded process, whose forks run short jobs (circuitdrift.preloaded)
# steps     plan, only when it is named as the target; in place of Snakemake's lines about each job, one line at its end;
#           and the last lines of a call: where its results lie, or which jobs failed
from circuitdrift.planning.terminal import hide_lines_of_jobs

if workflow.is_main_process and not IS_MODULE:
    hide_lines_of_jobs(workflow)


rule plan:
    """Print what is left to do and what it will take; starts nothing."""
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        snakefile=ROOT / "Snakefile",
        settings=settings(study.config),
        cores=workflow.resource_settings.cores or workflow.resource_settings.nodes or 1,
        on_this_machine=lambda wildcards: workflow.local_exec,  # known when all rules have been read
        code=code_of("plan"),
    script:
        "../workflow_scripts/plan.py"


onstart:
    from circuitdrift.planning.progress import report_progress
    from circuitdrift.preloaded import preload

    global progress, preloaded  # each of these three blocks is a function of its own
    preloaded = preload(SCRIPTS, len(list(workflow.dag.needrun_jobs()))) if workflow.local_exec else None
    progress = report_progress(workflow, study, preloading=preloaded is not None)


onsuccess:
    from circuitdrift.planning.summary import lines_of_success

    progress.close()
    logger.info("\n".join(lines_of_success(layout, study.config.study)))


onerror:
    progress.close()
    logger.error("\n".join(progress.lines_of_failure()))
