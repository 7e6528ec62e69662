# Data: clean and corrupted prompts of each task, in the model's own tokens.
#
# needs     the manifest; the prompt file of a task that has one
# makes     data/{model}/{task}/ train.parquet, circuit.parquet, test.parquet: three disjoint splits;
#           circuit_reworded.parquet, the circuit split in the second wording of a task that has one; and dropped.parquet,
#           the rows of a task file that are left out, of a task with invalid_rows: drop
# steps     generate_data, before other jobs that are ready: text that a tokenizer does not take is found before trainings
#           start; generate_data_reworded, the same for the tasks that have a second wording; generate_data_dropping, for
#           those that leave out rows


rule generate_data:
    """Make the three splits of a task in a model's tokens."""
    input:
        manifest=layout.manifest,
        prompts=lambda wildcards: study.prompt_files.get(wildcards.task, []),
    output:
        train=layout.train,
        circuit=layout.circuit,
        test=layout.test,
        circuit_reworded=[],
        dropped=[],
    log:
        "<logs>/generate_data/{model}/{task}.log",
    wildcard_constraints:
        task=one_of(sorted(set(study.config.tasks) - set(study.reworded_tasks) - set(study.dropping_tasks))),
    priority: 50
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


use rule generate_data as generate_data_reworded with:
    output:
        train=layout.train,
        circuit=layout.circuit,
        test=layout.test,
        circuit_reworded=layout.circuit_reworded,
        dropped=[],
    wildcard_constraints:
        task=one_of(study.reworded_tasks),


use rule generate_data as generate_data_dropping with:
    output:
        train=layout.train,
        circuit=layout.circuit,
        test=layout.test,
        circuit_reworded=[],
        dropped=layout.dropped,
    wildcard_constraints:
        task=one_of(study.dropping_tasks),


rule data:
    """Make the prompts of every task."""
    input:
        when_planned(study.of_runs, layout.test, study.all_runs),
        when_planned(study.of_pairs, layout.test, study.untouched),
        when_planned(study.of_pairs, layout.dropped, study.dropping),
