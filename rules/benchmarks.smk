# Benchmarks: ratios within one run on the machine at hand; see docs/benchmarks.md. A study's own pretrained models are
# measured too, on the prompts of its first task.
benchmarked = {
    model: next(iter(study.config.tasks))
    for model in study.models_from("hub", "local", "package")
    if study.config.tasks
}


rule benchmark_attribution:
    input:
        manifests=[study.manifest.format(model=model) for model in benchmarked],
        examples=[f"{study.data}/circuit.parquet".format(model=m, task=t) for m, t in benchmarked.items()],
    output:
        table=f"{study.results}/benchmarks/attribution.md",
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
    input:
        manifests=[study.manifest.format(model=model) for model in benchmarked],
    output:
        table=f"{study.results}/benchmarks/training.md",
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
