# Benchmarks: ratios of times measured on the machine at hand; see docs/benchmarks.md.
#
# needs     manifests of the study's pretrained models, and their circuit split of the study's first task
# makes     benchmarks/attribution.md, benchmarks/training.md, benchmarks/startup.md
# steps     benchmark_attribution, benchmark_training, benchmark_startup: each only when it, or benchmark, is named as the
#           target
benchmarked = {
    model: next(iter(study.config.tasks))
    for model in study.models_from("hub", "local", "package")
    if study.config.tasks
}


rule benchmark_attribution:
    """Measure the attribution of edges beside bare passes."""
    input:
        manifests=[layout.manifest.format(model=model) for model in benchmarked],
        examples=[layout.circuit.format(model=m, task=t) for m, t in benchmarked.items()],
    output:
        table=layout.attribution_benchmark,
    log:
        "<logs>/benchmark_attribution.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=13000,
        runtime=240,
    params:
        benchmark=ROOT / "benchmarks" / "attribution.py",
        models=lambda wildcards, input: [
            word for paths in zip(input.manifests, input.examples) for word in ("--model", *paths)
        ],
    shell:
        "python {params.benchmark:q} {params.models:q} --output {output.table:q} > {log:q} 2>&1"


rule benchmark_training:
    """Measure the training loop beside Hugging Face's Trainer."""
    input:
        manifests=[layout.manifest.format(model=model) for model in benchmarked],
    output:
        table=layout.training_benchmark,
    log:
        "<logs>/benchmark_training.log",
    conda:
        "../environment.yml"
    threads: 2
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        benchmark=ROOT / "benchmarks" / "training.py",
        models=lambda wildcards, input: [word for path in input.manifests for word in ("--model-manifest", path)],
    shell:
        "python {params.benchmark:q} {params.models:q} --threads 1 {threads} --output {output.table:q} > {log:q} 2>&1"


rule benchmark_startup:
    """Measure the start of jobs."""
    output:
        table=layout.startup_benchmark,
    log:
        "<logs>/benchmark_startup.log",
    conda:
        "../environment.yml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        benchmark=ROOT / "benchmarks" / "startup.py",
    shell:
        "python {params.benchmark:q} --output {output.table:q} > {log:q} 2>&1"


rule benchmark:
    """Run the three benchmarks on this machine."""
    input:
        layout.attribution_benchmark,
        layout.training_benchmark,
        layout.startup_benchmark,
