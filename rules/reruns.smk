# Everything that reaches into Snakemake beyond what its documentation promises: which triggers re-run a job, and which
# config file the user gave.
#
# needs     the running `workflow`
# makes     ROOT, the folder of the repository; CONFIG_FILE, the one config file of the study
# steps     check that Snakemake still has what is used here; take out the trigger `code`; find the config file
from pathlib import Path

import snakemake
from snakemake.exceptions import WorkflowError
from snakemake.settings.enums import RerunTrigger

assert (
    isinstance(getattr(type(workflow), "rerun_triggers", None), property)
    and isinstance(RerunTrigger.all(), frozenset)
    and not isinstance(RerunTrigger.parse_choices_set(["code"]), frozenset)
    and isinstance(getattr(type(workflow), "is_main_process", None), property)
    and hasattr(workflow.config_settings, "config")
    and hasattr(workflow.config_settings, "configfiles")
), (
    f"Snakemake {snakemake.__version__} is not built as rules/reruns.smk expects. Install the version that "
    "requirements.txt names, or adapt rules/reruns.smk: find out how Snakemake now keeps --rerun-triggers and "
    "--configfile, then run tests/workflow/test_smoke.py."
)


# Each rule has a digest of its code among its params, blind to comments. Snakemake's own trigger `code` looks at the
# script's modification time, which a comment or a fresh checkout changes. It is taken out here rather than in a
# profile, for users who call snakemake without ours. Snakemake passes its default on as a frozenset and a choice of
# the user as a set; a choice is obeyed.
class WorkflowWithoutCodeTrigger(type(workflow)):
    @property
    def rerun_triggers(self):
        triggers = self.dag_settings.rerun_triggers
        return triggers - {RerunTrigger.CODE} if isinstance(triggers, frozenset) else triggers


workflow.__class__ = WorkflowWithoutCodeTrigger

if workflow.config_settings.config:
    raise WorkflowError("--config KEY=VALUE is not supported: write a config file and give it with --configfile")
if len(workflow.config_settings.configfiles) > 1:
    raise WorkflowError("give one --configfile: a config file stands alone")
ROOT = Path(str(workflow.current_basedir)).parent  # not workflow.basedir, which is workflow/ for workflow/Snakefile
CONFIG_FILE = Path(next(iter(workflow.config_settings.configfiles), ROOT / "config.yaml"))
