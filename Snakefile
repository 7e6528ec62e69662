# CircuitDrift: fine-tune -> extract circuits -> measure drift -> spend ranks where it is -> figures.
#
#   snakemake --cores 2                                      the default study, config.yaml
#   snakemake --cores 2 --configfile configs/smoke.yaml      another study; its file stands alone
#   snakemake --cores 2 report                               the same, and the report of it
#   snakemake --cores 2 circuits                             up to one stage: models data learning_rates train circuits
#                                                            drift composition recipes circuitlora figures tables
#                                                            imports exports
#   snakemake --cores 2 paper                                every figure and table, and the verdicts on the paper's claims
#   snakemake --cores 2 plan                                 what is left to do will take: hours, memory, files, disk
#   snakemake --list-target-rules                            all targets, with a sentence for each
#   snakemake --cores 2 results/embedded/figures/change_rates.svg      or any single file
from snakemake.utils import min_version

min_version("9.12")  # pathvars


report: "docs/captions/workflow.rst"


include: "rules/reruns.smk"
include: "rules/common.smk"
include: "rules/inputs.smk"
include: "rules/models.smk"
include: "rules/data.smk"
include: "rules/learning_rates.smk"
include: "rules/finetune.smk"
include: "rules/circuits.smk"
include: "rules/controls.smk"
include: "rules/drift.smk"
include: "rules/robustness.smk"
include: "rules/where_changes.smk"
include: "rules/composition.smk"
include: "rules/recipes.smk"
include: "rules/circuitlora.smk"
include: "rules/allocations.smk"
include: "rules/exchange.smk"
include: "rules/given.smk"
include: "rules/figures.smk"
include: "rules/tables.smk"
include: "rules/benchmarks.smk"
include: "rules/planning.smk"


rule all:
    """Do the whole study; the default target."""
    default_target: True
    input:
        layout.config,
        rules.train.input,
        rules.circuits.input,
        rules.drift.input,
        rules.composition.input,
        rules.recipes.input,
        rules.circuitlora.input,
        rules.imports.input,
        rules.figures.input,
        rules.tables.input,


rule paper:
    """Make every figure and table of the paper for the configured model, and the verdicts on its claims."""
    input:
        when_planned(figures_and_tables),


include: "rules/study.smk"
