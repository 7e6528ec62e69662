"""Section ``figures``: the style of the figures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from circuitdrift.section import Name, Section


class Figures(Section):
    """Style of the figures; a change redraws the figures and nothing else."""

    context: Literal["paper", "notebook", "talk"] = Field("paper", description="seaborn's sizes of text and lines")
    palette: str = Field("colorblind", description="seaborn's name of the colours of methods")
    width_inches: float = Field(7.0, gt=0, description="width of a figure")
    dpi: int = Field(150, ge=50, description="dots per inch of PNG files")
    model: Name | None = Field(None, description="model shown by single-circuit figures; null: the first")
    task: Name | None = Field(None, description="task shown by single-circuit figures; null: the first")
