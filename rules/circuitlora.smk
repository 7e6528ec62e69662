# CircuitLoRA: where phase 1 drifts most, allocate LoRA ranks.
#
# needs     the manifest; of phase 1, same seed: the changes by layer, and the scores and edges of the first and last
#           circuit, or of the unions of sub-tasks' circuits (composition.smk)
# makes     allocation/{model}/{task}/{name}/seed-{seed}/ critical_layers.parquet, adapter_config.json, and
#           module_changes.parquet where ranks go to single modules
# steps     allocate_circuit_lora (_per_module, where ranks go to single modules); allocate_random_lora, its control


rule allocate_circuit_lora:
    """Order the layers by the drift of phase 1 and give ranks to the first."""
    input:
        manifest=layout.manifest,
        layers=layers_of_phase_1,
        scores=scores_of_phase_1,
        edges=[],
    output:
        critical_layers=layout.allocation.critical_layers,
        module_changes=[],
        adapter_config=layout.allocation.adapter_config,
    log:
        "<logs>/allocate_circuit_lora/{model}/{task}/{name}/seed-{seed}.log",
    wildcard_constraints:
        name=one_of(sorted(set(study.methods_of("circuit_lora")) - set(study.methods_by_module))),
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1500, 16000),
        runtime=60,
    params:
        method=method_settings,
        training=settings(study.config.training),
        choice=settings(study.config.circuit.choice()),
        resamples=study.config.drift.resamples,
        code=code_of("allocate_circuit_lora"),
    script:
        "../workflow_scripts/allocate_circuit_lora.py"


use rule allocate_circuit_lora as allocate_circuit_lora_per_module with:
    input:
        manifest=layout.manifest,
        layers=layers_of_phase_1,
        scores=scores_of_phase_1,
        edges=edges_of_phase_1,
    output:
        critical_layers=layout.allocation.critical_layers,
        module_changes=layout.allocation.module_changes,
        adapter_config=layout.allocation.adapter_config,
    wildcard_constraints:
        name=one_of(study.methods_by_module),


rule allocate_random_lora:
    """Give the ranks of a CircuitLoRA to random layers."""
    input:
        manifest=layout.manifest,
    output:
        critical_layers=layout.allocation.critical_layers,
        adapter_config=layout.allocation.adapter_config,
    log:
        "<logs>/allocate_random_lora/{model}/{task}/{name}/seed-{seed}.log",
    wildcard_constraints:
        name=one_of(study.methods_of("random_lora")),
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1500, 8000),
        runtime=10,
    params:
        method=method_settings,
        training=settings(study.config.training),
        seed=lambda wildcards: int(wildcards.seed),
        code=code_of("allocate_random_lora"),
    script:
        "../workflow_scripts/allocate_random_lora.py"


rule circuitlora:
    """Allocate the ranks of every CircuitLoRA and of the methods beside it."""
    input:
        when_planned(
            study.of_runs, layout.allocation.adapter_config, (*study.allocated_runs, *study.allocated_lora_runs)
        ),
