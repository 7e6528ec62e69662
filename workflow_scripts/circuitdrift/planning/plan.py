"""The plan of a study: what its remaining jobs will take, stage by stage and in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from circuitdrift.planning.estimates import ON_A_DEVICE
from circuitdrift.planning.jobs import bytes_of, seconds_by_job, shape_for, shapes_of, stage_of
from circuitdrift.planning.progress import duration
from circuitdrift.study import Study

MIB, GIB = 2**20, 2**30

CORES_OF_A_GPU = 1000
"""Cores that do the work of one GPU: about 1e14 useful operations a second against 1e11. Assumed, not measured."""

START_ON_A_GPU = 60.0
"""Seconds that a job takes to load a large model and move it to the GPU. Assumed, not measured."""


@dataclass(frozen=True)
class Plan:
    """What the jobs that are left will take.

    Attributes:
        stages: one row for each stage, in the order of the rules: stage, jobs, hours (of one core), longest
            (seconds of the longest job), memory (MB that its largest job asks for), files, bytes.
        unknown: models that are not on this machine yet, so that hours and bytes leave their jobs out.
        cores: number of cores that the jobs share.
        memory: MB of the machine that the largest jobs on these cores ask for together.
        gpu_hours: hours of one GPU for the jobs that run a model other than the workflow's own; 0 without such jobs.
    """

    stages: pd.DataFrame
    unknown: tuple[str, ...]
    cores: int
    memory: int
    gpu_hours: float

    @property
    def hours(self) -> float:
        """Hours of one core in all."""
        return float(self.stages["hours"].sum())

    @property
    def wall_seconds(self) -> float:
        """About the time from start to end: the work shared by the cores, but no less than the longest job."""
        return max(3600 * self.hours / self.cores, float(self.stages["longest"].max()) if len(self.stages) else 0.0)


def plan_of(study: Study, jobs: Sequence[Any], cores: int, preloading: bool) -> Plan:
    """The plan of some jobs.

    Args:
        study: the study.
        jobs: Snakemake's jobs that are left to do.
        cores: number of cores that the jobs share.
        preloading: whether their call preloads (:mod:`circuitdrift.preloaded`).
    """
    shapes = shapes_of(study)
    seconds = seconds_by_job(study, jobs, shapes, preloading)
    jobs = sorted(jobs, key=_place)
    rows = [
        {
            "stage": stage_of(job),
            "seconds": seconds[job],
            "memory": job.resources.get("mem_mb", 0),
            "files": len(job.output),
            "bytes": bytes_of(study, job, shape_for(job, shapes)),
        }
        for job in jobs
        if job.rule.script
    ]
    columns = ["stage", "seconds", "memory", "files", "bytes"]
    table = pd.DataFrame(rows, columns=columns).astype({"seconds": float, "memory": float, "bytes": float})
    stages = table.groupby("stage", sort=False).agg(
        jobs=("stage", "size"),
        hours=("seconds", lambda seconds: seconds.sum(min_count=1) / 3600),
        longest=("seconds", "max"),
        memory=("memory", "max"),
        files=("files", "sum"),
        bytes=("bytes", lambda n_bytes: n_bytes.sum(min_count=1)),
    )
    unknown = tuple(name for name, shape in shapes.items() if shape is None)
    gpu_hours = sum(_gpu_seconds(study, job, seconds[job]) for job in jobs) / 3600
    return Plan(stages.reset_index(), unknown, cores, _memory_at_once(jobs, cores), gpu_hours)


def _gpu_seconds(study: Study, job: Any, core_seconds: float | None) -> float:
    """Seconds of a GPU that a job takes; 0 of a job that uses none, or whose model is not known."""
    model = job.wildcards_dict.get("model")
    if model is None or study.is_small(model) or stage_of(job) not in ON_A_DEVICE or core_seconds is None:
        return 0.0
    return START_ON_A_GPU + core_seconds / CORES_OF_A_GPU


def _memory_at_once(jobs: Sequence[Any], cores: int) -> int:
    """MB that the jobs which ask for most can ask for together, as many as the cores can run at once."""
    memory, free = 0, cores
    for job in sorted(jobs, key=lambda job: job.resources.get("mem_mb", 0) / job.threads, reverse=True):
        if job.threads <= free or free == cores:
            memory, free = memory + job.resources.get("mem_mb", 0), free - job.threads
        if free <= 0:
            break
    return memory


def _place(job: Any) -> tuple[int, int]:
    """Where a job stands: its rule among the workflow's, then its number."""
    return list(job.rule.workflow.rules).index(job.rule), job.jobid


def describe(plan: Plan, study: str) -> str:
    """The plan as text for a terminal."""
    if plan.stages.empty:
        return f"{study}: nothing is left to do"
    shown = pd.DataFrame(
        {
            "stage": plan.stages["stage"],
            "jobs": plan.stages["jobs"],
            "core hours": plan.stages["hours"].map(lambda hours: f"{hours:.2f}" if hours == hours else "?"),
            "longest job": plan.stages["longest"].map(lambda s: duration(s) if s == s else "?"),
            "memory of a job": plan.stages["memory"].map(lambda mb: f"{mb / 1000:.1f} GB"),
            "files": plan.stages["files"],
            "disk": plan.stages["bytes"].map(_size),
        }
    )
    files = f"{plan.stages['files'].sum()} files, {_size(plan.stages['bytes'].sum())}"
    work = f"{plan.hours:.1f} core hours, about {duration(plan.wall_seconds)} on {plan.cores} cores"
    if plan.unknown:
        work = "hours not known"
    lines = [shown.to_string(index=False), "", f"{study}: {plan.stages['jobs'].sum()} jobs, {work}; {files}"]
    lines.append(f"The largest jobs at once ask for {plan.memory / 1000:.1f} GB.")
    if plan.unknown:
        lines.append(
            f"Hours and disk leave out the jobs of {', '.join(plan.unknown)}: no config.json is on this machine or can "
            "be fetched. Make the model first: snakemake models"
        )
    lines.append(
        "Hours are those of processor cores, at rates measured on one machine: expect a factor of two either way."
    )
    if plan.gpu_hours:
        lines.append(
            f"On one GPU about {plan.gpu_hours:.0f} hours, if it does the work of {CORES_OF_A_GPU} such cores (1e14 "
            f"useful operations a second) and a job starts in {START_ON_A_GPU:.0f} s. No rate was measured on a GPU."
        )
    return "\n".join(lines)


def _size(n_bytes: float) -> str:
    if n_bytes != n_bytes:
        return "?"
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB else f"{n_bytes / MIB:.1f} MiB"
