# What the files beside this one share: the study, its patterns, and functions that turn its config into params.
# Everything here runs at parsing, again in each cluster job, so it imports no torch.
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.enums import RerunTrigger

SCRIPTS = Path(workflow.basedir) / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS))

from circuitdrift.config.reading import ConfigError
from circuitdrift.provenance import digest_of_code
from circuitdrift.study import read_study
from circuitdrift.tasks import prompt_file

# Each rule has a digest of its code among its params, blind to comments. Snakemake's own code trigger looks at the
# script's modification time, which a comment or a fresh checkout changes, so it is taken out: here rather than in a
# profile, for those who call snakemake without ours.
type(workflow).rerun_triggers = property(lambda self: self.dag_settings.rerun_triggers - {RerunTrigger.CODE})

CONFIG_FILES = workflow.overwrite_configfiles or [Path(workflow.basedir) / "config.yaml"]
if workflow.config_settings.config:
    raise WorkflowError("--config KEY=VALUE is not supported: write a config file and give it with --configfile")
if len(CONFIG_FILES) > 1:
    raise WorkflowError("give one --configfile: a config file stands alone")

try:
    study = read_study(Path(CONFIG_FILES[0]))
except ConfigError as error:
    raise WorkflowError(str(error))
config.update(study.config.model_dump(mode="json"))  # for the report's captions

for path in study.prompt_files.values():
    if problems := prompt_file.check_prompt_file(path):
        raise WorkflowError(f"{path} cannot be used:\n{prompt_file.report(problems)}")


pathvars:
    logs=f"logs/{study.config.study}",


def one_of(names):
    """Wildcard constraint: one of these names; never true where there is none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=one_of(study.config.models),
    task=one_of(study.config.tasks),
    method=one_of(study.config.methods),
    name=one_of(study.config.methods),
    seed=r"\d+",


def code_of(script, *modules):
    """Digest of a stage script, of library modules that it loads by name (figures.style), and of all that they import."""
    files = (SCRIPTS.joinpath("circuitdrift", *module.split(".")).with_suffix(".py") for module in modules)
    return digest_of_code(SCRIPTS / f"{script}.py", *files)


def settings(section):
    """A config section as a param."""
    return section.model_dump(mode="json")


def model_settings(wildcards):
    """The config of the job's model."""
    return settings(study.config.models[wildcards.model])


def task_settings(wildcards):
    """The config of the job's task."""
    return settings(study.config.tasks[wildcards.task])


def method_settings(wildcards):
    """The config of the job's method, also where it is the name of an allocation."""
    return settings(study.config.methods[wildcards.get("method") or wildcards.name])


def threads_for(wildcards):
    """One core for the workflow's own small models, so that their jobs run side by side; more for others."""
    return 1 if study.is_small(wildcards.model) else 8


def processes_for(wildcards):
    """The processes of a run; the workflow's own small models, whose jobs run side by side, have one unless asked."""
    wanted = study.config.execution.processes
    return 1 if wanted == "auto" and study.is_small(wildcards.model) else wanted


def memory_for(small, large):
    """Memory in MB by the model's size; another attempt gets more."""

    def memory(wildcards, attempt):
        return (small if study.is_small(wildcards.model) else large) * attempt

    return memory


def ranks_of(model, task, method, seed):
    """The allocation of ranks that a method trains with; none where all layers have the same."""
    if method in study.methods_of("circuit_lora") + study.methods_of("random_lora"):
        return f"{study.allocation}/adapter_config.json".format(model=model, task=task, name=method, seed=seed)
    return []


def ranks_of_run(wildcards):
    """The allocation of ranks of a run."""
    return ranks_of(**wildcards)


def ranks_of_search(wildcards):
    """The allocation of ranks that learning rates are tried with: that of the study's first seed."""
    return ranks_of(**wildcards, seed=study.config.seeds[0])


def trials_of_run(wildcards):
    """The search that a run has its learning rate from; none where the configured rates are taken."""
    return study.trials.format(**wildcards) if study.tuned_runs else []


def changes_by_module(wildcards):
    """The changes credited to single modules, where a method allocates its ranks by them."""
    by_module = wildcards.name in study.methods_by_module
    return f"{study.allocation}/module_changes.parquet".format(**wildcards) if by_module else []


def imported_tables(wildcards, file):
    """A table of each circuit of an import, in the order of the checkpoints."""
    return [pattern.format(name=wildcards.name) for pattern in study.imported_files(wildcards.name, file)]


def paths_by_name(files):
    """A job's input as a param: a list of paths for each name."""
    return {
        name: [str(path) for path in ([paths] if isinstance(paths, str) else paths)] for name, paths in files.items()
    }
