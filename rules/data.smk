# Data: clean and corrupted prompts of each task, in the model's own tokens.
#
# needs     the manifest; the prompt file of a task that has one
# makes     data/{model}/{task}/ train.parquet, circuit.parquet, test.parquet: three disjoint splits; and
#           circuit_reworded.parquet, the circuit split in the second wording of a task that has one;
#           models/{model}/checked.json, once the model fits the study and the data of all its tasks are there
# steps     generate_data; reword_circuit; check_model, which every training waits for


rule generate_data:
    input:
        manifest=layout.manifest,
        prompts=lambda wildcards: study.prompt_files.get(wildcards.task, []),
    output:
        train=layout.train,
        circuit=layout.circuit,
        test=layout.test,
    log:
        "<logs>/generate_data/{model}/{task}.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        task=task_settings,
        parent=lambda wildcards: study.parent_of(wildcards.task),
        folds=study.config.circuit.folds,
        code=code_of("generate_data"),
    script:
        "../workflow_scripts/generate_data.py"


rule reword_circuit:
    input:
        manifest=layout.manifest,
        circuit=layout.circuit,
    output:
        reworded=layout.circuit_reworded,
    log:
        "<logs>/reword_circuit/{model}/{task}.log",
    wildcard_constraints:
        task=one_of(study.reworded_tasks),
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        task=task_settings,
        code=code_of("reword_circuit"),
    script:
        "../workflow_scripts/reword_circuit.py"


# A training waits for the data of every task of its model, so that text which the tokenizer does not take is found before
# any of them starts. It takes the file as ancient(): with a new task it is made again, and nothing is trained again.
rule check_model:
    input:
        lambda wildcards: study.data_of(wildcards.model),
        manifest=layout.manifest,
    output:
        checked=layout.checked,
    log:
        "<logs>/check_model/{model}.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        methods={name: settings(method) for name, method in study.config.methods.items()},
        choice=settings(study.config.circuit.choice()),
        code=code_of("check_model"),
    script:
        "../workflow_scripts/check_model.py"


rule data:
    input:
        study.of_runs(layout.test, study.runs),
