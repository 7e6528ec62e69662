"""Section ``tasks``: families of prompt pairs and their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from circuitdrift.config.section import Name, Section


class Task(Section):
    """What every task has: how many examples each split gets, and the seed of its generator."""

    train: int = Field(4000, ge=1, description="examples to fine-tune on")
    circuit: int = Field(200, ge=2, description="examples to extract circuits from")
    test: int = Field(500, ge=1, description="examples to measure accuracy on")
    seed: int = 0
    answer_tokens: Literal["single", "any"] = Field(
        "single",
        description="single: answers of one token, as in the paper; any: of one or several tokens",
    )


class AddSubTask(Task):
    """a + b and a - b with a >= b, operands 1..max_operand; the corruption flips the operator."""

    family: Literal["add_sub"]
    max_operand: int = Field(100, ge=2)


class MulDivTask(Task):
    """a * b and a / b; the corruption replaces the first operand."""

    family: Literal["mul_div"]
    max_result: int | None = Field(None, ge=4, description="largest product or dividend; null: as in the paper")


class SequenceTask(Task):
    """Arithmetic and geometric sequences, four terms given; the corruption changes the third or fourth term."""

    family: Literal["sequence"]
    max_term: int | None = Field(None, ge=20, description="largest term; null: whatever is one token")


class LcmTask(Task):
    """Least common multiple with one worked example; the corruption replaces the query pair."""

    family: Literal["lcm"]
    max_operand: int = Field(200, ge=4)


class FunctionTask(Task):
    """A linear function with three values given; the corruption replaces the intercept."""

    family: Literal["function"]
    max_slope: int = Field(20, ge=1)
    max_intercept: int = Field(500, ge=2)


class CompositionalTask(Task):
    """(x +/- y) */ z; the corruption changes z only."""

    family: Literal["compositional"]
    max_operand: int = Field(100, ge=4)


class SubTask(Task):
    """One step of a compositional task's own items: its inner sum or difference, or its outer product or quotient."""

    family: Literal["sub_task"]
    of: Name = Field(description="the compositional task whose items are decomposed")
    part: Literal["add_sub", "mul_div"]


class FileTask(Task):
    """Prompts from a CSV or Parquet file: clean, corrupted, answer; optional corrupted_answer and split."""

    family: Literal["file"]
    path: Path


TaskConfig = Annotated[
    AddSubTask | MulDivTask | SequenceTask | LcmTask | FunctionTask | CompositionalTask | SubTask | FileTask,
    Field(discriminator="family"),
]
