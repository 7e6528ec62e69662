"""What a call of Snakemake shows: not Snakemake's lines about each job, since one line follows when it has finished.

``--printshellcmds`` or ``--verbose`` bring Snakemake's own lines back. Its log file has them all in any case.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, TextIO

from snakemake.logging import LogEvent, logger
from tqdm import tqdm

HIDDEN_EVENTS = {
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RUN_INFO,
    LogEvent.RESOURCES_INFO,
    LogEvent.JOB_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.JOB_ERROR,
    LogEvent.PROGRESS,
}
HIDDEN_BEGINNINGS = (
    "Select jobs to execute",
    "Building DAG of jobs",
    "Assuming unrestricted shared filesystem usage",
    "Using shell: ",
    "Conda environments: ignored",
    "RuleException:\nCalledProcessError in file",  # a job that failed has said why
)


def with_own_lines(workflow: Any) -> bool:
    """Whether the user asked for Snakemake's own lines about each job."""
    asked = workflow.output_settings
    return bool(asked.printshellcmds or asked.verbose or asked.dryrun)


def hide_lines_of_jobs(workflow: Any) -> None:
    """Take Snakemake's lines about single jobs off the screen, unless the user asked for them."""
    if not with_own_lines(workflow):
        for handler in _screens():
            handler.addFilter(_is_shown)


def _screens() -> list[logging.Handler]:
    return [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]


def _is_shown(record: logging.LogRecord) -> bool:
    hidden = getattr(record, "event", None) in HIDDEN_EVENTS
    return not hidden and not str(record.msg).startswith(HIDDEN_BEGINNINGS)


class Bar:
    """A bar below the lines of a call, with the jobs that run; nothing where the screen is no terminal."""

    def __init__(self, jobs: int, screen: TextIO) -> None:
        """Draw it.

        Args:
            jobs: number of jobs that are to run.
            screen: where lines are printed.
        """
        self._bar = tqdm(
            total=jobs,
            bar_format="{bar:24} {n_fmt} of {total_fmt} jobs{postfix}",
            dynamic_ncols=True,
            leave=False,
            file=screen,
            disable=not screen.isatty(),
        )
        for handler in _screens():
            handler.addFilter(self._clear)

    def _clear(self, record: logging.LogRecord) -> bool:
        """Make room for a line; ``show`` draws the bar again below it."""
        self._bar.clear()
        return True

    def show(self, done: int, left: str, running: Iterable[str]) -> None:
        """Draw it with the number of finished jobs, the time that is left, and the names of the jobs that run."""
        self._bar.n = done
        self._bar.set_postfix_str("; ".join([left, " ".join(running)]).strip("; "), refresh=True)

    def close(self) -> None:
        """Take it off the screen."""
        self._bar.close()
