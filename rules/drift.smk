# Drift: how a run's circuit changes from checkpoint to checkpoint, beside the changes of controls.
#
# needs     edges, nodes and scores of all circuits of a run; its checkpoints, the manifest and the test split; scores of the
#           base model by kind of prompt and in the second wording of the task, and of untrained models
# makes     drift/{model}/{task}/{method}/ controls.parquet, and in seed-{seed}/ reliability.parquet, nodes_and_edges.parquet, edges_changed.parquet, edge_counts.parquet,
#           functional.parquet; drift/{model}/{task}/ model_controls.parquet
# steps     compare_circuits where circuit.selection is minimal; measure_reliability; classify_edges; measure_functional_drift; measure_controls;
#           measure_model_controls


if study.config.circuit.selection == "minimal":

    rule compare_circuits:
        """Compare the circuits of a run's checkpoints."""
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
    """Measure drift against the noise of the circuits."""
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


rule classify_edges:
    """Find the edges that are surely gained or lost."""
    input:
        before=study.circuits[0].scores,
        after=study.circuits[-1].scores,
    output:
        edges_changed=layout.drift.edges_changed,
        edge_counts=layout.drift.edge_counts,
    log:
        "<logs>/classify_edges/{model}/{task}/{method}/seed-{seed}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_for(1500, 16000),
        runtime=120,
    params:
        choice=settings(study.config.circuit.choice()),
        resamples=study.config.drift.resamples,
        code=code_of("classify_edges"),
    script:
        "../workflow_scripts/classify_edges.py"


rule measure_functional_drift:
    """Run each checkpoint's circuit in the models of the others."""
    input:
        manifest=layout.manifest,
        examples=layout.test,
        edges=[circuit.edges for circuit in study.circuits],
        other_seeds_edges=last_edges_of_other_seeds,
        checkpoints=[layout.checkpoint(name) for name in study.functional_checkpoints[1:]],
    output:
        functional=layout.drift.functional,
    log:
        "<logs>/measure_functional_drift/{model}/{task}/{method}/seed-{seed}.log",
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=240,
    params:
        measure=settings(study.config.faithfulness),
        device=study.config.execution.device,
        code=code_of("measure_functional_drift"),
    script:
        "../workflow_scripts/measure_functional_drift.py"


rule measure_controls:
    """Compare drift with other seeds, kinds of prompts and random circuits."""
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


rule measure_model_controls:
    """Compare drift with another wording and with untrained models."""
    input:
        base_scores=study.circuits[0].scores,
        reworded_scores=reworded_scores,
        untrained_scores=study.untrained_scores,
    output:
        model_controls=layout.model_controls,
    log:
        "<logs>/measure_model_controls/{model}/{task}.log",
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
        code=code_of("measure_model_controls"),
    script:
        "../workflow_scripts/measure_model_controls.py"


rule drift:
    """Measure the drift of every run against noise and controls."""
    input:
        when_planned(study.of_runs, layout.drift.summary, study.drift_runs),
        when_planned(study.of_runs, layout.drift.reliability, study.drift_runs),
        when_planned(study.of_runs, layout.drift.edges_changed, study.drift_runs),
        when_planned(study.of_runs, layout.drift.functional, study.drift_runs),
        when_planned(study.of_runs, layout.controls, study.drift_runs),
        when_planned(study.of_runs, layout.model_controls, study.model_control_runs),
        when_planned(study.of_runs, layout.drift.robustness, study.robustness_runs),
        when_planned(study.of_runs, layout.untrained_robustness, study.split_untrained_runs),
        when_planned(study.of_runs, layout.drift.where, study.drift_runs),
