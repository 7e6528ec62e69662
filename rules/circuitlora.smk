# CircuitLoRA: rank the layers by the drift of phase 1 (or draw them, for the control), and allocate ranks to them.


rule rank_layers:
    input:
        layers=lambda wildcards: f"{study.drift}/layers.parquet".format(
            method=study.config.methods[wildcards.name].phase_1, **wildcards
        ),
    output:
        critical_layers=f"{study.allocation}/critical_layers.parquet",
    log:
        "<logs>/rank_layers/{model}/{task}/{name}/seed-{seed}.log",
    wildcard_constraints:
        name=one_of(study.methods_of("circuit_lora")),
    conda:
        "../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        method=method_settings,
        provenance=code_of("rank_layers"),
    script:
        "../workflow_scripts/rank_layers.py"


rule draw_random_layers:
    input:
        manifest=study.manifest,
    output:
        critical_layers=f"{study.allocation}/critical_layers.parquet",
    log:
        "<logs>/draw_random_layers/{model}/{task}/{name}/seed-{seed}.log",
    wildcard_constraints:
        name=one_of(study.methods_of("random_lora")),
    conda:
        "../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        method=method_settings,
        seed=lambda wildcards: int(wildcards.seed),
        provenance=code_of("draw_random_layers"),
    script:
        "../workflow_scripts/draw_random_layers.py"


rule allocate_ranks:
    input:
        manifest=study.manifest,
        critical_layers=f"{study.allocation}/critical_layers.parquet",
    output:
        adapter_config=f"{study.allocation}/adapter_config.json",
    log:
        "<logs>/allocate_ranks/{model}/{task}/{name}/seed-{seed}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1500, 8000),
        runtime=10,
    params:
        method=method_settings,
        training=settings(study.config.training),
        provenance=code_of("allocate_ranks"),
    script:
        "../workflow_scripts/allocate_ranks.py"


rule allocations:
    input:
        study.of_runs(f"{study.allocation}/adapter_config.json", study.allocated_runs),
