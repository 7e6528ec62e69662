# What every rule file uses: the study, its patterns, and functions that turn its config into params.
# Everything here runs at parsing, again in each cluster job, so it imports no torch.
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.enums import RerunTrigger

SCRIPTS = Path(workflow.basedir) / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS))

from circuitdrift.config_reading import ConfigError
from circuitdrift.provenance import digest_of_code
from circuitdrift.study import read_study
from circuitdrift.tasks.prompt_file import check_prompt_file, report

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

for prompt_file in study.prompt_files.values():
    if problems := check_prompt_file(prompt_file):
        raise WorkflowError(f"{prompt_file} cannot be used:\n{report(problems)}")


def one_of(names):
    """Wildcard constraint: one of these names; never true where there is none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=one_of(study.config.models),
    task=one_of(study.config.tasks),
    method=one_of(study.config.methods),
    name=one_of(study.config.methods),
    seed=r"\d+",


def code_of(script):
    """Digest of a stage script and the library modules it imports."""
    return digest_of_code(SCRIPTS / f"{script}.py")


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


def memory_for(small, large):
    """Memory in MB by the model's size; another attempt gets more."""

    def memory(wildcards, attempt):
        return (small if study.is_small(wildcards.model) else large) * attempt

    return memory
