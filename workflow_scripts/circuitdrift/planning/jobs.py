"""The jobs that Snakemake has still to do, and the time and disk that each is expected to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuitdrift.config.methods import (
    AdaLoraMethod,
    AllocatedLoraMethod,
    CircuitLoraMethod,
    FullMethod,
    MethodConfig,
    RandomLoraMethod,
    UniformRankMethod,
)
from circuitdrift.models.shapes import ModelShape, shape_at_hand
from circuitdrift.planning.estimates import PlannedWork, seconds_of
from circuitdrift.study import Study

BYTES_OF_A_FLOAT = 4
BYTES_OF_A_TABLE = 20_000
"""Of a table or figure, about: most are smaller, some figures larger."""

BYTES_OF_AN_EDGE = 12
"""A row of an edges table, compressed."""

ADAPTED_WIDTHS = 16
"""Inputs and outputs of the linears of a GPT-NeoX block, in widths of the residual stream."""


def stage_of(job: Any) -> str:
    """The name of a job's script; of a job without one, the name of its rule."""
    return Path(str(job.rule.script)).stem if job.rule.script else str(job.rule.name)


def shapes_of(study: Study) -> dict[str, ModelShape | None]:
    """The shape of each model of a study; None of one that is not on this machine yet."""
    return {name: shape_at_hand(model) for name, model in study.config.models.items()}


def seconds_by_job(
    study: Study, jobs: Sequence[Any], shapes: Mapping[str, ModelShape | None], preloading: bool
) -> dict[Any, float | None]:
    """Seconds of one core that each job is expected to take; None where its model is not on this machine yet.

    Args:
        study: the study.
        jobs: Snakemake's jobs.
        shapes: from :func:`shapes_of`.
        preloading: whether the call preloads (:mod:`circuitdrift.preloaded`).
    """
    return {job: seconds_of(study, work_of(job, preloading), shape_for(job, shapes)) for job in jobs}


def shape_for(job: Any, shapes: Mapping[str, ModelShape | None]) -> ModelShape | None:
    """The shape of a job's model, out of those of the study; None of a job without a model."""
    return shapes.get(job.wildcards_dict.get("model", ""))


def work_of(job: Any, preloading: bool) -> PlannedWork:
    """What an estimate reads of a Snakemake job, in a call that preloads or not."""
    checkpoints = job.input.checkpoints if "checkpoints" in job.input.keys() else []  # noqa: SIM118
    n_checkpoints = 1 if isinstance(checkpoints, str) else len(checkpoints)
    return PlannedWork(stage_of(job), dict(job.wildcards_dict), n_checkpoints, preloading and job.threads == 1)


def bytes_of(study: Study, job: Any, shape: ModelShape | None) -> int | None:
    """Bytes that a job is expected to leave in the results; None where its model is not on this machine yet."""
    if shape is None and "model" in job.wildcards_dict:
        return None
    return sum(_bytes_of_file(study, job, str(path), shape) for path in job.output)


def _bytes_of_file(study: Study, job: Any, path: str, shape: ModelShape | None) -> int:
    if shape is None:
        return BYTES_OF_A_TABLE
    if path.endswith("scores.safetensors") or path.endswith("scores_by_kind.safetensors"):
        return shape.edges * BYTES_OF_A_FLOAT * (study.config.circuit.folds + 1)
    if path.endswith("model.safetensors"):
        return shape.parameters * BYTES_OF_A_FLOAT
    if Path(path).parent.name == "checkpoints":
        return _bytes_of_checkpoint(study, job.wildcards_dict["method"], shape)
    if path.endswith("edges.parquet") or path.endswith("edges_changed.parquet"):
        return shape.edges * BYTES_OF_AN_EDGE
    return BYTES_OF_A_TABLE


def _bytes_of_checkpoint(study: Study, name: str, shape: ModelShape) -> int:
    method = study.config.methods[name]
    if isinstance(method, FullMethod):
        return shape.parameters * BYTES_OF_A_FLOAT
    return round(BYTES_OF_A_FLOAT * _mean_rank(method, shape.layers) * ADAPTED_WIDTHS * shape.width * shape.layers)


def _mean_rank(method: MethodConfig, layers: int) -> float:
    match method:
        case CircuitLoraMethod() | RandomLoraMethod() | AllocatedLoraMethod():
            critical = min(method.critical_layers, layers)
            return (critical * method.critical_rank + (layers - critical) * method.rank) / layers
        case AdaLoraMethod():
            return method.initial_rank
        case UniformRankMethod():
            return method.rank
        case _:
            return 1
