# Data: three disjoint splits of clean and corrupted prompts for each task, in the model's own tokens.


rule generate_data:
    input:
        manifest=study.manifest,
        prompts=lambda wildcards: study.prompt_files.get(wildcards.task, []),
    output:
        train=f"{study.data}/train.parquet",
        circuit=f"{study.data}/circuit.parquet",
        test=f"{study.data}/test.parquet",
    log:
        "<logs>/generate_data/{model}/{task}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        task=task_settings,
        parent=lambda wildcards: study.parent_of(wildcards.task),
        folds=study.config.circuit.folds,
        provenance=code_of("generate_data"),
    script:
        "../workflow_scripts/generate_data.py"


rule data:
    input:
        study.of_runs(f"{study.data}/test.parquet", study.runs),
