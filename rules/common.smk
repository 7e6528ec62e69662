# What the files beside this one share. All of it runs at each parsing, again in each cluster job, so it imports no torch.
#
# needs     ROOT and CONFIG_FILE (reruns.smk), and the prompt files and local models that the study names
# makes     `study` (its contents), `layout` (its paths), the constraints of wildcards, the path variable <logs>
# steps     read and check the study, with warnings for senseless values; define the functions that give rules their code
#           digests, params, threads, memory and those inputs that depend on wildcards
import gc
import re
import sys
from functools import cache, partial

gc.set_threshold(
    50_000, 20, 20
)  # a plan is millions of objects that stay; looking for cycles among them is a tenth of it
SCRIPTS = ROOT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS))

from snakemake.logging import logger

from circuitdrift.checks.before_jobs import check_study
from circuitdrift.config.given import GIVEN, GIVEN_SEED
from circuitdrift.errors import CircuitDriftError
from circuitdrift.layout import CircuitFiles
from circuitdrift.provenance import BASE_CHECKPOINT, digest_of_code
from circuitdrift.study import Run, read_study
from circuitdrift.tasks.from_file import problems_of_file
from circuitdrift.tasks.prompt_file import report as report_of_problems

try:
    study = read_study(CONFIG_FILE)
    if workflow.is_main_process:  # not again in each job
        for warning in check_study(study):
            logger.warning(f"{CONFIG_FILE.name}: warning: {warning}.")
except CircuitDriftError as error:
    raise WorkflowError(str(error))
layout = study.layout
config.update(study.config.model_dump(mode="json"))  # for the report's captions


def check_prompts(task):
    """Refuse a task whose prompt file has problems."""
    if problems := problems_of_file(task):
        raise WorkflowError(f"{task.path} cannot be used:\n{report_of_problems(problems)}")


for file_task in study.file_tasks.values():
    check_prompts(file_task)
    del file_task


pathvars:
    logs=f"logs/{study.config.study}",


def one_of(names):
    """Wildcard constraint: one of these names; matches nothing where there are no names."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=one_of(study.config.models),
    task=one_of(study.config.tasks),
    method=one_of(study.config.methods),
    name=one_of(study.config.methods),
    recipe=one_of(study.config.recipes),
    seed=r"\d+",


def when_planned(function, *arguments):
    """An input or a param that the study alone determines. It is computed once, and only where a job of the rule is planned.

    A large study has hundreds of thousands of files, and each job of a cluster parses the rules again for its own few.
    """
    value = cache(partial(function, *arguments))
    return lambda wildcards: value()


def code_of(script, *modules):
    """Digest of a stage script, of library modules that it loads by name (figures.style), and of all that they import."""
    files = (SCRIPTS.joinpath("circuitdrift", *module.split(".")).with_suffix(".py") for module in modules)
    return when_planned(digest_of_code, SCRIPTS / f"{script}.py", *files)


def settings(section):
    """A config section as a param."""
    return section.model_dump(mode="json")


def model_settings(wildcards):
    """The config of the job's model, without checkpoints that were trained elsewhere."""
    return study.config.models[wildcards.model].model_dump(mode="json", exclude={"checkpoints"})


def task_settings(wildcards):
    """What the data of the job's task depend on."""
    return study.data_settings(wildcards.task)


def method_settings(wildcards):
    """The config of the job's method; an allocation has the name of its method."""
    return settings(study.config.methods[wildcards.get("method") or wildcards.name])


def recipe_settings(wildcards):
    """How the job's recipe scores edges."""
    return settings(study.config.recipes[wildcards.recipe].applied_to(study.config.circuit.recipe()))


def threads_for(wildcards):
    """One core for the workflow's own small models, whose jobs share the machine; eight for other models."""
    return 1 if study.is_small(wildcards.model) else 8


def processes_for(wildcards):
    """Processes of a fine-tuning; one for the workflow's own small models unless the config gives a number."""
    wanted = study.config.execution.processes
    return 1 if wanted == "auto" and study.is_small(wildcards.model) else wanted


def memory_for(small, large):
    """Memory in MB by the model's size; each further attempt gets more."""

    def memory(wildcards, attempt):
        return (small if study.is_small(wildcards.model) else large) * attempt

    return memory


def ranks_of(model, task, method, seed):
    """The allocation of ranks that a method trains with; none where all layers have the same rank."""
    if study.config.methods[method].kind in {"circuit_lora", "random_lora", "allocated_lora"}:
        return layout.allocation.adapter_config.format(model=model, task=task, name=method, seed=seed)
    return []


def ranks_of_run(wildcards):
    """The allocation of ranks of a run."""
    return ranks_of(**wildcards)


def ranks_of_search(wildcards):
    """The allocation of ranks that learning rates are tried with: the allocation of the study's first seed."""
    return ranks_of(**wildcards, seed=study.config.seeds[0])


def trials_of_run(wildcards):
    """The search that chose a run's learning rate; none where the run takes the configured rate."""
    return layout.trials.format(**wildcards) if study.tuned_runs else []


def phase_1_of(wildcards):
    """The run whose drift decides the ranks of an allocation; a method's allocation has the name of the method."""
    return study.phase_1_run(Run(wildcards.model, wildcards.task, wildcards.name, int(wildcards.seed)))


def layers_of_phase_1(wildcards):
    """The changes by layer of a CircuitLoRA's phase 1."""
    return study.of_runs(layout.drift.layers, (phase_1_of(wildcards),))[0]


def scores_of_phase_1(wildcards):
    """The scores of the base model and of the last checkpoint of a CircuitLoRA's phase 1."""
    return study.of_circuits(phase_1_of(wildcards), "scores", 0, -1)


def edges_of_phase_1(wildcards):
    """The edges tables of the same two circuits."""
    return study.of_circuits(phase_1_of(wildcards), "edges", 0, -1)


def gradients_of_model(wildcards):
    """The gradients that an allocation follows; none where it follows something else."""
    follows = wildcards.name in study.methods_allocated_by("fisher", "gradient_norm")
    return layout.gradients.format(**wildcards) if follows else []


def activation_ranks_of(wildcards):
    """EVA's ranks, where an allocation follows them."""
    follows = wildcards.name in study.methods_allocated_by("eva")
    return layout.activation_ranks.format(**wildcards) if follows else []


def drift_of_phase_1(wildcards):
    """The changes by layer of an allocation's phase 1, same seed, where the allocation follows drift."""
    if wildcards.name not in study.methods_allocated_by("inverted"):
        return []
    return layout.drift.layers.format(method=study.phase_1[wildcards.name], **wildcards)


def last_checkpoint_of_phase_1(wildcards):
    """The last checkpoint of an allocation's AdaLoRA, same seed, where the allocation follows its ranks."""
    if wildcards.name not in study.methods_allocated_by("adalora"):
        return []
    return layout.checkpoint(study.checkpoints[-1]).format(method=study.phase_1[wildcards.name], **wildcards)


def reworded_scores(wildcards):
    """The scores of the base model in the second wording of the task; none where the task has no second wording."""
    return layout.reworded_scores.format(**wildcards) if wildcards.task in study.reworded_tasks else []


def last_edges_of_other_seeds(wildcards):
    """The edges table of the last checkpoint of each other seed of a run."""
    others = [seed for seed in study.config.seeds if seed != int(wildcards.seed)]
    return [study.circuits[-1].edges.format(**{**wildcards, "seed": seed}) for seed in others]


def imported_edges(wildcards):
    """The edges table of each circuit of an import, in the order of the checkpoints."""
    return [circuit.edges.format(**wildcards) for circuit in study.imported_circuits(wildcards.name)]


def imported_nodes(wildcards):
    """The nodes table of each circuit of an import, in the order of the checkpoints."""
    return [circuit.nodes.format(**wildcards) for circuit in study.imported_circuits(wildcards.name)]


OF_GIVEN_RUN = {"model": one_of(study.given_models), "method": GIVEN, "seed": str(GIVEN_SEED)}
OF_GIVEN_CHECKPOINT = {**OF_GIVEN_RUN, "checkpoint": r"\d\d"}


def of_given_circuits(file, *places):
    """A file of the circuits of given checkpoints: of all, the base model's first, or of those at some places."""
    return lambda wildcards: study.of_circuits(study.given_run(wildcards.model, wildcards.task), file, *places)


def paths_by_name(files):
    """A job's input as a param: a list of paths for each name."""
    return {
        name: [str(path) for path in ([paths] if isinstance(paths, str) else paths)] for name, paths in files.items()
    }
