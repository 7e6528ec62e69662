# Composition: does the union of the circuits of two sub-tasks stand for the circuit of the compositional task?
#
# needs     edges of all circuits of a run on a compositional task and of the same run on both of its sub-tasks, and on two
#           unrelated tasks where the study has them; the manifest, the last checkpoint and the test split
# makes     composition/{model}/{task}/{method}/seed-{seed}/ {checkpoint}/union/ and {checkpoint}/intersection/ edges.parquet,
#           nodes.parquet; union/ transitions.parquet, summary.parquet, layers.parquet; overlaps.parquet,
#           union_faithfulness.parquet
# steps     unite_circuits; measure_overlaps; measure_union_faithfulness
COMPOSITIONAL = {"task": one_of(study.sub_tasks)}
unions = [layout.composition.circuit(checkpoint, "union") for checkpoint in study.checkpoints]
intersections = [layout.composition.circuit(checkpoint, "intersection") for checkpoint in study.checkpoints]


rule unite_circuits:
    """Unite and intersect the circuits of a task's two sub-tasks."""
    input:
        edges=[circuit.edges for circuit in study.circuits],
        sub_task_edges=edges_of_sub_tasks,
    output:
        union_edges=[circuit.edges for circuit in unions],
        union_nodes=[circuit.nodes for circuit in unions],
        intersection_edges=[circuit.edges for circuit in intersections],
        intersection_nodes=[circuit.nodes for circuit in intersections],
        transitions=layout.composition.union_drift.transitions,
        summary=layout.composition.union_drift.summary,
        layers=layout.composition.union_drift.layers,
    log:
        "<logs>/unite_circuits/{model}/{task}/{method}/seed-{seed}.log",
    wildcard_constraints:
        **COMPOSITIONAL,
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_for(1500, 8000),
        runtime=60,
    params:
        scale=study.config.composition.scores,
        code=code_of("unite_circuits"),
    script:
        "../workflow_scripts/unite_circuits.py"


rule measure_overlaps:
    """Count the strongest edges that circuits of a task and its sub-tasks share."""
    input:
        edges=[circuit.edges for circuit in study.circuits],
        sub_task_edges=edges_of_sub_tasks,
        union_edges=[circuit.edges for circuit in unions],
        intersection_edges=[circuit.edges for circuit in intersections],
    output:
        overlaps=layout.composition.overlaps,
    log:
        "<logs>/measure_overlaps/{model}/{task}/{method}/seed-{seed}.log",
    wildcard_constraints:
        **COMPOSITIONAL,
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_for(1500, 8000),
        runtime=30,
    params:
        sub_tasks=lambda wildcards: list(study.sub_tasks[wildcards.task]),
        sizes=list(study.config.composition.overlap_sizes),
        code=code_of("measure_overlaps"),
    script:
        "../workflow_scripts/measure_overlaps.py"


rule measure_union_faithfulness:
    """Run the union of sub-tasks' circuits on the compositional task, beside controls."""
    input:
        manifest=layout.manifest,
        examples=layout.test,
        edges=[study.circuits[0].edges, study.circuits[-1].edges],
        sub_task_edges=first_and_last_edges_of_sub_tasks,
        unrelated_edges=first_and_last_edges_of_unrelated_tasks,
        checkpoints=[layout.checkpoint(study.checkpoints[-1])],
    output:
        union_faithfulness=layout.composition.union_faithfulness,
    log:
        "<logs>/measure_union_faithfulness/{model}/{task}/{method}/seed-{seed}.log",
    wildcard_constraints:
        **COMPOSITIONAL,
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=240,
    params:
        size_fractions=list(study.config.composition.size_fractions),
        random_unions=study.config.composition.random_unions,
        scale=study.config.composition.scores,
        choice=settings(study.config.circuit.choice()),
        measure=settings(study.config.faithfulness),
        device=study.config.execution.device,
        code=code_of("measure_union_faithfulness"),
    script:
        "../workflow_scripts/measure_union_faithfulness.py"


rule composition:
    """Compare the circuits of compositional tasks with those of their sub-tasks."""
    input:
        when_planned(study.of_runs, layout.composition.union_drift.layers, study.composition_runs),
        when_planned(study.of_runs, layout.composition.overlaps, study.composition_runs),
        when_planned(study.of_runs, layout.composition.union_faithfulness, study.composition_runs),
