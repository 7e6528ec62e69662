# Drift: how the circuit changes from checkpoint to checkpoint, beside what noise alone would change.


rule compare_circuits:
    input:
        edges=study.circuit_files("edges.parquet"),
        nodes=study.circuit_files("nodes.parquet"),
    output:
        transitions=f"{study.drift}/transitions.parquet",
        summary=f"{study.drift}/summary.parquet",
        layers=f"{study.drift}/layers.parquet",
    log:
        "<logs>/compare_circuits/{model}/{task}/{method}/seed-{seed}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1500, 8000),
        runtime=30,
    params:
        provenance=code_of("compare_circuits"),
    script:
        "../workflow_scripts/compare_circuits.py"


rule measure_controls:
    input:
        base_scores=f"{study.base_circuit}/scores.safetensors",
        scores=study.of_each_seed(f"{study.circuits}/{study.checkpoints[-1]}/scores.safetensors"),
    output:
        controls=study.controls,
    log:
        "<logs>/measure_controls/{model}/{task}/{method}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1500, 8000),
        runtime=30,
    params:
        fraction=study.config.circuit.fraction,
        random_circuits=study.config.drift.random_circuits,
        provenance=code_of("measure_controls"),
    script:
        "../workflow_scripts/measure_controls.py"


rule drift:
    input:
        study.of_runs(f"{study.drift}/summary.parquet", study.drift_runs),
        study.of_runs(study.controls, study.drift_runs),
