# Figures, each with the table it is drawn from. A change of style redraws them and does nothing else.
accuracies = study.of_runs(layout.accuracy, study.runs)
transitions = study.of_runs(layout.drift.transitions, study.drift_runs)
summaries = study.of_runs(layout.drift.summary, study.drift_runs)
layers = study.of_runs(layout.drift.layers, study.drift_runs)
controls = study.of_runs(layout.controls, study.drift_runs)
faithfulness = study.of_drift_runs(circuit.faithfulness for circuit in study.circuits)
first_circuit, last_circuit = map(CircuitFiles, study.shown_circuits)


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
        code=code_of("plot_accuracy_and_faithfulness"),
    script:
        "../workflow_scripts/plot_accuracy_and_faithfulness.py"


rule plot_faithfulness_by_size:
    input:
        faithfulness=study.of_drift_runs(circuit.faithfulness for circuit in (study.circuits[0], study.circuits[-1])),
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
        code=code_of("plot_faithfulness_by_size"),
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
        code=code_of("plot_transition_changes"),
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
        code=code_of("plot_change_rates"),
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
        code=code_of("plot_layer_changes"),
    script:
        "../workflow_scripts/plot_layer_changes.py"


rule plot_circuit_before_after:
    input:
        before_edges=first_circuit.edges,
        after_edges=last_circuit.edges,
        before_nodes=first_circuit.nodes,
        after_nodes=last_circuit.nodes,
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
        code=code_of("plot_circuit_before_after"),
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
        code=code_of("plot_method_accuracy"),
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
            layout.explorer,
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
        code=code_of("plot_explorer"),
    script:
        "../workflow_scripts/plot_explorer.py"


rule figures:
    input:
        [layout.figure(name, "svg") for name in study.figures],
        [layout.explorer] if study.drift_runs else [],
