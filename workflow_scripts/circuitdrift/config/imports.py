"""Section ``imports``: circuits from other tools, by checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from circuitdrift.config.given import DriftRanks
from circuitdrift.config.methods import Policy
from circuitdrift.provenance import BASE_CHECKPOINT

CheckpointLabel = Annotated[str, Field(pattern=r"^[0-9]{2}$")]
Architecture = Literal[
    "gpt_neox",
    "gpt_neo",
    "opt",
    "gpt2",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "olmo2",
    "olmo3",
    "bloom",
    "cohere",
    "falcon",
    "gemma",
    "gpt_bigcode",
    "gptj",
    "granite",
    "mpt",
    "olmo",
    "phi",
    "phi3",
    "smollm3",
    "stablelm",
    "starcoder2",
]


class ImportedCircuits(DriftRanks):
    """Circuits of one fine-tuning, made by another tool; they take the place of a CircuitLoRA's ``phase_1``."""

    format: Literal["eap-json"] = Field(description="eap-json: the output of EAP-IG's Graph.to_json, gzipped or not")
    checkpoints: dict[CheckpointLabel, Path] = Field(description='file of each checkpoint; "00" is the base model\'s')
    policy: Policy = Field("score_change", description="excess needs scores by fold, which imported circuits lack")
    model: str | None = Field(None, min_length=1, description="hub id of the base model, for adapter_config.json")
    architecture: Architecture | None = Field(
        None,
        description="model_type of the base model, which determines the module names in adapter_config.json; null: "
        "gpt_neox if attention and MLP are parallel in the circuits, otherwise an error",
    )

    @field_validator("checkpoints", mode="before")
    @classmethod
    def _labels_are_quoted(cls, value: Any) -> Any:
        numbers = [label for label in value if isinstance(label, int)] if isinstance(value, dict) else []
        if numbers:
            raise ValueError(
                f"{numbers} are numbers, as YAML reads unquoted digits; write two digits in quotes, "
                'such as {"00": before.json, "01": after.json}'
            )
        return value

    @field_validator("checkpoints", mode="after")
    @classmethod
    def _a_base_and_a_later_one(cls, value: dict[str, Path]) -> dict[str, Path]:
        if BASE_CHECKPOINT not in value:
            raise ValueError(
                f'has no "{BASE_CHECKPOINT}", only {sorted(value)}; '
                f'give the circuit before fine-tuning as "{BASE_CHECKPOINT}"'
            )
        if len(value) < 2:
            raise ValueError(
                f'has only "{BASE_CHECKPOINT}"; drift needs at least one later circuit, such as "01": after.json'
            )
        return dict(sorted(value.items()))

    @model_validator(mode="after")
    def _policy_needs_no_folds(self) -> ImportedCircuits:
        if self.policy == "excess":
            raise ValueError(
                "policy: excess needs scores by fold, which imported circuits lack; use policy score_change or "
                "score_change_normalised"
            )
        return self
