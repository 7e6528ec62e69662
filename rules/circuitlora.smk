# CircuitLoRA: rank the layers by the drift of phase 1 (or draw them, for the control), or credit the drift to single
# modules, and allocate ranks.


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


rule credit_modules:
    input:
        before=f"{study.base_circuit}/edges.parquet",
        after=lambda wildcards: f"{study.circuits}/{study.checkpoints[-1]}/edges.parquet".format(
            method=study.config.methods[wildcards.name].phase_1, **wildcards
        ),
    output:
        module_changes=f"{study.allocation}/module_changes.parquet",
    log:
        "<logs>/credit_modules/{model}/{task}/{name}/seed-{seed}.log",
    wildcard_constraints:
        name=one_of(study.methods_by_module),
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1000, 4000),
        runtime=10,
    params:
        provenance=code_of("credit_modules"),
    script:
        "../workflow_scripts/credit_modules.py"


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
        module_changes=changes_by_module,
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
