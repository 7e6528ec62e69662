"""AdaLoRA: its schedule, its penalty, and the state of its rank allocation between steps.

The method is peft's (Zhang et al. 2023, arXiv 2303.10512): each update is P diag(lambda) Q, and the values lambda of
smallest sensitivity are set to zero until the mean rank has fallen to the target. This module adds what peft leaves to
the training loop: the call after each step, and the penalty, which peft adds only to losses that the model computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from peft import AdaLoraConfig, PeftModel
from peft.tuners.adalora import AdaLoraModel
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.config.methods import AdaLoraMethod
from circuitdrift.decoder.linears import BlockLinear
from circuitdrift.training.adapters import ADAPTER, AdapterError, common_settings, parameter_counts

AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""peft's names for the sensitivity of each adapter weight, its average, and the average of its uncertainty."""

KEPT = "kept"
STATE = "ranks/"


def adalora_config(
    model: PreTrainedModel,
    linears: Sequence[BlockLinear],
    method: AdaLoraMethod,
    alpha_per_rank: float,
    steps: int,
    base_model: tuple[str, str | None],
) -> AdaLoraConfig:
    """PEFT's configuration of AdaLoRA on every block linear, with the schedule in steps of the run.

    Args:
        model: the base model; the meta device is enough.
        linears: its block linears.
        method: ranks and the shares of the schedule.
        alpha_per_rank: the scale, alpha / initial rank.
        steps: steps of the run.
        base_model: name and revision of the base model.

    Raises:
        AdapterError: the run is too short to cut ranks.
    """
    first, last = round(method.initial_share * steps), round(method.final_share * steps)
    cutting = steps - first - last
    if cutting < 2:
        raise AdapterError(
            f"adalora: a run of {steps} steps leaves {cutting} to cut ranks in; raise the method's epochs or "
            "the task's train, or lower initial_share and final_share"
        )
    return AdaLoraConfig(
        **common_settings(model, linears, base_model),
        init_r=method.initial_rank,
        target_r=method.target_rank,
        tinit=first,
        tfinal=last,
        deltaT=max(1, cutting // method.allocations),
        total_step=steps,
        orth_reg_weight=method.orthogonality,
        lora_alpha=cast(int, alpha_per_rank * method.initial_rank),
        lora_dropout=0.0,
    )


class RankSchedule:
    """The rank allocation of a model with AdaLoRA's adapters during training."""

    def __init__(self, adapted: PeftModel) -> None:
        self._tuner = cast(AdaLoraModel, adapted.base_model)
        self._config = cast(AdaLoraConfig, adapted.peft_config[ADAPTER])

    def penalty(self) -> Float[Tensor, ""]:
        """The weighted mean over all P and Q of the Frobenius norm of P'P - 1 (of QQ' - 1), as peft defines it."""
        norms = []
        for name, parameter in self._tuner.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                gram = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
                norms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
        return self._config.orth_reg_weight * torch.stack(norms).mean()

    def after_step(self, step: int) -> None:
        """Update the sensitivities from the gradients, before these are cleared, and cut values when a cut is due.

        Args:
            step: the step that the optimiser has just taken, from 1.
        """
        self._tuner.update_and_allocate(step)

    def ranks(self) -> dict[str, int]:
        """The rank of every adapted linear by the last allocation; before the first allocation the initial rank."""
        kept = self._config.rank_pattern or {}
        return {
            name.removesuffix(f".lora_E.{ADAPTER}"): sum(kept[name]) if name in kept else len(parameter)
            for name, parameter in self._tuner.model.named_parameters()
            if name.endswith(f".lora_E.{ADAPTER}")
        }

    def parameters(self) -> int:
        """Number of adapter parameters at the ranks of the last allocation.

        A unit of rank holds a column of P, a value of lambda and a row of Q.
        """
        shapes = {name: parameter.shape for name, parameter in self._tuner.model.named_parameters()}
        return sum(
            rank * (shapes[f"{name}.lora_B.{ADAPTER}"][0] + 1 + shapes[f"{name}.lora_A.{ADAPTER}"][1])
            for name, rank in self.ranks().items()
        )

    def tensors(self) -> dict[str, Tensor]:
        """The state of the allocation between steps."""
        allocator = self._tuner.rankallocator
        averages = {
            f"{STATE}{key}/{name}": tensor for key in AVERAGES for name, tensor in getattr(allocator, key).items()
        }
        kept = {f"{STATE}{KEPT}/{name}": torch.tensor(kept) for name, kept in (self._config.rank_pattern or {}).items()}
        return averages | kept

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state that ``tensors`` returned; tensors of other names are ignored."""
        device = next(self._tuner.model.parameters()).device
        found: dict[str, dict[str, Tensor]] = {key: {} for key in (*AVERAGES, KEPT)}
        for name, tensor in tensors.items():
            if name.startswith(STATE):
                key, parameter = name.removeprefix(STATE).split("/", 1)
                found[key][parameter] = tensor
        for key in AVERAGES:
            setattr(self._tuner.rankallocator, key, {name: tensor.to(device) for name, tensor in found[key].items()})
        self._config.rank_pattern = {name: tensor.tolist() for name, tensor in found[KEPT].items()} or None


def rank_schedule(model: PreTrainedModel | PeftModel) -> RankSchedule | None:
    """The rank allocation of a model; None without AdaLoRA adapters."""
    if isinstance(model, PeftModel) and isinstance(model.peft_config[ADAPTER], AdaLoraConfig):
        return RankSchedule(model)
    return None


def final_parameter_counts(model: PreTrainedModel | PeftModel) -> tuple[int, int]:
    """Number of trainable parameters and of all parameters, AdaLoRA's at the ranks of its last allocation.

    What AdaLoRA has cut stays in the model as zeros and is not counted.
    """
    trainable, total = parameter_counts(model)
    if schedule := rank_schedule(model):
        cut = trainable - schedule.parameters()
        return trainable - cut, total - cut
    return trainable, total
