# CircuitLoRA: where phase 1 drifts most, allocate LoRA ranks.
#
# needs     the manifest; of phase 1, same seed: the changes by layer, and the scores and edges of the first and last
#           circuit
# makes     allocation/{model}/{task}/{name}/seed-{seed}/ critical_layers.parquet, adapter_config.json, and
#           module_changes.parquet where ranks go to single modules
# steps     order_layers (circuit_lora) or draw_random_layers (random_lora, its control); credit_modules (allocation
#           per_module); allocate_ranks


rule order_layers:
    input:
        layers=lambda wildcards: layout.drift.layers.format(
            method=study.config.methods[wildcards.name].phase_1, **wildcards
        ),
        scores=scores_of_phase_1,
    output:
        critical_layers=layout.allocation.critical_layers,
    log:
        "<logs>/order_layers/{model}/{task}/{name}/seed-{seed}.log",
    wildcard_constraints:
        name=one_of(study.methods_of("circuit_lora")),
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1500, 16000),
        runtime=60,
    params:
        method=method_settings,
        choice=settings(study.config.circuit.choice()),
        resamples=study.config.drift.resamples,
        code=code_of("order_layers"),
    script:
        "../workflow_scripts/order_layers.py"


rule credit_modules:
    input:
        before=study.circuits[0].edges,
        after=lambda wildcards: study.circuits[-1].edges.format(
            method=study.config.methods[wildcards.name].phase_1, **wildcards
        ),
    output:
        module_changes=layout.allocation.module_changes,
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
        code=code_of("credit_modules"),
    script:
        "../workflow_scripts/credit_modules.py"


rule draw_random_layers:
    input:
        manifest=layout.manifest,
    output:
        critical_layers=layout.allocation.critical_layers,
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
        code=code_of("draw_random_layers"),
    script:
        "../workflow_scripts/draw_random_layers.py"


rule allocate_ranks:
    input:
        manifest=layout.manifest,
        critical_layers=layout.allocation.critical_layers,
        module_changes=changes_by_module,
    output:
        adapter_config=layout.allocation.adapter_config,
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
        code=code_of("allocate_ranks"),
    script:
        "../workflow_scripts/allocate_ranks.py"


rule allocations:
    input:
        study.of_runs(layout.allocation.adapter_config, study.allocated_runs),
