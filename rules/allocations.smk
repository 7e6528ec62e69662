# Other rules for ranks, at exactly the size of a CircuitLoRA (methods of kind allocated_lora).
#
# needs     the manifest; by allocation: the train split (fisher, gradient_norm, eva), the changes by layer of phase 1
#           (inverted) or its last checkpoint (adalora)
# makes     allocation/{model}/{task}/ gradients.parquet; {name}/activation_ranks.parquet (eva); {name}/seed-{seed}/
#           ranks.parquet, adapter_config.json
# steps     measure_gradients, measure_activation_ranks; allocate_ranks; peft_experiments: export_peft_experiment


rule measure_gradients:
    """Measure the gradients of the base model on the train split."""
    input:
        manifest=layout.manifest,
        train=layout.train,
    output:
        gradients=layout.gradients,
    log:
        "<logs>/measure_gradients/{model}/{task}.log",
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 24000),
        runtime=120,
    params:
        device=study.config.execution.device,
        code=code_of("measure_gradients"),
    script:
        "../workflow_scripts/measure_gradients.py"


rule measure_activation_ranks:
    """Measure EVA's ranks on the train split."""
    input:
        manifest=layout.manifest,
        train=layout.train,
    output:
        activation_ranks=layout.activation_ranks,
    log:
        "<logs>/measure_activation_ranks/{model}/{task}/{name}.log",
    wildcard_constraints:
        name=one_of(study.methods_allocated_by("eva")),
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=120,
    params:
        method=method_settings,
        device=study.config.execution.device,
        code=code_of("measure_activation_ranks"),
    script:
        "../workflow_scripts/measure_activation_ranks.py"


rule allocate_ranks:
    """Allocate ranks by another rule, at exactly the size of a CircuitLoRA."""
    input:
        manifest=layout.manifest,
        gradients=gradients_of_model,
        activation_ranks=activation_ranks_of,
        layers=drift_of_phase_1,
        checkpoint=last_checkpoint_of_phase_1,
    output:
        ranks=layout.allocation.ranks,
        adapter_config=layout.allocation.adapter_config,
    log:
        "<logs>/allocate_ranks/{model}/{task}/{name}/seed-{seed}.log",
    wildcard_constraints:
        name=one_of(study.methods_of("allocated_lora")),
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1500, 8000),
        runtime=10,
    params:
        method=method_settings,
        training=settings(study.config.training),
        seed=lambda wildcards: int(wildcards.seed),
        code=code_of("allocate_ranks"),
    script:
        "../workflow_scripts/allocate_ranks.py"


rule export_peft_experiment:
    """Write a run as an experiment of PEFT's method comparison."""
    input:
        manifest=layout.manifest,
        train=layout.train,
        adapter_config=layout.allocation.adapter_config,
        trials=lambda wildcards: trials_of_run({**wildcards, "method": wildcards.name}),
    output:
        experiment=f"{layout.peft_experiment}/adapter_config.json",
        training_params=f"{layout.peft_experiment}/training_params.json",
    log:
        "<logs>/export_peft_experiment/{model}/{task}/{name}/seed-{seed}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        method=method_settings,
        training=settings(study.config.training),
        seed=lambda wildcards: int(wildcards.seed),
        code=code_of("export_peft_experiment"),
    script:
        "../workflow_scripts/export_peft_experiment.py"


rule peft_experiments:
    """Write every run with allocated ranks as an experiment of PEFT's method comparison."""
    input:
        when_planned(
            study.of_runs,
            f"{layout.peft_experiment}/training_params.json",
            tuple(run for run in (*study.allocated_runs, *study.allocated_lora_runs) if run in study.runs),
        ),
