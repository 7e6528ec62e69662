# Fine-tuning: checkpoint 00 is the base model, the others are uniform in steps; accuracy is measured at each.


rule finetune:
    input:
        manifest=study.manifest,
        train=f"{study.data}/train.parquet",
        test=f"{study.data}/test.parquet",
        adapter_config=ranks_of_run,
        trials=trials_of_run,
    output:
        checkpoints=[directory(f"{study.run}/checkpoints/{name}") for name in ("00", *study.checkpoints)],
        training_log=f"{study.run}/training_log.parquet",
        accuracy=f"{study.run}/accuracy.parquet",
    log:
        "<logs>/finetune/{model}/{task}/{method}/seed-{seed}.log",
    benchmark:
        study.benchmark
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
        resume=f"{study.run}/.resume",
        provenance=code_of("finetune"),
    script:
        "../workflow_scripts/finetune.py"


# The last checkpoint is asked for so that a longer list of checkpoints is seen: Snakemake compares no params of a job
# that has a new output.
rule runs:
    input:
        accuracy=study.of_runs(f"{study.run}/accuracy.parquet", study.runs),
        checkpoints=study.of_runs(f"{study.run}/checkpoints/{study.checkpoints[-1]}", study.runs),
