# Exchange with other tools: circuits made elsewhere come in (imports) and go the way of a phase 1, drift and critical
# layers and ranks; the study's own circuits go out (exports).
for imported in study.config.imports:

    rule:
        name:
            f"import_circuits_{imported}"
        input:
            files=[str(path) for path in study.config.imports[imported].checkpoints.values()],
        output:
            edges=study.imported_files(imported, "edges.parquet"),
            nodes=study.imported_files(imported, "nodes.parquet"),
        log:
            "<logs>/import_circuits/{name}.log",
        wildcard_constraints:
            name=re.escape(imported),
        conda:
            "../environment.yml"
        resources:
            mem_mb=8000,
            runtime=30,
        params:
            labels=list(study.config.imports[imported].checkpoints),
            provenance=code_of("import_circuits"),
        script:
            "../workflow_scripts/import_circuits.py"


rule compare_circuits_imported:
    input:
        edges=lambda wildcards: imported_tables(wildcards, "edges.parquet"),
        nodes=lambda wildcards: imported_tables(wildcards, "nodes.parquet"),
    output:
        transitions=f"{study.imported_drift}/transitions.parquet",
        summary=f"{study.imported_drift}/summary.parquet",
        layers=f"{study.imported_drift}/layers.parquet",
    log:
        "<logs>/compare_circuits/imported/{name}.log",
    wildcard_constraints:
        name=one_of(study.config.imports),
    conda:
        "../environment.yml"
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        provenance=code_of("compare_circuits"),
    script:
        "../workflow_scripts/compare_circuits.py"


rule rank_layers_imported:
    input:
        layers=f"{study.imported_drift}/layers.parquet",
    output:
        critical_layers=f"{study.imported_allocation}/critical_layers.parquet",
    log:
        "<logs>/rank_layers/imported/{name}.log",
    wildcard_constraints:
        name=one_of(study.config.imports),
    conda:
        "../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        method=lambda wildcards: settings(study.config.imports[wildcards.name].as_method(wildcards.name)),
        provenance=code_of("rank_layers"),
    script:
        "../workflow_scripts/rank_layers.py"


rule allocate_imported_ranks:
    input:
        edges=f"{study.imported_circuits}/00/edges.parquet",
        critical_layers=f"{study.imported_allocation}/critical_layers.parquet",
    output:
        adapter_config=f"{study.imported_allocation}/adapter_config.json",
    log:
        "<logs>/allocate_imported_ranks/{name}.log",
    wildcard_constraints:
        name=one_of(study.config.imports),
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        imported=lambda wildcards: settings(study.config.imports[wildcards.name]),
        training=settings(study.config.training),
        provenance=code_of("allocate_imported_ranks"),
    script:
        "../workflow_scripts/allocate_imported_ranks.py"


for job in study.circuit_jobs:

    rule:
        name:
            f"export_circuits_{job.name}"
        input:
            manifest=study.manifest,
            edges=job.files("edges.parquet"),
            nodes=job.files("nodes.parquet"),
        output:
            importances=job.files("exchange/{task}_{model}/importances.json"),
            graphml=job.files("exchange/circuit.graphml"),
        log:
            f"<logs>/export_circuits/{job.log_name}.log",
        conda:
            "../environment.yml"
        resources:
            mem_mb=memory_for(1500, 8000),
            runtime=60,
        params:
            provenance=code_of("export_circuits"),
        script:
            "../workflow_scripts/export_circuits.py"


rule imports:
    input:
        study.of_imports(f"{study.imported_drift}/summary.parquet"),
        study.of_imports(f"{study.imported_allocation}/adapter_config.json"),


rule exports:
    input:
        study.all_circuit_files("exchange/{task}_{model}/importances.json"),
        study.all_circuit_files("exchange/circuit.graphml"),
