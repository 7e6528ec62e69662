# Planning: what a study will take, before it starts and while it runs.
#
# needs     nothing: the config, measured rates, and the files that are already there
# makes     text on the terminal, no file
# steps     plan, only when it is named as the target; a line of progress after each job of every run


rule plan:
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        snakefile=ROOT / "Snakefile",
        config_file=CONFIG_FILE,
        cores=workflow.resource_settings.cores or workflow.resource_settings.nodes or 1,
        code=code_of("plan"),
    script:
        "../workflow_scripts/plan.py"


onstart:
    from circuitdrift.planning.progress import report_progress

    report_progress(workflow, study)
