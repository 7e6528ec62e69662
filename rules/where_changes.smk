# Where circuits change: by layer, at nodes that come or go, and the order of the layers at each checkpoint.
#
# needs     edges and scores of all circuits of a run; its accuracy and training log, for the epoch of each checkpoint
# makes     drift/{model}/{task}/{method}/seed-{seed}/ where.parquet, node_induced.parquet, layer_orders.parquet
# steps     locate_changes (_given)


rule locate_changes:
    """Find the layers in which a circuit changes, and their order at each checkpoint."""
    input:
        edges=[circuit.edges for circuit in study.circuits],
        scores=[circuit.scores for circuit in study.circuits],
        accuracy=layout.accuracy,
        training_log=layout.training_log,
    output:
        where=layout.drift.where,
        node_induced=layout.drift.node_induced,
        layer_orders=layout.drift.layer_orders,
    log:
        "<logs>/locate_changes/{model}/{task}/{method}/seed-{seed}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_for(1500, 16000),
        runtime=60,
    params:
        random_circuits=study.config.drift.random_circuits,
        code=code_of("locate_changes"),
    script:
        "../workflow_scripts/locate_changes.py"


use rule locate_changes as locate_changes_given with:
    input:
        edges=of_given_circuits("edges"),
        scores=of_given_circuits("scores"),
        accuracy=[],
        training_log=[],
    wildcard_constraints:
        **OF_GIVEN_RUN,
