# Exchange with other tools: circuits made elsewhere are treated like those of a phase 1; the study's own go out.
#
# needs     the files that the section `imports` names; for exports the manifest, and edges and nodes of all circuits
# makes     circuits/imported/, drift/imported/, allocation/imported/; exchange/ beside each of the study's circuits
# steps     imports: import_circuits, one rule for each import; compare_circuits_imported; allocate_imported_ranks
#           exports: export_circuits, one rule for each circuit job
for imported in study.config.imports:

    rule:
        """Read circuits made elsewhere."""
        name:
            f"import_circuits_{imported}"
        input:
            files=[str(path) for path in study.config.imports[imported].checkpoints.values()],
        output:
            edges=[circuit.edges for circuit in study.imported_circuits(imported)],
            nodes=[circuit.nodes for circuit in study.imported_circuits(imported)],
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
            code=code_of("import_circuits"),
        script:
            "../workflow_scripts/import_circuits.py"

    del imported


rule compare_circuits_imported:
    """Compare the circuits of an import."""
    input:
        edges=imported_edges,
        nodes=imported_nodes,
    output:
        transitions=layout.imported_drift.transitions,
        summary=layout.imported_drift.summary,
        layers=layout.imported_drift.layers,
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
        code=code_of("compare_circuits"),
    script:
        "../workflow_scripts/compare_circuits.py"


rule allocate_imported_ranks:
    """Order the layers by the drift of imported circuits and give ranks to the first."""
    input:
        edges=layout.imported_circuit(BASE_CHECKPOINT).edges,
        layers=layout.imported_drift.layers,
    output:
        critical_layers=layout.imported_allocation.critical_layers,
        adapter_config=layout.imported_allocation.adapter_config,
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
        code=code_of("allocate_imported_ranks"),
    script:
        "../workflow_scripts/allocate_imported_ranks.py"


for job in study.circuit_jobs:

    rule:
        """Write circuits in the formats of other tools."""
        name:
            f"export_circuits_{job.name}"
        input:
            manifest=layout.manifest,
            edges=[circuit.edges for circuit in job.circuits],
            nodes=[circuit.nodes for circuit in job.circuits],
        output:
            importances=[circuit.importances for circuit in job.circuits],
            merged=[circuit.merged for circuit in job.circuits],
            graphml=[circuit.graphml for circuit in job.circuits],
        log:
            f"<logs>/export_circuits/{job.log_name}.log",
        conda:
            "../environment.yml"
        resources:
            mem_mb=memory_for(1500, 8000),
            runtime=60,
        params:
            code=code_of("export_circuits"),
        script:
            "../workflow_scripts/export_circuits.py"

    del job


rule imports:
    """Import circuits made elsewhere, compare them and allocate ranks."""
    input:
        study.of_imports(layout.imported_drift.summary),
        study.of_imports(layout.imported_allocation.adapter_config),


rule exports:
    """Write every circuit in the formats of other tools."""
    input:
        when_planned(study.of_drift_runs, "importances"),
        when_planned(study.of_drift_runs, "merged"),
        when_planned(study.of_drift_runs, "graphml"),
        when_planned(study.of_pairs, layout.base_circuit.importances, study.untouched),
        when_planned(study.of_pairs, layout.base_circuit.merged, study.untouched),
        when_planned(study.of_pairs, layout.base_circuit.graphml, study.untouched),
