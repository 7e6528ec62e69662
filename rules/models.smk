# Models, pre-trained here or fetched, and the resolved config.
#
# needs     nothing; fetch_model may use the network
# makes     config.json; models/{model}/manifest.json, which describes the model to every later stage; of a pre-trained
#           model also model.safetensors, tokenizer.json and pretraining_log.parquet
#           checked.json of a fetched one, once the methods and circuits of the study fit it
# steps     write_config; pretrain (source scratch) or fetch_model (source hub, local or package); check_model, before
#           other jobs that are ready


rule write_config:
    """Write the config with every default filled in."""
    output:
        config=layout.config,
    log:
        "<logs>/write_config.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        settings=settings(study.config),
        code=code_of("write_config"),
    script:
        "../workflow_scripts/write_config.py"


rule pretrain:
    """Pre-train an embedded model."""
    output:
        manifest=layout.manifest,
        weights=layout.weights,
        tokenizer=layout.tokenizer,
        log=layout.pretraining_log,
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
        code=code_of("pretrain"),
    script:
        "../workflow_scripts/pretrain.py"


rule fetch_model:
    """Fetch a model and list its files with their digests."""
    output:
        manifest=layout.manifest,
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
        code=code_of("fetch_model"),
    script:
        "../workflow_scripts/fetch_model.py"


# What a config.json on this machine tells is checked before any job (common.smk), the rest as soon as the model is there.
# No job reads the file, so that a new method checks the model again and trains nothing again; the targets ask for it.
rule check_model:
    """Check that the methods and circuits of the study fit a fetched model."""
    input:
        manifest=layout.manifest,
    output:
        checked=layout.checked,
    log:
        "<logs>/check_model/{model}.log",
    wildcard_constraints:
        model=one_of(study.models_from("hub", "package")),
    priority: 100
    localrule: True
    conda:
        "../environment.yml"
    params:
        methods={name: settings(method) for name, method in study.config.methods.items()},
        given=lambda wildcards: settings(study.config.given) if wildcards.model in study.given.models else None,
        choice=settings(study.config.circuit.choice()),
        code=code_of("check_model"),
    script:
        "../workflow_scripts/check_model.py"


rule models:
    """Pre-train, fetch and check every model."""
    input:
        when_planned(study.of_runs, layout.manifest, study.all_runs),
        when_planned(study.of_pairs, layout.manifest, study.untouched),
        when_planned(study.of_runs, layout.checked, study.fetched_runs),
