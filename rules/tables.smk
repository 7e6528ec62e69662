# Tables, as csv, Markdown and LaTeX.
rule tabulate_method_accuracy:
    input:
        accuracy=accuracies,
    output:
        **table_files("method_accuracy"),
    log:
        "<logs>/tabulate_method_accuracy.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code_of("tabulate_method_accuracy"),
    script:
        "../workflow_scripts/tabulate_method_accuracy.py"


rule tabulate_change_rates:
    input:
        summary=summaries,
        controls=controls,
    output:
        **table_files("change_rates"),
    log:
        "<logs>/tabulate_change_rates.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code_of("tabulate_change_rates"),
    script:
        "../workflow_scripts/tabulate_change_rates.py"


rule tabulate_critical_layers:
    input:
        critical_layers=study.of_runs(layout.allocation.critical_layers, study.allocated_runs),
    output:
        **table_files("critical_layers"),
    log:
        "<logs>/tabulate_critical_layers.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code_of("tabulate_critical_layers"),
    script:
        "../workflow_scripts/tabulate_critical_layers.py"


rule tabulate_base_accuracy:
    input:
        accuracy=accuracies,
        test=study.of_runs(layout.test, study.runs),
    output:
        **table_files("base_accuracy"),
    log:
        "<logs>/tabulate_base_accuracy.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code_of("tabulate_base_accuracy"),
    script:
        "../workflow_scripts/tabulate_base_accuracy.py"


rule tabulate_faithfulness_areas:
    input:
        areas=study.of_drift_runs(circuit.faithfulness_areas for circuit in (study.circuits[0], study.circuits[-1])),
    output:
        **table_files("faithfulness_areas"),
    log:
        "<logs>/tabulate_faithfulness_areas.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code_of("tabulate_faithfulness_areas"),
    script:
        "../workflow_scripts/tabulate_faithfulness_areas.py"


rule tabulate_training_cost:
    input:
        accuracy=accuracies,
        training_log=study.of_runs(layout.training_log, study.runs),
        benchmarks=study.of_runs(layout.benchmark, study.runs),
        scoring_benchmarks=[path for _, path in study.phase_1_scorings],
    output:
        **table_files("training_cost"),
    log:
        "<logs>/tabulate_training_cost.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        benchmarked=[asdict(run) for run in study.runs],
        scored=[asdict(run) for run, _ in study.phase_1_scorings],
        phase_1=study.phase_1,
        code=code_of("tabulate_training_cost"),
    script:
        "../workflow_scripts/tabulate_training_cost.py"


rule tabulate_learning_rates:
    input:
        trials=study.of_runs(layout.trials, study.tuned_runs),
    output:
        **table_files("learning_rates"),
    log:
        "<logs>/tabulate_learning_rates.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code_of("tabulate_learning_rates"),
    script:
        "../workflow_scripts/tabulate_learning_rates.py"


rule tables:
    input:
        [layout.table(name, "csv") for name in study.tables],
