# Recipes: the base model's circuit by other ways to score edges, beside the study's own. Without section `recipes` the
# own one alone, of models that are not trained.
#
# needs     the manifest, the circuit split, the test split, the base model's scores
# makes     circuits/{model}/{task}/base/recipes/{recipe}/scores.safetensors; recipes/{model}/{task}/
#           recipe_reliability.parquet, recipe_faithfulness.parquet, recipe_areas.parquet
# steps     score_edges_by_recipe; measure_recipe_reliability; measure_recipe_faithfulness


rule score_edges_by_recipe:
    """Score the base model's edges by another recipe."""
    input:
        manifest=layout.manifest,
        examples=layout.circuit,
        checkpoints=[],
    output:
        scores=[layout.recipe_circuit.scores],
        benchmark=layout.recipe_circuit.scoring_benchmark,
    log:
        "<logs>/score_edges_by_recipe/{model}/{task}/{recipe}.log",
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=240,
    params:
        recipe=recipe_settings,
        device=study.config.execution.device,
        code=code_of("score_edges"),
    script:
        "../workflow_scripts/score_edges.py"


rule measure_recipe_reliability:
    """Measure the reliability of circuits by each recipe."""
    input:
        scores=[circuit.scores for circuit in study.recipes.values()],
    output:
        reliability=layout.recipes.reliability,
    log:
        "<logs>/measure_recipe_reliability/{model}/{task}.log",
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_for(1500, 16000),
        runtime=120,
    params:
        recipes=list(study.recipes),
        choice=settings(study.config.circuit.choice()),
        half_splits=study.config.drift.half_splits,
        code=code_of("measure_recipe_reliability"),
    script:
        "../workflow_scripts/measure_recipe_reliability.py"


rule measure_recipe_faithfulness:
    """Measure the faithfulness of circuits by each recipe."""
    input:
        manifest=layout.manifest,
        examples=layout.test,
        scores=[circuit.scores for circuit in study.recipes.values()],
    output:
        faithfulness=layout.recipes.faithfulness,
        areas=layout.recipes.areas,
    log:
        "<logs>/measure_recipe_faithfulness/{model}/{task}.log",
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=240,
    params:
        recipes=list(study.recipes),
        measure=settings(study.config.faithfulness),
        choice=settings(study.config.circuit.choice()),
        device=study.config.execution.device,
        code=code_of("measure_recipe_faithfulness"),
    script:
        "../workflow_scripts/measure_recipe_faithfulness.py"


rule recipes:
    """Compare ways to score edges, where the config asks for it."""
    input:
        when_planned(study.of_pairs, layout.recipes.reliability, study.recipe_pairs),
        when_planned(study.of_pairs, layout.recipes.faithfulness, study.recipe_pairs),
