# Models: pre-trained here (scratch), or fetched (hub, local, package). Every model is known by its manifest.


rule write_config:
    output:
        config=f"{study.results}/config.json",
    log:
        "<logs>/write_config.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        settings=settings(study.config),
    script:
        "../workflow_scripts/write_config.py"


rule pretrain:
    output:
        manifest=study.manifest,
        weights=f"{study.model_folder}/model.safetensors",
        tokenizer=f"{study.model_folder}/tokenizer.json",
        log=f"{study.model_folder}/pretraining_log.parquet",
    log:
        "<logs>/pretrain/{model}.log",
    wildcard_constraints:
        model=one_of(study.models_from("scratch")),
    conda:
        "../environment.yml"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        model=model_settings,
        device=study.config.execution.device,
        provenance=code_of("pretrain"),
    script:
        "../workflow_scripts/pretrain.py"


rule fetch_model:
    output:
        manifest=study.manifest,
    log:
        "<logs>/fetch_model/{model}.log",
    wildcard_constraints:
        model=one_of(study.models_from("hub", "local", "package")),
    localrule: True
    conda:
        "../environment.yml"
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        model=model_settings,
        provenance=code_of("fetch_model"),
    script:
        "../workflow_scripts/fetch_model.py"


rule models:
    input:
        study.of_runs(study.manifest, study.runs),
