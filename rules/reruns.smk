# Everything that reaches into Snakemake beyond what its documentation promises: which triggers re-run a job, which call
# may write the results, and which config file the user gave.
#
# needs     the running `workflow`; `layout` (common.smk), once jobs start
# makes     ROOT, the folder of the repository; IS_MODULE, whether another workflow uses this one; CONFIG_FILE, the one
#           config file of the study, None in a module, which gets a mapping
# steps     check that Snakemake still has what is used here; take out the trigger `code`; let one call at a time write the
#           results of a study; tell jobs whose they are; find the config file
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path

import snakemake
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.persistence import PersistenceBase
from snakemake.settings.enums import RerunTrigger

assert (
    isinstance(getattr(type(workflow), "rerun_triggers", None), property)
    and isinstance(RerunTrigger.all(), frozenset)
    and not isinstance(RerunTrigger.parse_choices_set(["code"]), frozenset)
    and isinstance(getattr(type(workflow), "is_main_process", None), property)
    and hasattr(type(workflow), "_prepare_dag")
    and all(hasattr(PersistenceBase, name) for name in ("lock", "locked", "all_outputfiles", "_write_locks"))
    and hasattr(workflow.config_settings, "config")
    and hasattr(workflow.config_settings, "configfiles")
    and hasattr(workflow.modifier, "is_main_snakefile")
    and all(hasattr(workflow.modifier.path_modifier, name) for name in ("prefix", "_prefix_replacements"))
), (
    f"Snakemake {snakemake.__version__} is not built as rules/reruns.smk expects. Install the version that "
    "requirements.txt names, or adapt rules/reruns.smk: find out how Snakemake now keeps --rerun-triggers and "
    "--configfile, then run tests/workflow/test_smoke.py."
)


IS_MODULE = not workflow.modifier.is_main_snakefile()


# Each rule has a digest of its code among its params, blind to comments. Snakemake's own trigger `code` looks at the
# script's modification time, which a comment or a fresh checkout changes. It is taken out here rather than in a
# profile, for users who call snakemake without ours. Snakemake passes its default on as a frozenset and a choice of
# the user as a set; a choice is obeyed. In a module the trigger is that of the other workflow's rules too, and stays.
class WorkflowOfStudy(type(workflow)):
    @property
    def rerun_triggers(self):
        triggers = super().rerun_triggers
        return triggers - {RerunTrigger.CODE} if isinstance(triggers, frozenset) and not IS_MODULE else triggers

    def _prepare_dag(self, *arguments, **settings):
        super()._prepare_dag(*arguments, **settings)
        self._persistence.__class__ = lock_of_a_call(type(self._persistence))


# Snakemake's own lock is a file that outlives a killed process, and its message cannot tell whether that process still
# runs. A lock of the kernel in the results can (circuitdrift.calls). With it in hand, what a killed call on this study has
# left of Snakemake's lock is removed; its files are known by their first line, the path of the kernel's lock. A call that
# makes no file needs no lock; jobs and dry runs have no lock of Snakemake's either, and so do not come here.
def lock_of_a_call(persistence):
    class LockOfACall(persistence):
        @contextmanager
        def lock(self):
            from circuitdrift.calls import CallError, bring_to_the_present, only_call

            with ExitStack() as held:
                if any(True for _ in self.all_outputfiles()):
                    try:
                        before = held.enter_context(only_call(Path(layout.in_use)))
                    except CallError as error:
                        raise WorkflowError(str(error))
                    if before:
                        self._take_over(before)
                    ours = {file for file in self.all_inputfiles() if file.startswith(f"{layout.results}/")}
                    if late := bring_to_the_present(map(Path, sorted(ours))):
                        logger.warning(
                            f"{len(late)} inputs in {layout.results} dated from the future, such as {late[0]}: was the "
                            "clock set back? They now have the present time."
                        )
                held.enter_context(super().lock())
                yield

        def _take_over(self, before):
            if before.is_here:
                logger.warning(f"The last call on {layout.results} ({before}) was killed; this one goes on from there.")
                for file in self.path.glob("locks/*.lock"):
                    if layout.in_use in file.read_text().splitlines():
                        file.unlink()
            elif self.locked:
                raise WorkflowError(
                    f"{layout.results}: the last call ({before}) was killed there, or still runs; make sure that neither it "
                    "nor a job of it runs, then remove its lock with the option --unlock and call again"
                )

        def _write_locks(self, lock_type, keys):
            (self.path / "locks").mkdir(exist_ok=True)  # a call on another study removes the folder when it ends
            super()._write_locks(lock_type, [layout.in_use, *keys])

    return LockOfACall


workflow.__class__ = WorkflowOfStudy
os.environ.update(CIRCUITDRIFT_SNAKEMAKE=str(os.getpid()))  # jobs on this machine end with this process (stage.py)

ROOT = Path(str(workflow.current_basedir)).parent  # not workflow.basedir, which is workflow/ for workflow/Snakefile
if IS_MODULE:
    if workflow.modifier.path_modifier.prefix or workflow.modifier.path_modifier._prefix_replacements:
        raise WorkflowError("prefix and replace_prefix are not supported: the key study names the folder in results")
    CONFIG_FILE = None
else:
    if workflow.config_settings.config:
        raise WorkflowError("--config KEY=VALUE is not supported: write a config file and give it with --configfile")
    if len(workflow.config_settings.configfiles) > 1:
        raise WorkflowError("give one --configfile: a config file stands alone")
    CONFIG_FILE = Path(next(iter(workflow.config_settings.configfiles), ROOT / "config.yaml"))
