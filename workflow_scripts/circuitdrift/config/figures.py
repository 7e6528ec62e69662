"""Section ``figures``: the style of the figures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from circuitdrift.section import Name, Section


class Figures(Section):
    """Style of the figures; a change redraws the figures and nothing else."""

    context: Literal["paper", "notebook", "talk"] = "paper"
    palette: str = "colorblind"
    width_inches: float = Field(7.0, gt=0)
    dpi: int = Field(150, ge=50)
    model: Name | None = Field(None, description="model shown by single-circuit figures; null: the first")
    task: Name | None = Field(None, description="task shown by single-circuit figures; null: the first")
