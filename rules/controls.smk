# Controls: the edges of models without fine-tuning, scored from other prompts or without any training at all.
#
# needs     the manifest, the circuit split, and its second wording where the task has one
# makes     circuits/{model}/{task}/ base/kinds/scores_by_kind.safetensors, each kind of prompt alone;
#           base/reworded/scores.safetensors, the circuit split in its second wording; untrained/seed-{seed}/
#           scores.safetensors, untrained models
# steps     score_controls (_reworded, for tasks that have a second wording); score_untrained


rule score_controls:
    """Score the base model's edges by kind of prompt and in another wording."""
    input:
        manifest=layout.manifest,
        examples=layout.circuit,
        examples_reworded=[],
    output:
        scores_by_kind=layout.scores_by_kind,
        scores_reworded=[],
    log:
        "<logs>/score_controls/{model}/{task}.log",
    wildcard_constraints:
        task=one_of(sorted(set(study.config.tasks) - set(study.reworded_tasks))),
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=240,
    params:
        recipe=settings(study.config.circuit.recipe()),
        device=study.config.execution.device,
        code=code_of("score_controls"),
    script:
        "../workflow_scripts/score_controls.py"


use rule score_controls as score_controls_reworded with:
    input:
        manifest=layout.manifest,
        examples=layout.circuit,
        examples_reworded=layout.circuit_reworded,
    output:
        scores_by_kind=layout.scores_by_kind,
        scores_reworded=layout.reworded_scores,
    wildcard_constraints:
        task=one_of(study.reworded_tasks),


if study.untrained_seeds:

    rule score_untrained:
        """Score the edges of untrained models."""
        input:
            manifest=layout.manifest,
            examples=layout.circuit,
        output:
            scores=study.untrained_scores,
        log:
            "<logs>/score_untrained/{model}/{task}.log",
        conda:
            "../environment.yml"
        threads: threads_for
        resources:
            mem_mb=memory_for(2000, 16000),
            runtime=240,
        params:
            seeds=study.untrained_seeds,
            recipe=settings(study.config.circuit.recipe()),
            device=study.config.execution.device,
            code=code_of("score_untrained"),
        script:
            "../workflow_scripts/score_untrained.py"
