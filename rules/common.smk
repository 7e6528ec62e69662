# What the files beside this one share. All of it runs at each parsing, again in each cluster job, so it imports no torch.
#
# needs     ROOT and CONFIG_FILE (reruns.smk); in a module, `config`, the mapping that a config file would hold; and the
#           prompt files and local models that the study names
# makes     `study` (its contents), `layout` (its paths), the constraints of wildcards, the path variable <logs>
# steps     read and check the study, with warnings for senseless values; define the functions that give rules their code
#           digests, params, threads and memory; inputs.smk has those that give them inputs
import gc
import re
import sys
from functools import cache, partial
from importlib.metadata import version

# A plan is millions of objects that stay; looking for cycles among them is a tenth of it.
gc.set_threshold(50_000, 20, 20)
SCRIPTS = ROOT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS))

from snakemake.logging import logger

from circuitdrift.checks.before_jobs import check_study
from circuitdrift.errors import CircuitDriftError
from circuitdrift.provenance import BASE_CHECKPOINT, RECORDED_PACKAGES, digest_of_code
from circuitdrift.study import read_study, study_in
from circuitdrift.tasks.from_file import problems_of_file
from circuitdrift.tasks.prompt_file import report as report_of_problems

try:
    study = read_study(CONFIG_FILE) if CONFIG_FILE else study_in(config, Path.cwd(), "the config of the module")
    if workflow.is_main_process:  # not again in each job
        for warning in check_study(study):
            logger.warning(f"{CONFIG_FILE.name if CONFIG_FILE else study.config.study}: warning: {warning}.")
except CircuitDriftError as error:
    raise WorkflowError(str(error))
layout = study.layout
# For the report's captions.
config.update(study.config.model_dump(mode="json"), versions={name: version(name) for name in RECORDED_PACKAGES})


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


def paths_by_name(files):
    """A job's input as a param: a list of paths for each name."""
    return {
        name: [str(path) for path in ([paths] if isinstance(paths, str) else paths)] for name, paths in files.items()
    }
