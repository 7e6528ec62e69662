"""One line for each job at its end: what it was, how long it took, how many are done, and about how long is left."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.logging import LogEvent, logger

from circuitdrift.planning.jobs import seconds_by_job, shapes_of
from circuitdrift.planning.summary import lines_of_failure
from circuitdrift.planning.terminal import Bar, with_own_lines
from circuitdrift.stage import LOG_ALONE
from circuitdrift.study import Study

UNKNOWN_SECONDS = 60.0
"""Taken for a job whose model is not on this machine yet."""

TRUSTED_SECONDS = 60.0
"""The expected pace counts like so many seconds at it: one slow start at the beginning says little of the rest."""


@dataclass(frozen=True)
class Expected:
    """A job that is still to be done.

    Attributes:
        name: how lines call it: the path of its log, without the study's folder.
        seconds: what it is expected to take.
        log: its log file, if it has one.
    """

    name: str
    seconds: float
    log: Path | None = None


def report_progress(workflow: Any, study: Study, preloading: bool) -> ProgressLines:
    """Print a line after each job of a running workflow, whatever executor runs it.

    Jobs on this machine then leave the screen to these lines, to warnings and to errors, unless the user asked for
    Snakemake's own lines.

    Args:
        workflow: Snakemake's workflow, whose jobs are known.
        study: the study.
        preloading: whether the call preloads (:mod:`circuitdrift.preloaded`).
    """
    if workflow.local_exec and not with_own_lines(workflow):
        os.environ[LOG_ALONE] = "yes"
    jobs = list(workflow.dag.needrun_jobs())
    expected = {
        job.jobid: Expected(_name(job, study), UNKNOWN_SECONDS if seconds is None else seconds, _log(job))
        for job, seconds in seconds_by_job(study, jobs, shapes_of(study), preloading).items()
    }
    lines = ProgressLines(expected, logger.info, time.monotonic, Bar(len(expected), sys.stderr))
    logger.addHandler(lines)
    return lines


def _log(job: Any) -> Path | None:
    return Path(str(job.log[0])) if job.log else None


def _name(job: Any, study: Study) -> str:
    log = str(next(iter(job.log), ""))
    return log.removeprefix(f"logs/{study.config.study}/").removesuffix(".log") or str(job.rule.name)


class ProgressLines(logging.Handler):
    """Hears which jobs start and end, and prints a line for each that ended.

    The time left follows from the run itself: the work that is left, at the pace of the work that is done. So it needs
    neither the number of cores nor the speed of the machine, only how the jobs compare. In the first minutes the
    expected pace of one job after the other counts, too.
    """

    def __init__(
        self,
        expected: Mapping[int, Expected],
        write: Callable[[str], None],
        clock: Callable[[], float],
        bar: Bar | None = None,
    ) -> None:
        """Start the clock.

        Args:
            expected: the jobs that are to run, by their Snakemake number.
            write: prints a line.
            clock: seconds that never run backwards.
            bar: shows the jobs that run, below the lines.
        """
        super().__init__()
        self._expected, self._write, self._clock, self._bar = expected, write, clock, bar
        self._began = clock()
        self._started: dict[int, float] = {}
        self._finished: set[int] = set()
        self._failed: set[int] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Note a job's start; print a line at its end; draw the bar again below whatever was printed."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_STARTED:
            self._started |= dict.fromkeys(record.__dict__["jobs"], self._clock())
        elif event == LogEvent.JOB_FINISHED:
            job = record.__dict__["job_id"]
            if job in self._expected and job not in self._finished:
                self._finished.add(job)
                self._failed.discard(job)
                self._write(self._line(job))
        elif event == LogEvent.JOB_ERROR and record.__dict__["jobid"] in self._expected:
            job = record.__dict__["jobid"]
            self._failed.add(job)
            log = self._expected[job].log
            self._write(
                f"{self._expected[job].name}: failed after {self._time_of(job)}{f'; log: {log}' if log else ''}"
            )
        if self._bar is not None:
            left = self._left() if self._finished else ""  # nothing is known of the pace before
            self._bar.show(len(self._finished), left, (self._expected[job].name for job in self._running()))

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        super().close()

    def lines_of_failure(self) -> list[str]:
        """What to say of the jobs that failed for good; nothing if none did."""
        failed = {self._expected[job].name: self._expected[job].log for job in sorted(self._failed)}
        return lines_of_failure(failed) if failed else []

    def _line(self, job: int) -> str:
        done, total = len(self._finished), len(self._expected)
        return f"{self._expected[job].name}: {self._time_of(job)}; {done} of {total} jobs, {self._left()}"

    def _time_of(self, job: int) -> str:
        return duration(self._clock() - self._started.get(job, self._began))

    def _left(self) -> str:
        return (
            f"about {duration(self.seconds_left())} left" if len(self._finished) < len(self._expected) else "all done"
        )

    def _running(self) -> Iterable[int]:
        return sorted(self._started.keys() & self._expected.keys() - self._finished - self._failed)

    def seconds_left(self) -> float:
        """The work left at the pace so far; a running job counts as done as far as its expected time has passed."""
        now = self._clock()
        done = self._work(self._finished)
        for job in self._running():
            done += min(now - self._started[job], 0.9 * self._expected[job].seconds)
        left = self._work(self._expected) - done
        return left * (now - self._began + TRUSTED_SECONDS) / (done + TRUSTED_SECONDS)

    def _work(self, jobs: Iterable[int]) -> float:
        return sum(self._expected[job].seconds for job in jobs)


def duration(seconds: float) -> str:
    """A time as people say it: ``40 s``, ``3 min``, ``2 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
