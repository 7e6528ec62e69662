# Benchmarks: ratios within one run on the machine at hand; see docs/benchmarks.md.


rule benchmark_attribution:
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
        benchmark=Path(workflow.basedir) / "benchmarks" / "attribution.py",
    shell:
        "python {params.benchmark:q} --output {output.table:q} > {log:q} 2>&1"


rule benchmark_training:
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
        benchmark=Path(workflow.basedir) / "benchmarks" / "training.py",
    shell:
        "python {params.benchmark:q} --threads 1 {threads} --output {output.table:q} > {log:q} 2>&1"
