# The search for learning rates (section learning_rate_search): one job for each model, task and method.
#
# needs     the manifest, the train split; the allocated ranks of the methods that have them, for the first seed
# makes     learning_rates/{model}/{task}/{method}/trials.parquet, only where learning_rate_search.rates is given
# steps     search_learning_rate


rule search_learning_rate:
    """Try learning rates on held-out train prompts."""
    input:
        manifest=layout.manifest,
        train=layout.train,
        adapter_config=ranks_of_search,
    output:
        trials=layout.trials,
    log:
        "<logs>/search_learning_rate/{model}/{task}/{method}.log",
    conda:
        "../environment.yml"
    threads: threads_for
    resources:
        mem_mb=memory_for(2000, 16000),
        runtime=240 * max(1, len(study.config.learning_rate_search.rates)),
    params:
        method=method_settings,
        # A trial takes only its last checkpoint, so another number of checkpoints must not repeat the search.
        training=settings(study.config.training) | {"checkpoints": 1},
        search=settings(study.config.learning_rate_search),
        device=study.config.execution.device,
        code=code_of("search_learning_rate"),
    script:
        "../workflow_scripts/search_learning_rate.py"


rule learning_rates:
    """Search the learning rate of every method, where the config asks for it."""
    input:
        when_planned(study.of_runs, layout.trials, study.tuned_runs),
