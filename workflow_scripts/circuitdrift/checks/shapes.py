"""The shape of a model as far as its config tells it."""

from __future__ import annotations

from dataclasses import dataclass

from circuitdrift.config.models import ModelConfig, ScratchModel
from circuitdrift.decoder.architectures import ARCHITECTURES, MODEL_TYPES, Settings
from circuitdrift.decoder.size import number_of_edges
from circuitdrift.models.folder import settings_of_folder
from circuitdrift.planning.shapes import config_file, shape_in


@dataclass(frozen=True)
class Shape:
    """What the settings of methods and circuits must fit.

    Attributes:
        layers: number of blocks.
        heads: query heads in a block.
        width: of the residual stream.
        edges: number of edges of the graph.
    """

    layers: int
    heads: int
    width: int
    edges: int


def shape_at_parsing(model: ModelConfig) -> Shape | None:
    """The shape of a scratch model, or of one whose config.json is on this machine; None where it is not known yet."""
    if isinstance(model, ScratchModel):
        return Shape(model.layers, model.heads, model.width, number_of_edges(model.layers, model.heads, parallel=True))
    found = config_file(model)
    return shape_of_settings(settings_of_folder(found.parent)) if found else None


def shape_of_settings(settings: Settings) -> Shape | None:
    """The shape of a supported model with these entries of config.json; None where a size is missing or no number."""
    class_name = MODEL_TYPES.get(settings.get("model_type", ""))
    if class_name is None:
        return None
    try:
        shape = shape_in(settings)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    parallel = ARCHITECTURES[class_name].parallel(settings)
    return Shape(shape.layers, shape.heads, shape.width, number_of_edges(shape.layers, shape.heads, parallel))
