# Given checkpoints: models and adapters that were trained elsewhere, in the place of a run of the method `given`, seed 0.
#
# needs     the manifest of the base model, the folders or hub repositories that models.NAME.checkpoints names, the data
# makes     models/{model}/given/{checkpoint}/manifest.json; runs/{model}/{task}/given/seed-0/ accuracy.parquet,
#           predictions.parquet; circuits/, drift/ and allocation/ of this run, as of a run that was trained here
# steps     fetch_checkpoint; measure_accuracy; and the steps of circuits.smk, drift.smk, circuitlora.smk and exchange.smk
#           under their names with _given. Each checkpoint is a job of its own, so that one more repeats no other


# The files come first and without a name: an edit makes a new manifest, and the script finds them by their folder.
rule fetch_checkpoint:
    """Fetch and check a checkpoint that was trained elsewhere."""
    input:
        lambda wildcards: study.given.files(wildcards.model, wildcards.checkpoint),
        manifest=layout.manifest,
    output:
        checkpoint=directory(layout.given_checkpoint),
    log:
        "<logs>/fetch_checkpoint/{model}/{checkpoint}.log",
    wildcard_constraints:
        model=one_of(study.given.models),
        checkpoint=r"\d\d",
    priority: 100
    localrule: True
    conda:
        "../environment.yml"
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        given=lambda wildcards: settings(study.given.checkpoint(wildcards.model, wildcards.checkpoint)),
        code=code_of("fetch_checkpoint"),
    script:
        "../workflow_scripts/fetch_checkpoint.py"


rule measure_accuracy:
    """Measure the accuracy of given checkpoints."""
    input:
        manifest=layout.manifest,
        test=layout.test,
        checkpoints=lambda wildcards: study.given.folders(wildcards.model),
    output:
        accuracy=layout.accuracy,
        predictions=layout.predictions,
    log:
        "<logs>/measure_accuracy/{model}/{task}/{method}/seed-{seed}.log",
    wildcard_constraints:
        **OF_GIVEN_RUN,
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=240,
    params:
        device=study.config.execution.device,
        code=code_of("measure_accuracy"),
    script:
        "../workflow_scripts/measure_accuracy.py"


use rule score_edges_base as score_edges_given with:
    input:
        manifest=layout.manifest,
        examples=layout.circuit,
        checkpoints=layout.given_checkpoint,
    output:
        scores=layout.given_circuit.scores,
        benchmark=layout.given_circuit.scoring_benchmark,
    log:
        "<logs>/score_edges/{model}/{task}/{method}/seed-{seed}/{checkpoint}.log",
    wildcard_constraints:
        **OF_GIVEN_CHECKPOINT,


if study.config.circuit.selection == "minimal":

    use rule select_minimal_circuits_base as select_minimal_circuits_given with:
        input:
            manifest=layout.manifest,
            examples=layout.circuit,
            scores=layout.given_circuit.scores,
            checkpoints=layout.given_checkpoint,
        output:
            edges=layout.given_circuit.edges,
            nodes=layout.given_circuit.nodes,
        log:
            "<logs>/select_minimal_circuits/{model}/{task}/{method}/seed-{seed}/{checkpoint}.log",
        wildcard_constraints:
            **OF_GIVEN_CHECKPOINT,

else:

    use rule select_base_circuit as select_base_circuit_given with:
        input:
            scores=layout.given_circuit.scores,
        output:
            edges=layout.given_circuit.edges,
            nodes=layout.given_circuit.nodes,
        log:
            "<logs>/select_base_circuit/{model}/{task}/{method}/seed-{seed}/{checkpoint}.log",
        wildcard_constraints:
            **OF_GIVEN_CHECKPOINT,


use rule measure_faithfulness_base as measure_faithfulness_given with:
    input:
        manifest=layout.manifest,
        examples=layout.test,
        edges=layout.given_circuit.edges,
        checkpoints=layout.given_checkpoint,
    output:
        faithfulness=layout.given_circuit.faithfulness,
        areas=layout.given_circuit.faithfulness_areas,
    log:
        "<logs>/measure_faithfulness/{model}/{task}/{method}/seed-{seed}/{checkpoint}.log",
    wildcard_constraints:
        **OF_GIVEN_CHECKPOINT,


use rule compare_circuits_imported as compare_circuits_given with:
    input:
        edges=of_given_circuits("edges"),
        nodes=of_given_circuits("nodes"),
    output:
        transitions=layout.drift.transitions,
        summary=layout.drift.summary,
        layers=layout.drift.layers,
    log:
        "<logs>/compare_circuits/{model}/{task}/{method}/seed-{seed}.log",
    wildcard_constraints:
        **OF_GIVEN_RUN,


use rule measure_reliability as measure_reliability_given with:
    input:
        scores=of_given_circuits("scores"),
    wildcard_constraints:
        **OF_GIVEN_RUN,


use rule classify_edges as classify_edges_given with:
    input:
        before=layout.base_circuit.scores,
        after=lambda wildcards: of_given_circuits("scores", -1)(wildcards)[0],
    wildcard_constraints:
        **OF_GIVEN_RUN,


use rule measure_functional_drift as measure_functional_drift_given with:
    input:
        manifest=layout.manifest,
        examples=layout.test,
        edges=of_given_circuits("edges"),
        other_seeds_edges=[],
        checkpoints=lambda wildcards: study.given.functional_folders(wildcards.model),
    wildcard_constraints:
        **OF_GIVEN_RUN,


use rule measure_controls as measure_controls_given with:
    input:
        base_scores=layout.base_circuit.scores,
        kind_scores=layout.scores_by_kind,
        scores=of_given_circuits("scores", -1),
    wildcard_constraints:
        **OF_GIVEN_RUN,


use rule allocate_circuit_lora as allocate_circuit_lora_given with:
    wildcard_constraints:
        name=GIVEN,
        seed=str(GIVEN_SEED),
    params:
        method=settings(study.config.given.as_method(GIVEN)),
        training=settings(study.config.training),
        choice=settings(study.config.circuit.choice()),
        resamples=study.config.drift.resamples,
        code=code_of("allocate_circuit_lora"),


use rule export_circuits_base as export_circuits_given with:
    input:
        manifest=layout.manifest,
        edges=layout.given_circuit.edges,
        nodes=layout.given_circuit.nodes,
    output:
        importances=layout.given_circuit.importances,
        merged=layout.given_circuit.merged,
        graphml=layout.given_circuit.graphml,
    log:
        "<logs>/export_circuits/{model}/{task}/{method}/seed-{seed}/{checkpoint}.log",
    wildcard_constraints:
        **OF_GIVEN_CHECKPOINT,
