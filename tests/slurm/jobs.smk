# Jobs that do next to nothing, to see what Snakemake and SLURM make of their ends and of their cards.


def more_each_time(wildcards, attempt):
    return 500 * attempt


# Too large for its first attempt. It stays for a while, because SLURM looks at memory once a second.
rule hungry:
    output:
        "hungry.txt",
    resources:
        mem_mb=more_each_time,
        runtime=5,
    shell:
        "python3 -c 'import time; filling = bytearray(700_000_000); time.sleep(6)' && echo fed > {output}"


# Fails once, for a reason of its own.
rule unlucky:
    output:
        "unlucky.txt",
    resources:
        mem_mb=more_each_time,
        runtime=5,
    shell:
        "if [ -e unlucky.once ]; then echo lucky > {output}; else touch unlucky.once; exit 1; fi"


# Waits for the file `enough`; one attempt.
rule patient:
    output:
        "patient.txt",
    retries: 0
    resources:
        mem_mb=500,
        runtime=5,
    shell:
        "touch patient.started; until [ -e enough ]; do sleep 0.2; done; echo done > {output}"


rule endless:
    output:
        "endless.txt",
    retries: 0
    resources:
        mem_mb=500,
        runtime=1,
    shell:
        "sleep 600; echo never > {output}"


rule on_a_gpu:
    output:
        "gpu/{number}.txt",
    resources:
        gpu=1,
        mem_mb=500,
        runtime=5,
    shell:
        "date +%s.%N > {output}; echo $CUDA_VISIBLE_DEVICES >> {output}; sleep 3; date +%s.%N >> {output}"


use rule on_a_gpu as on_a_generic_resource with:
    output:
        "gres/{number}.txt",
    resources:
        gres="gpu:1",
        mem_mb=500,
        runtime=5,


rule asleep:
    output:
        "asleep/{number}.txt",
    params:
        seconds=float(config.get("seconds", 1)),
    resources:
        mem_mb=500,
        runtime=10,
    shell:
        "date +%s.%N > {output}; sleep {params.seconds}; date +%s.%N >> {output}"
