# Fine-tuning: one run for each model, task, method and seed.
#
# needs     the manifest, the train and test splits; the allocated ranks, and the search for the learning rate, of the
#           methods that have them
# makes     runs/{model}/{task}/{method}/seed-{seed}/ training_log.parquet, accuracy.parquet, predictions.parquet, and
#           checkpoints/NN: 00 is the base model, the others lie at uniform steps
# steps     finetune


rule finetune:
    """Fine-tune a model on a task by a method, with one seed."""
    input:
        manifest=layout.manifest,
        train=layout.train,
        test=layout.test,
        adapter_config=ranks_of_run,
        trials=trials_of_run,
    output:
        checkpoints=[directory(layout.checkpoint(name)) for name in study.checkpoints],
        training_log=layout.training_log,
        accuracy=layout.accuracy,
        predictions=layout.predictions,
        benchmark=layout.benchmark,
    log:
        "<logs>/finetune/{model}/{task}/{method}/seed-{seed}.log",
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=240,
    params:
        method=method_settings,
        training=settings(study.config.training),
        seed=lambda wildcards: int(wildcards.seed),
        device=study.config.execution.device,
        processes=processes_for,
        sharding=study.config.execution.sharding,
        resume=layout.resume,
        code=code_of("finetune"),
    script:
        "../workflow_scripts/finetune.py"


# The last checkpoint is a target so that Snakemake notices a longer list of checkpoints: it does not compare the params
# of a job that has a new output.
rule train:
    """Run every fine-tuning of the study."""
    input:
        checked=when_planned(study.of_runs, layout.checked, study.fetched_runs),
        accuracy=when_planned(study.of_runs, layout.accuracy, study.all_runs),
        predictions=when_planned(study.of_runs, layout.predictions, study.all_runs),
        checkpoints=when_planned(study.of_runs, layout.checkpoint(study.checkpoints[-1]), study.runs),
