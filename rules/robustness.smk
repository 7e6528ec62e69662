# Robustness: how alike the circuits of a run's ends stay when prompts are replaced, and over disjoint splits of them.
#
# needs     the manifest, the train and circuit splits, the last checkpoint of a run; scores of the base model, of the last
#           checkpoint and of untrained models
# makes     circuits/.../ perturbed/scores.safetensors of the base model and of each last checkpoint;
#           drift/{model}/{task}/{method}/seed-{seed}/ robustness.parquet; drift/{model}/{task}/ untrained_robustness.parquet
# steps     score_perturbed (_base, _given), where drift.perturbed_draws is not 0; measure_robustness (_given);
#           measure_untrained_robustness


rule score_perturbed_base:
    """Score edges from fresh prompts."""
    input:
        manifest=layout.manifest,
        train=layout.train,
        circuit=layout.circuit,
        checkpoints=[],
    output:
        scores=layout.base_circuit.perturbed_scores,
    log:
        "<logs>/score_perturbed/{model}/{task}/base.log",
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=240,
    params:
        recipe=settings(study.config.circuit.recipe()),
        device=study.config.execution.device,
        code=code_of("score_perturbed"),
    script:
        "../workflow_scripts/score_perturbed.py"


use rule score_perturbed_base as score_perturbed with:
    input:
        manifest=layout.manifest,
        train=layout.train,
        circuit=layout.circuit,
        checkpoints=layout.checkpoint(study.checkpoints[-1]),
    output:
        scores=study.circuits[-1].perturbed_scores,
    log:
        "<logs>/score_perturbed/{model}/{task}/{method}/seed-{seed}.log",


use rule score_perturbed_base as score_perturbed_given with:
    input:
        manifest=layout.manifest,
        train=layout.train,
        circuit=layout.circuit,
        checkpoints=layout.given_checkpoint,
    output:
        scores=layout.given_circuit.perturbed_scores,
    log:
        "<logs>/score_perturbed/{model}/{task}/{method}/seed-{seed}/{checkpoint}.log",
    wildcard_constraints:
        **OF_GIVEN_CHECKPOINT,


rule measure_robustness:
    """Measure how alike circuits stay when prompts are replaced."""
    input:
        scores=[study.circuits[place].scores for place in (0, -1)],
        perturbed_scores=[
            study.circuits[place].perturbed_scores for place in (0, -1) if study.config.drift.perturbed_draws
        ],
    output:
        robustness=layout.drift.robustness,
    log:
        "<logs>/measure_robustness/{model}/{task}/{method}/seed-{seed}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_for(1500, 16000),
        runtime=120,
    params:
        choice=settings(study.config.circuit.choice()),
        perturbed_draws=study.config.drift.perturbed_draws,
        disjoint_splits=study.config.drift.disjoint_splits,
        code=code_of("measure_robustness"),
    script:
        "../workflow_scripts/measure_robustness.py"


use rule measure_robustness as measure_robustness_given with:
    input:
        scores=of_given_circuits("scores", 0, -1),
        perturbed_scores=of_given_circuits("perturbed_scores", 0, -1) if study.config.drift.perturbed_draws else [],
    wildcard_constraints:
        **OF_GIVEN_RUN,


rule measure_untrained_robustness:
    """Measure how alike circuits of untrained models are over disjoint splits."""
    input:
        scores=study.untrained_scores,
    output:
        untrained_robustness=layout.untrained_robustness,
    log:
        "<logs>/measure_untrained_robustness/{model}/{task}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_for(1500, 16000),
        runtime=120,
    params:
        choice=settings(study.config.circuit.choice()),
        disjoint_splits=study.config.drift.disjoint_splits,
        code=code_of("measure_untrained_robustness"),
    script:
        "../workflow_scripts/measure_untrained_robustness.py"
