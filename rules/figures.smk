# Figures, each with the table it is drawn from. A change of style redraws them and does nothing else.
FIGURES = f"{study.results}/figures"

accuracies = study.of_runs(f"{study.run}/accuracy.parquet", study.runs)
transitions = study.of_runs(f"{study.drift}/transitions.parquet", study.drift_runs)
summaries = study.of_runs(f"{study.drift}/summary.parquet", study.drift_runs)
layers = study.of_runs(f"{study.drift}/layers.parquet", study.drift_runs)
controls = study.of_runs(study.controls, study.drift_runs)
faithfulness = study.all_circuit_files("faithfulness.parquet")
first_circuits, last_circuits = study.shown_circuits


rule plot_accuracy_and_faithfulness:
    input:
        accuracy=accuracies,
        faithfulness=faithfulness,
    output:
        **figure_files("accuracy_and_faithfulness", "Training"),
    log:
        "<logs>/plot_accuracy_and_faithfulness.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        style=settings(study.config.figures),
        provenance=code_of("plot_accuracy_and_faithfulness"),
    script:
        "../workflow_scripts/plot_accuracy_and_faithfulness.py"


rule plot_faithfulness_by_size:
    input:
        faithfulness=study.base_and_last_circuit_files("faithfulness.parquet"),
    output:
        **figure_files("faithfulness_by_size", "Circuits"),
    log:
        "<logs>/plot_faithfulness_by_size.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        style=settings(study.config.figures),
        provenance=code_of("plot_faithfulness_by_size"),
    script:
        "../workflow_scripts/plot_faithfulness_by_size.py"


rule plot_transition_changes:
    input:
        transitions=transitions,
    output:
        **figure_files("transition_changes", "Drift"),
    log:
        "<logs>/plot_transition_changes.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        style=settings(study.config.figures),
        provenance=code_of("plot_transition_changes"),
    script:
        "../workflow_scripts/plot_transition_changes.py"


rule plot_change_rates:
    input:
        summary=summaries,
        controls=controls,
    output:
        **figure_files("change_rates", "Drift"),
    log:
        "<logs>/plot_change_rates.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        style=settings(study.config.figures),
        provenance=code_of("plot_change_rates"),
    script:
        "../workflow_scripts/plot_change_rates.py"


rule plot_layer_changes:
    input:
        layers=layers,
    output:
        **figure_files("layer_changes", "Drift"),
    log:
        "<logs>/plot_layer_changes.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        top_layers=study.critical_layers,
        style=settings(study.config.figures),
        provenance=code_of("plot_layer_changes"),
    script:
        "../workflow_scripts/plot_layer_changes.py"


rule plot_circuit_before_after:
    input:
        before_edges=f"{first_circuits}/edges.parquet",
        after_edges=f"{last_circuits}/edges.parquet",
        before_nodes=f"{first_circuits}/nodes.parquet",
        after_nodes=f"{last_circuits}/nodes.parquet",
    output:
        **figure_files("circuit_before_after", "Circuits"),
    log:
        "<logs>/plot_circuit_before_after.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        style=settings(study.config.figures),
        provenance=code_of("plot_circuit_before_after"),
    script:
        "../workflow_scripts/plot_circuit_before_after.py"


rule plot_method_accuracy:
    input:
        accuracy=accuracies,
    output:
        **figure_files("method_accuracy", "Methods"),
    log:
        "<logs>/plot_method_accuracy.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        style=settings(study.config.figures),
        provenance=code_of("plot_method_accuracy"),
    script:
        "../workflow_scripts/plot_method_accuracy.py"


rule plot_explorer:
    input:
        accuracy=accuracies,
        faithfulness=faithfulness,
        transitions=transitions,
        layers=layers,
    output:
        html=report(
            f"{FIGURES}/explorer.html",
            caption="../docs/captions/explorer.rst",
            category="Explorer",
            labels={"figure": "interactive explorer"},
        ),
    log:
        "<logs>/plot_explorer.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        study=study.config.study,
        fraction=study.config.circuit.fraction,
        style=settings(study.config.figures),
        provenance=code_of("plot_explorer"),
    script:
        "../workflow_scripts/plot_explorer.py"


rule figures:
    input:
        [f"{FIGURES}/{name}.svg" for name in study.figures],
        [f"{FIGURES}/explorer.html"] if study.drift_runs else [],
