"""Section ``figures``: the style of the figures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from circuitdrift.section import Name, Section


class Figures(Section):
    """Style of the figures; editing it redraws them and nothing else."""

    context: Literal["paper", "notebook", "talk"] = "paper"
    palette: str = "colorblind"
    width_inches: float = Field(7.0, gt=0)
    dpi: int = Field(150, ge=50)
    model: Name | None = Field(None, description="the model that single-circuit figures show; null: the first")
    task: Name | None = Field(None, description="the task that single-circuit figures show; null: the first")
