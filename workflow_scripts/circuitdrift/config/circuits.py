"""Sections ``circuit``, ``faithfulness`` and ``drift``: how circuits are extracted, measured and compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from circuitdrift.config.section import Fraction, Name, Section


class Attribution(Section):
    """How edges are scored: all of the ``circuit`` section but the circuit's size."""

    attribution: Literal["eap-ig-inputs"] = "eap-ig-inputs"
    steps: int = Field(5, ge=1)
    quadrature: Literal["right", "left", "midpoint"] = "right"
    objective: Literal["kl"] = "kl"
    batch_size: int = Field(32, ge=1, description="prompt pairs per attribution batch")

    @model_validator(mode="after")
    def _some_step_has_a_gradient(self) -> Attribution:
        if self.steps == 1 and self.quadrature == "right":
            raise ValueError(
                "steps 1 with quadrature right is the clean run itself, where every gradient of the objective is zero; "
                "use more steps, or quadrature left or midpoint"
            )
        return self


class Circuit(Attribution):
    """Circuit extraction: edge attribution, and the share of edges that the circuit keeps."""

    fraction: Fraction = Field(0.05, description="share of all edges that the circuit keeps before pruning")

    def recipe(self) -> Attribution:
        """The part that scoring depends on, so that another fraction re-scores nothing."""
        return Attribution.model_validate(self.model_dump(exclude={"fraction"}))


class Faithfulness(Section):
    """Circuit runs on the circuit split, every edge outside the circuit carrying its corrupted activation."""

    size_fractions: tuple[Fraction, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    examples: int = Field(100, ge=2, description="at most this many examples of the circuit split")
    batch_size: int = Field(32, ge=1)
    bootstrap: int = Field(1000, ge=100, description="resamples for the intervals")


class Drift(Section):
    """Which circuits are extracted along fine-tuning, and how their change is measured."""

    methods: tuple[Name, ...] | Literal["all"] = Field(
        "all", description="methods whose circuit is extracted at every checkpoint; a phase_1 always is"
    )
    random_circuits: int = Field(20, ge=1, description="size-matched random circuits for the control")
