# Drift: how a run's circuit changes from checkpoint to checkpoint, beside the changes of controls.
#
# needs     edges, nodes and scores of all circuits of a run; scores of the base model by kind of prompt
# makes     drift/{model}/{task}/{method}/ controls.parquet, and in seed-{seed}/ transitions.parquet, summary.parquet,
#           layers.parquet, reliability.parquet, nodes_and_edges.parquet
# steps     compare_circuits; measure_reliability; measure_controls


rule compare_circuits:
    input:
        edges=[circuit.edges for circuit in study.circuits],
        nodes=[circuit.nodes for circuit in study.circuits],
    output:
        transitions=layout.drift.transitions,
        summary=layout.drift.summary,
        layers=layout.drift.layers,
    log:
        "<logs>/compare_circuits/{model}/{task}/{method}/seed-{seed}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1500, 8000),
        runtime=30,
    params:
        code=code_of("compare_circuits"),
    script:
        "../workflow_scripts/compare_circuits.py"


rule measure_reliability:
    input:
        scores=[circuit.scores for circuit in study.circuits],
    output:
        reliability=layout.drift.reliability,
        nodes_and_edges=layout.drift.nodes_and_edges,
    log:
        "<logs>/measure_reliability/{model}/{task}/{method}/seed-{seed}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_for(1500, 16000),
        runtime=120,
    params:
        choice=settings(study.config.circuit.choice()),
        half_splits=study.config.drift.half_splits,
        exchanges=study.config.drift.exchanges,
        code=code_of("measure_reliability"),
    script:
        "../workflow_scripts/measure_reliability.py"


rule measure_controls:
    input:
        base_scores=study.circuits[0].scores,
        kind_scores=layout.scores_by_kind,
        scores=study.of_each_seed(study.circuits[-1].scores),
    output:
        controls=layout.controls,
    log:
        "<logs>/measure_controls/{model}/{task}/{method}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=memory_for(1500, 8000),
        runtime=30,
    params:
        choice=settings(study.config.circuit.choice()),
        random_circuits=study.config.drift.random_circuits,
        code=code_of("measure_controls"),
    script:
        "../workflow_scripts/measure_controls.py"


rule drift:
    input:
        study.of_runs(layout.drift.summary, study.drift_runs),
        study.of_runs(layout.drift.reliability, study.drift_runs),
        study.of_runs(layout.controls, study.drift_runs),
