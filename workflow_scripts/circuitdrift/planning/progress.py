"""One line for each finished job: what it was, how long it took, how many are done, and about how long is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from snakemake.logging import LogEvent, logger

from circuitdrift.planning.jobs import seconds_by_job, shapes_of
from circuitdrift.study import Study

UNKNOWN_SECONDS = 60.0
"""Taken for a job whose model is not on this machine yet."""


@dataclass(frozen=True)
class Expected:
    """A job that is still to be done.

    Attributes:
        name: how lines call it: the path of its log, without the study's folder.
        seconds: what it is expected to take.
    """

    name: str
    seconds: float


def report_progress(workflow: Any, study: Study) -> None:
    """Print a line after each job of a running workflow, whatever executor runs it.

    Args:
        workflow: Snakemake's workflow, whose jobs are known.
        study: the study.
    """
    jobs = list(workflow.dag.needrun_jobs())
    expected = {
        job.jobid: Expected(_name(job, study), UNKNOWN_SECONDS if seconds is None else seconds)
        for job, seconds in seconds_by_job(study, jobs, shapes_of(study)).items()
    }
    logger.addHandler(ProgressLines(expected, logger.info, time.monotonic))


def _name(job: Any, study: Study) -> str:
    log = str(next(iter(job.log), ""))
    return log.removeprefix(f"logs/{study.config.study}/").removesuffix(".log") or str(job.rule.name)


class ProgressLines(logging.Handler):
    """Hears which jobs start and finish, and prints a line for each that finished.

    The time left follows from the run itself: the work that is left, at the pace of the work that is done. So it needs
    neither the number of cores nor the speed of the machine, only how the jobs compare.
    """

    def __init__(
        self, expected: Mapping[int, Expected], write: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        """Start the clock.

        Args:
            expected: the jobs that are to run, by their Snakemake number.
            write: prints a line.
            clock: seconds that never run backwards.
        """
        super().__init__()
        self._expected, self._write, self._clock = expected, write, clock
        self._began = clock()
        self._started: dict[int, float] = {}
        self._finished: set[int] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Note a job's start; print a line at its end."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_STARTED:
            self._started |= dict.fromkeys(record.__dict__["jobs"], self._clock())
        elif event == LogEvent.JOB_FINISHED:
            job = record.__dict__["job_id"]
            if job in self._expected and job not in self._finished:
                self._finished.add(job)
                self._write(self._line(job))

    def _line(self, job: int) -> str:
        took = self._clock() - self._started.get(job, self._began)
        done, total = len(self._finished), len(self._expected)
        left = f"about {duration(self.seconds_left())} left" if done < total else "all done"
        return f"{self._expected[job].name}: {duration(took)}; {done} of {total} jobs, {left}"

    def seconds_left(self) -> float:
        """The work left at the pace so far; a running job counts as done as far as its expected time has passed."""
        now = self._clock()
        done = self._work(self._finished)
        for job in self._started.keys() & self._expected.keys() - self._finished:
            done += min(now - self._started[job], 0.9 * self._expected[job].seconds)
        left = self._work(self._expected) - done
        return left * (now - self._began) / done if done else left

    def _work(self, jobs: Iterable[int]) -> float:
        return sum(self._expected[job].seconds for job in jobs)


def duration(seconds: float) -> str:
    """A time as people say it: ``40 s``, ``3 min``, ``2 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
