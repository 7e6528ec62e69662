# Circuits of the base model, which all methods and seeds share, and of each checkpoint after it.
#
# needs     the manifest, the checkpoints of a run, the circuit split, and for faithfulness the test split
# makes     circuits/.../ scores.safetensors, edges.parquet, nodes.parquet, faithfulness.parquet,
#           faithfulness_areas.parquet, in one folder for each circuit
# steps     score_edges; measure_faithfulness. Each is one rule for the base model (_base), and one rule for each group
#           of checkpoints that share a job (_01_to_10; execution.checkpoints_per_job). select_base_circuit; and for each
#           run select_circuits, which also makes what compare_circuits does (drift.smk). select_minimal_circuits instead
#           of both, by groups of checkpoints, where circuit.selection is minimal
for job in study.circuit_jobs:

    rule:
        """Score the edges of a group of checkpoints."""
        name:
            f"score_edges_{job.name}"
        input:
            manifest=layout.manifest,
            examples=layout.circuit,
            checkpoints=job.checkpoints,
        output:
            scores=[circuit.scores for circuit in job.circuits],
            benchmark=job.scoring_benchmark,
        log:
            f"<logs>/score_edges/{job.log_name}.log",
        conda:
            "../environment.yml"
        threads: threads_for
        resources:
            mem_mb=memory_for(2000, 16000),
            runtime=240,
        params:
            recipe=settings(study.config.circuit.recipe()),
            device=study.config.execution.device,
            code=code_of("score_edges"),
        script:
            "../workflow_scripts/score_edges.py"

    if study.config.circuit.selection == "minimal":

        rule:
            """Find the smallest circuits that are faithful enough."""
            name:
                f"select_minimal_circuits_{job.name}"
            input:
                manifest=layout.manifest,
                examples=layout.circuit,
                scores=[circuit.scores for circuit in job.circuits],
                checkpoints=job.checkpoints,
            output:
                edges=[circuit.edges for circuit in job.circuits],
                nodes=[circuit.nodes for circuit in job.circuits],
            log:
                f"<logs>/select_minimal_circuits/{job.log_name}.log",
            conda:
                "../environment.yml"
            threads: threads_for
            resources:
                mem_mb=memory_for(2000, 16000),
                runtime=240,
            params:
                measure=settings(study.config.faithfulness),
                wanted=study.config.circuit.wanted_faithfulness,
                device=study.config.execution.device,
                code=code_of("select_minimal_circuits"),
            script:
                "../workflow_scripts/select_minimal_circuits.py"

    rule:
        """Measure the faithfulness of circuits on held-out prompts."""
        name:
            f"measure_faithfulness_{job.name}"
        input:
            manifest=layout.manifest,
            examples=layout.test,
            edges=[circuit.edges for circuit in job.circuits],
            checkpoints=job.checkpoints,
        output:
            faithfulness=[circuit.faithfulness for circuit in job.circuits],
            areas=[circuit.faithfulness_areas for circuit in job.circuits],
        log:
            f"<logs>/measure_faithfulness/{job.log_name}.log",
        conda:
            "../environment.yml"
        threads: threads_for
        resources:
            mem_mb=memory_for(2000, 16000),
            runtime=240,
        params:
            measure=settings(study.config.faithfulness),
            choice=settings(study.config.circuit.choice()),
            device=study.config.execution.device,
            code=code_of("measure_faithfulness"),
        script:
            "../workflow_scripts/measure_faithfulness.py"

    del job


if study.config.circuit.selection != "minimal":

    rule select_base_circuit:
        """Select the circuit of the base model."""
        input:
            scores=layout.base_circuit.scores,
        output:
            edges=layout.base_circuit.edges,
            nodes=layout.base_circuit.nodes,
        log:
            "<logs>/select_base_circuit/{model}/{task}.log",
        conda:
            "../environment.yml"
        resources:
            mem_mb=memory_for(1500, 8000),
            runtime=30,
        params:
            choice=settings(study.config.circuit.choice()),
            code=code_of("select_base_circuit"),
        script:
            "../workflow_scripts/select_base_circuit.py"

    rule select_circuits:
        """Select the circuits of a run's checkpoints and compare them."""
        input:
            base_edges=layout.base_circuit.edges,
            base_nodes=layout.base_circuit.nodes,
            scores=[circuit.scores for circuit in study.circuits[1:]],
        output:
            edges=[circuit.edges for circuit in study.circuits[1:]],
            nodes=[circuit.nodes for circuit in study.circuits[1:]],
            transitions=layout.drift.transitions,
            summary=layout.drift.summary,
            layers=layout.drift.layers,
        log:
            "<logs>/select_circuits/{model}/{task}/{method}/seed-{seed}.log",
        conda:
            "../environment.yml"
        resources:
            mem_mb=memory_for(1500, 8000),
            runtime=60,
        params:
            choice=settings(study.config.circuit.choice()),
            code=code_of("select_circuits"),
        script:
            "../workflow_scripts/select_circuits.py"


rule circuits:
    """Extract every circuit and measure its faithfulness."""
    input:
        when_planned(study.of_drift_runs, "faithfulness"),
        when_planned(study.of_pairs, layout.base_circuit.faithfulness, study.untouched),
        when_planned(study.of_pairs, layout.checked, study.fetched_untouched),
