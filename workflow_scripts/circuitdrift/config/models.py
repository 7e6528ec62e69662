"""Section ``models``: where each model comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from circuitdrift.config.given import GivenCheckpoint, check_hub_id
from circuitdrift.section import Digest, Section


class Model(Section):
    """What every source of models has: checkpoints that were trained from the model elsewhere."""

    checkpoints: tuple[GivenCheckpoint, ...] = Field(
        (),
        max_length=99,
        description="checkpoints trained elsewhere, in order; the model itself is the one before them",
    )

    @model_validator(mode="after")
    def _checkpoints_name_their_repository(self) -> Model:
        lonely = [n for n, given in enumerate(self.checkpoints) if given.folder is None and given.hub_id is None]
        if lonely and not isinstance(self, HubModel):
            raise ValueError(
                f"checkpoints: number {lonely[0]} names a revision alone, but the model is not on the hub; add id, or "
                "adapter_id for an adapter"
            )
        return self


class ScratchModel(Model):
    """A small GPT-NeoX that the workflow pre-trains itself, with its own corpus and tokenizer.

    docs/embedded_model.md describes the architecture and recipe; the defaults are those of the default study.
    """

    source: Literal["scratch"]
    layers: int = Field(6, ge=1, description="number of blocks")
    heads: int = Field(8, ge=1, description="attention heads of a block; they divide width")
    width: int = Field(128, ge=8, description="of the residual stream")
    mlp_width: int = Field(512, ge=8, description="of the MLPs' hidden layer")
    largest_number: int = Field(500, ge=20, description="every integer 0..largest_number is one token")
    steps: int = Field(1200, ge=1, description="optimiser steps of pre-training")
    batch_size: int = Field(64, ge=1, description="packed rows per step")
    learning_rate: float = Field(6e-3, gt=0, description="peak learning rate of pre-training, after warm-up")
    seed: int = Field(0, description="of pre-training: initial weights and order of the corpus")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the passes of pre-training; auto: bfloat16 where it is fast. Weights stay float32"
    )
    dtype: Literal["float32"] = Field("float32", description="of the weights")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ScratchModel:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class HubModel(Model):
    """A model on the Hugging Face hub, pinned to a revision; safetensors only, no remote code."""

    source: Literal["hub"]
    id: str = Field(description="owner/name on the hub")
    revision: str = Field("main", min_length=1, description="branch, tag or commit")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the weights")

    @field_validator("id", mode="after")
    @classmethod
    def _is_no_path(cls, value: str) -> str:
        return check_hub_id(value)


class LocalModel(Model):
    """A folder in the Hugging Face layout (config.json, tokenizer, *.safetensors)."""

    source: Literal["local"]
    path: Path = Field(description="the folder, relative to the config file")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the weights")


Pin = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+$", description="exact version, such as name==1.0"),
]


class PackagePart(Section):
    """A part of a GGUF file that is split among several wheels."""

    package: Pin
    file: str = Field(description="path of the part inside the wheel")


class PackageModel(Model):
    """A GGUF file inside a Python wheel, checked by sha256 and dequantised once to safetensors."""

    source: Literal["package"]
    package: Pin
    file: str = Field(description="path of the GGUF file, or of its first part, inside the wheel")
    further_parts: tuple[PackagePart, ...] = Field(
        (), max_length=99, description="the other parts, in order, of a file that is split among several wheels"
    )
    sha256: Digest = Field(description="of the whole GGUF file")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the weights")


ModelConfig = Annotated[ScratchModel | HubModel | LocalModel | PackageModel, Field(discriminator="source")]
