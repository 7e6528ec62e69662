"""Checkpoints that were trained elsewhere: where each comes from, and the ranks that their drift is turned into."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, model_validator

from circuitdrift.config.methods import (
    CREDIT_DESCRIPTION,
    POLICY_DESCRIPTION,
    CircuitLoraMethod,
    Credit,
    Policy,
    check_credit,
)
from circuitdrift.section import Section

GIVEN = "given"
"""Stands for the method in the run that a model's given checkpoints make up."""

GIVEN_SEED = 0
"""The seed of that run, in which nothing is drawn."""

ORIGINS = ("path", "adapter", "id", "adapter_id")


def check_hub_id(value: str) -> str:
    """Return an id of the Hugging Face hub.

    Raises:
        ValueError: it does not have the form owner/name.
    """
    form = r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?"
    if len(value) > 96 or "--" in value or ".." in value or not re.fullmatch(form, value, re.ASCII):
        raise ValueError(
            f"{value[:100]!r} is no id of the hub, which has the form owner/name; "
            "for a folder on this machine use source: local and path"
        )
    return value


class GivenCheckpoint(Section):
    """One checkpoint: a model of the base model's shape, or a PEFT adapter on it; in a folder, or on the hub."""

    path: Path | None = Field(None, description="folder of a model (config.json, *.safetensors)")
    adapter: Path | None = Field(None, description="folder of a PEFT adapter on the base model")
    id: str | None = Field(None, description="a model on the Hugging Face hub; a hub model's own id where left out")
    adapter_id: str | None = Field(None, description="a PEFT adapter on the Hugging Face hub")
    revision: str | None = Field(None, min_length=1, description="branch, tag or commit on the hub; default: main")

    @model_validator(mode="after")
    def _has_one_origin(self) -> GivenCheckpoint:
        origins = [key for key in ORIGINS if getattr(self, key) is not None]
        if len(origins) > 1:
            raise ValueError(f"has {' and '.join(origins)}, but is one checkpoint; give each an entry of its own")
        if not origins and self.revision is None:
            raise ValueError(f"names no checkpoint; give one of {', '.join(ORIGINS)}, or revision for a hub model")
        if self.revision is not None and origins in (["path"], ["adapter"]):
            raise ValueError(f"has revision, which the folder of {origins[0]} does not have; remove revision")
        for key in ("id", "adapter_id"):
            if (value := getattr(self, key)) is not None:
                try:
                    check_hub_id(value)
                except ValueError:
                    folder = "path" if key == "id" else "adapter"
                    raise ValueError(
                        f"{key} {value[:100]!r} is no id of the hub, which has the form owner/name; for a folder on "
                        f"this machine use {folder}"
                    ) from None
        return self

    @property
    def folder(self) -> Path | None:
        """The folder on this machine; None of a checkpoint on the hub."""
        return self.path or self.adapter

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter on the base model."""
        return self.adapter is not None or self.adapter_id is not None

    @property
    def hub_id(self) -> str | None:
        """Its id on the hub; None of a folder, and of a revision of the base model."""
        return self.id or self.adapter_id

    def at(self, folder: Path) -> GivenCheckpoint:
        """The same with paths that start from ``folder``."""
        paths = {key: folder / path for key in ("path", "adapter") if (path := getattr(self, key)) is not None}
        return self.model_copy(update=paths)


class DriftRanks(Section):
    """LoRA ranks that follow from circuits alone, without a CircuitLoRA of the study."""

    rank: int = Field(8, ge=1, description="LoRA rank of the layers that are not critical")
    critical_rank: int = Field(32, ge=1, description="of the critical layers")
    critical_layers: int = Field(5, ge=1, description="number of critical layers")
    policy: Policy = Field("score_change", description=POLICY_DESCRIPTION)
    credit: Credit = Field("source", description=CREDIT_DESCRIPTION)

    @model_validator(mode="after")
    def _policy_and_credit_fit(self) -> DriftRanks:
        check_credit(self.policy, self.credit)
        return self

    def as_method(self, name: str) -> CircuitLoraMethod:
        """The CircuitLoRA method that takes the circuits of this ``name`` as its phase 1."""
        return CircuitLoraMethod(
            kind="circuit_lora",
            rank=self.rank,
            critical_rank=self.critical_rank,
            critical_layers=self.critical_layers,
            phase_1=name,
            policy=self.policy,
            credit=self.credit,
        )
