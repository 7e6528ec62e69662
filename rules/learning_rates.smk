# The search for learning rates (section learning_rate_search): one job for each model, task and method, with all of its
# trials. Where the section is off, nothing asks for its files.


rule search_learning_rate:
    input:
        manifest=study.manifest,
        train=f"{study.data}/train.parquet",
        adapter_config=ranks_of_search,
    output:
        trials=study.trials,
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
        # A trial takes no checkpoint but its last, so that their number must not make the search run again.
        training=settings(study.config.training) | {"checkpoints": 1},
        search=settings(study.config.learning_rate_search),
        device=study.config.execution.device,
        provenance=code_of("search_learning_rate"),
    script:
        "../workflow_scripts/search_learning_rate.py"


rule learning_rates:
    input:
        study.of_runs(study.trials, study.tuned_runs),
