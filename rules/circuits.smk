# Circuits: score every edge, select, measure faithfulness. For each stage one rule for the base model, which all
# methods and seeds share, and one for each group of checkpoints that a job takes (execution.checkpoints_per_job).
for job in study.circuit_jobs:

    rule:
        name:
            f"score_edges_{job.name}"
        input:
            manifest=study.manifest,
            examples=f"{study.data}/circuit.parquet",
            checkpoints=job.checkpoints,
        output:
            scores=job.files("scores.safetensors"),
        log:
            f"<logs>/score_edges/{job.log_name}.log",
        benchmark:
            job.scoring_benchmark
        conda:
            "../environment.yml"
        threads: threads_for
        resources:
            mem_mb=memory_for(2000, 16000),
            runtime=240,
        params:
            recipe=settings(study.config.circuit.recipe()),
            device=study.config.execution.device,
            provenance=code_of("score_edges"),
        script:
            "../workflow_scripts/score_edges.py"

    if study.config.circuit.selection == "minimal":

        rule:
            name:
                f"select_minimal_circuits_{job.name}"
            input:
                manifest=study.manifest,
                examples=f"{study.data}/circuit.parquet",
                scores=job.files("scores.safetensors"),
                checkpoints=job.checkpoints,
            output:
                edges=job.files("edges.parquet"),
                nodes=job.files("nodes.parquet"),
            log:
                f"<logs>/select_minimal_circuits/{job.log_name}.log",
            conda:
                "../environment.yml"
            threads: threads_for
            resources:
                mem_mb=memory_for(2000, 16000),
                runtime=240,
            params:
                measure=settings(study.config.faithfulness),
                wanted=study.config.circuit.wanted_faithfulness,
                device=study.config.execution.device,
                provenance=code_of("select_minimal_circuits"),
            script:
                "../workflow_scripts/select_minimal_circuits.py"

    else:

        rule:
            name:
                f"select_circuits_{job.name}"
            input:
                scores=job.files("scores.safetensors"),
            output:
                edges=job.files("edges.parquet"),
                nodes=job.files("nodes.parquet"),
            log:
                f"<logs>/select_circuits/{job.log_name}.log",
            conda:
                "../environment.yml"
            resources:
                mem_mb=memory_for(1500, 8000),
                runtime=30,
            params:
                choice=settings(study.config.circuit.choice()),
                provenance=code_of("select_circuits"),
            script:
                "../workflow_scripts/select_circuits.py"

    rule:
        name:
            f"measure_faithfulness_{job.name}"
        input:
            manifest=study.manifest,
            examples=f"{study.data}/circuit.parquet",
            edges=job.files("edges.parquet"),
            checkpoints=job.checkpoints,
        output:
            faithfulness=job.files("faithfulness.parquet"),
            areas=job.files("faithfulness_areas.parquet"),
        log:
            f"<logs>/measure_faithfulness/{job.log_name}.log",
        conda:
            "../environment.yml"
        threads: threads_for
        resources:
            mem_mb=memory_for(2000, 16000),
            runtime=240,
        params:
            measure=settings(study.config.faithfulness),
            choice=settings(study.config.circuit.choice()),
            device=study.config.execution.device,
            provenance=code_of("measure_faithfulness"),
        script:
            "../workflow_scripts/measure_faithfulness.py"


rule circuits:
    input:
        study.all_circuit_files("faithfulness.parquet"),
