"""Sections ``methods`` and ``training``: how models are fine-tuned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from circuitdrift.config.section import Name, Section


class Method(Section):
    """What every fine-tuning method may set for itself; null takes the value of the ``training`` section."""

    learning_rate: float | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    warmup_fraction: float | None = Field(None, ge=0, lt=1)


class FullMethod(Method):
    """All weights are trained."""

    kind: Literal["full"]


class LoraMethod(Method):
    """LoRA of one rank on the four linears of every block (every linear of a gated block)."""

    kind: Literal["lora"]
    rank: int = Field(ge=1)


class CircuitLoraMethod(Method):
    """LoRA with ``critical_rank`` in the layers whose circuit drifted most in ``phase_1``, ``rank`` elsewhere."""

    kind: Literal["circuit_lora"]
    rank: int = Field(ge=1)
    critical_rank: int = Field(ge=1)
    critical_layers: int = Field(5, ge=1)
    phase_1: Name
    policy: Literal["score_change", "score_change_normalised"] = "score_change"


class RandomLoraMethod(Method):
    """CircuitLoRA's control: the layers that get ``critical_rank`` are drawn at random, anew for each seed."""

    kind: Literal["random_lora"]
    rank: int = Field(ge=1)
    critical_rank: int = Field(ge=1)
    critical_layers: int = Field(5, ge=1)
    draw: int = Field(0, ge=0, description="number of the draw; give several methods different draws")


MethodConfig = Annotated[FullMethod | LoraMethod | CircuitLoraMethod | RandomLoraMethod, Field(discriminator="kind")]


class Training(Section):
    """Fine-tuning: AdamW, a linear schedule with warm-up, loss on the answer only (PAPER section 3)."""

    epochs: float = Field(4.0, gt=0)
    batch_size: int = Field(32, ge=1)
    micro_batch_size: int | None = Field(
        None, ge=1, description="most examples of one pass, to save memory; null takes the whole batch at once"
    )
    learning_rate_lora: float = Field(3e-4, gt=0)
    learning_rate_full: float = Field(8e-6, gt=0)
    warmup_fraction: float = Field(0.06, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    checkpoints: int = Field(10, ge=1, le=99, description="saved uniformly in steps, beside step 0")
    lora_alpha_per_rank: float = Field(2.0, gt=0, description="alpha = this times the rank: the LoRA scale")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the passes; weights stay as loaded"
    )
