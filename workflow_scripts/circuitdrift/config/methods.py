"""Sections ``methods`` and ``training``: how models are fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from circuitdrift.section import Name, Section

Policy = Literal["score_change", "score_change_normalised", "excess"]
Credit = Literal["source", "target", "both", "counts"]

CREDIT_DESCRIPTION = (
    "the layer to which an edge's change counts. source: the layer that writes, the paper's; target: the layer that "
    "reads; both: half to each; counts: each edge that came or went counts 1 for the layer that writes"
)


POLICY_DESCRIPTION = (
    "the change by which layers are ordered. score_change: of the edges' absolute scores, the paper's; "
    "score_change_normalised: the same after normalisation; excess: the change beyond noise, which needs scores by fold"
)


def check_credit(policy: Policy, credit: Credit) -> None:
    """Refuse credit ``counts`` with a policy that it would ignore.

    Raises:
        ValueError: ``counts`` is combined with another policy than the default.
    """
    if credit == "counts" and policy != "score_change":
        raise ValueError(
            f"credit: counts counts edges and reads no scores, so policy {policy} would be ignored; remove policy, "
            "or choose credit source, target or both"
        )


class Method(Section):
    """Keys that every fine-tuning method may set; null takes the value of the ``training`` section."""

    learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate; null: learning_rate_full of training for full, else its lora one"
    )
    epochs: float | None = Field(None, gt=0, description="passes over the train split; null: that of training")
    warmup_fraction: float | None = Field(
        None, ge=0, lt=1, description="share of the steps in which the learning rate rises; null: that of training"
    )
    answers: Literal["own", "permuted"] = Field(
        "own",
        description="what the loss is on. own: each prompt's right answer; permuted (a control, sham fine-tuning): the "
        "right answers of other train prompts, drawn by the run's seed; accuracy is measured on the right answers",
    )


class FullMethod(Method):
    """Full fine-tuning: all weights are trained."""

    kind: Literal["full"]


class UniformRankMethod(Method):
    """LoRA of one rank on every linear of every block: four in a GPT-NeoX block, seven in a gated block."""

    rank: int = Field(ge=1, description="of every adapted linear")


class LoraMethod(UniformRankMethod):
    """Plain LoRA; its scale is ``training.lora_alpha_per_rank`` at every rank."""

    kind: Literal["lora"]


class DoraMethod(UniformRankMethod):
    """LoRA on the direction of each weight; the magnitude of each row is trained separately."""

    kind: Literal["dora"]


class EvaLoraMethod(UniformRankMethod):
    """LoRA initialised with the directions of largest variance of the training data's activations."""

    kind: Literal["eva_lora"]


class RsLoraMethod(UniformRankMethod):
    """Rank-stabilised LoRA, whose scale falls with the square root of the rank."""

    kind: Literal["rslora"]
    alpha: float = Field(4.0, gt=0, description="the scale is alpha / sqrt(rank)")


class GrpoMethod(UniformRankMethod):
    """Plain LoRA trained by reinforcement learning (GRPO): the model samples answers, and right answers are rewarded.

    The loss never sees the right answer, only which of a prompt's ``group_size`` samples equal it.
    """

    kind: Literal["grpo"]
    group_size: int = Field(
        16, ge=2, description="answers sampled for each prompt; the advantage compares them, so at least two"
    )
    temperature: float = Field(1.0, gt=0, description="of the sampling; the policy is the model at this temperature")
    kl_coefficient: float = Field(
        0.04, ge=0, description="weight of KL(policy || reference); the reference is the model without its adapter"
    )

    @model_validator(mode="after")
    def _rewards_need_right_answers(self) -> GrpoMethod:
        if self.answers == "permuted":
            raise ValueError(
                "answers: permuted is a control of methods that train on given answers; grpo samples its own and "
                "would find nearly none that a permuted answer rewards; remove the key, or use kind: lora"
            )
        return self


class AdaLoraMethod(Method):
    """LoRA as a singular value decomposition whose least important singular values are pruned during training.

    The mean rank falls from ``initial_rank`` to ``target_rank`` along a cubic curve. It is constant in the first part
    of the steps (``initial_share``) and in the last part (``final_share``).
    """

    kind: Literal["adalora"]
    learning_rate: float | None = Field(8e-3, gt=0, description="peak learning rate; null: that of training")
    initial_rank: int = Field(32, ge=2, description="mean rank at the start")
    target_rank: int = Field(16, ge=1, description="mean rank at the end")
    initial_share: float = Field(0.1, ge=0, lt=1, description="share of the steps before the first pruning")
    final_share: float = Field(0.3, ge=0, lt=1, description="share of the steps after the last pruning")
    allocations: int = Field(50, ge=1, description="number of rank reallocations, at most one per step")
    orthogonality: float = Field(0.5, ge=0, description="weight of the penalty that keeps singular vectors orthogonal")

    @model_validator(mode="after")
    def _schedule_has_room(self) -> AdaLoraMethod:
        if self.target_rank >= self.initial_rank:
            raise ValueError(
                f"target_rank: {self.target_rank} is not below initial_rank {self.initial_rank}, so nothing would be "
                "pruned; lower it, or use kind: lora"
            )
        if self.initial_share + self.final_share >= 1:
            raise ValueError(
                f"initial_share + final_share: {self.initial_share:g} + {self.final_share:g} leave no steps to prune "
                "ranks in; lower either share"
            )
        return self


class Ia3Method(Method):
    """Trained scaling factors on the outputs of the attention's linears and the inputs of the MLP's, nothing else."""

    kind: Literal["ia3"]
    learning_rate: float | None = Field(8e-3, gt=0, description="peak learning rate; null: that of training")


class CircuitLoraMethod(Method):
    """LoRA with more rank in the layers, or the modules, whose circuit drifted most in ``phase_1``.

    ``rank``, ``critical_rank`` and ``critical_layers`` set the parameter budget: ``critical_rank`` in that many layers
    and ``rank`` in the others. Every ``allocation`` spends this budget as nearly as whole ranks allow, never more.
    """

    kind: Literal["circuit_lora"]
    rank: int = Field(ge=1, description="of the other layers")
    critical_rank: int = Field(ge=1, description="of the critical layers")
    critical_layers: int = Field(5, ge=1, description="number of critical layers")
    phase_1: Name = Field(description="the method whose drift decides; its circuits are extracted first")
    circuit: Literal["own", "union"] = Field(
        "own",
        description="whose drift decides. own: the circuit of the task that is trained on; union: the union of the "
        "circuits of its two sub-tasks, for compositional tasks alone",
    )
    policy: Policy = Field("score_change", description=POLICY_DESCRIPTION)
    credit: Credit = Field("source", description=CREDIT_DESCRIPTION)
    allocation: Literal["top", "threshold", "proportional", "per_module", "inverted"] = Field(
        "top",
        description="where the additional rank goes. top: the critical_layers layers of largest drift; threshold: "
        "layers more than one standard deviation above the mean drift; proportional: all layers, by drift; "
        "per_module: single modules (q, k, v, output, MLP), by the changes of the edges that touch them; "
        "inverted (a control): the critical_layers layers of smallest drift",
    )

    @model_validator(mode="after")
    def _budget_has_something_to_spend(self) -> CircuitLoraMethod:
        if self.allocation != "top" and self.critical_rank <= self.rank:
            raise ValueError(
                f"critical_rank: {self.critical_rank} is not above rank {self.rank}, so allocation "
                f"'{self.allocation}' has nothing to spend; raise it"
            )
        return self

    @model_validator(mode="after")
    def _policy_credit_and_allocation_fit(self) -> CircuitLoraMethod:
        check_credit(self.policy, self.credit)
        if self.policy == "excess" and self.circuit == "union":
            raise ValueError(
                "policy: excess needs scores by fold, which the union of two tasks' circuits does not have; use policy "
                "score_change or score_change_normalised, or circuit own"
            )
        if self.allocation == "per_module":
            if self.policy == "excess":
                raise ValueError(
                    "policy: excess is a value of layers, but allocation per_module needs changes of single modules; "
                    "use policy score_change or score_change_normalised, or another allocation"
                )
            if self.credit != "source":
                raise ValueError(
                    f"credit: {self.credit} credits layers, but allocation per_module credits each change to the "
                    "modules at both ends of an edge; remove credit, or use another allocation"
                )
        return self


class RandomLoraMethod(Method):
    """CircuitLoRA's control: the layers that get ``critical_rank`` are drawn at random, separately for each seed.

    ``include_layers: [0]`` draws with layer 0, ``exclude_layers: [0]`` without it, and ``include_layers: [0]`` with
    ``critical_layers: 1`` is the control that spends everything on layer 0. With as many ``include_layers`` as
    ``critical_layers`` the layers are given, and nothing is left to draw.
    """

    kind: Literal["random_lora"]
    rank: int = Field(ge=1, description="of the other layers")
    critical_rank: int = Field(ge=1, description="of the critical layers")
    critical_layers: int = Field(5, ge=1, description="number of critical layers")
    draw: int = Field(0, ge=0, description="number of the draw; use another number for each random method")
    include_layers: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="layers that are always critical")
    exclude_layers: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="layers that are never critical")

    @model_validator(mode="after")
    def _layers_can_be_drawn(self) -> RandomLoraMethod:
        if both := sorted(set(self.include_layers) & set(self.exclude_layers)):
            raise ValueError(f"exclude_layers: {both} are also in include_layers; remove them from either list")
        if len(set(self.include_layers)) > self.critical_layers:
            raise ValueError(
                f"include_layers: {len(set(self.include_layers))} layers exceed critical_layers "
                f"{self.critical_layers}; raise critical_layers, or name fewer layers"
            )
        return self

    @property
    def given_layers(self) -> tuple[int, ...]:
        """The critical layers in ascending order where nothing is left to draw; none where some are drawn."""
        included = tuple(sorted(set(self.include_layers)))
        return included if len(included) == self.critical_layers else ()


class AllocatedLoraMethod(Method):
    """Plain LoRA whose ranks follow another rule than drift, at exactly the size of a CircuitLoRA of the same ranks.

    ``rank``, ``critical_rank`` and ``critical_layers`` set the number of parameters: ``critical_rank`` in that many
    layers and ``rank`` in the others. Every ``allocation`` has exactly this number, or is refused.
    """

    kind: Literal["allocated_lora"]
    rank: int = Field(ge=1, description="of the other layers")
    critical_rank: int = Field(ge=1, description="of the critical layers")
    critical_layers: int = Field(5, ge=1, description="number of critical layers")
    allocation: Literal["uniform", "random", "inverted", "mlp", "fisher", "gradient_norm", "eva", "adalora"] = Field(
        description="what ranks follow. uniform: one rank; random: layers drawn at random; inverted: the layers of "
        "smallest drift in phase_1; mlp: one rank in the MLPs, none in the attention; fisher: squared gradients of the "
        "base model on single train prompts; gradient_norm: its weights times their mean gradient, as in GoRA; eva: "
        "EVA's redistribution by activations; adalora: the ranks that phase_1 ended with"
    )
    by: Literal["layers", "modules"] = Field(
        "layers",
        description="for fisher and gradient_norm. layers: critical_rank in the layers of largest value; modules: "
        "every linear by its own value, as GoRA does",
    )
    phase_1: Name | None = Field(None, description="inverted: a lora or full method; adalora: an adalora method")
    draw: int = Field(0, ge=0, description="random: number of the draw; use another number for each random method")

    @model_validator(mode="after")
    def _budget_has_something_to_spend(self) -> AllocatedLoraMethod:
        if self.critical_rank <= self.rank:
            raise ValueError(
                f"critical_rank: {self.critical_rank} is not above rank {self.rank}, so allocation "
                f"'{self.allocation}' has nothing to spend; raise it"
            )
        return self

    @model_validator(mode="after")
    def _no_key_is_ignored(self) -> AllocatedLoraMethod:
        if self.allocation in {"inverted", "adalora"} and self.phase_1 is None:
            kind = "an adalora" if self.allocation == "adalora" else "a lora or full"
            raise ValueError(
                f"allocation: {self.allocation} follows another run; add phase_1, the name of {kind} method"
            )
        if self.allocation not in {"inverted", "adalora"} and self.phase_1 is not None:
            raise ValueError(f"phase_1: allocation {self.allocation} follows no other run; remove phase_1")
        if self.allocation not in {"fisher", "gradient_norm"} and self.by == "modules":
            raise ValueError(
                f"by: allocation {self.allocation} has its own; remove by, which fisher and gradient_norm read"
            )
        if self.allocation != "random" and self.draw:
            raise ValueError(f"draw: allocation {self.allocation} draws nothing; remove draw")
        return self


MethodConfig = Annotated[
    FullMethod
    | LoraMethod
    | DoraMethod
    | EvaLoraMethod
    | RsLoraMethod
    | GrpoMethod
    | AdaLoraMethod
    | Ia3Method
    | CircuitLoraMethod
    | RandomLoraMethod
    | AllocatedLoraMethod,
    Field(discriminator="kind"),
]


def sham_twins(methods: Mapping[str, MethodConfig]) -> dict[str, str]:
    """The true twin of each control on permuted answers among some methods: the same method on its own answers."""
    return {
        sham: twin
        for sham, of_sham in methods.items()
        for twin, of_twin in methods.items()
        if of_sham.answers == "permuted" and of_sham.model_copy(update={"answers": "own"}) == of_twin
    }


class Training(Section):
    """Fine-tuning: AdamW, a linear schedule with warm-up, loss on the answer only (docs/method.md#training)."""

    epochs: float = Field(4.0, gt=0, description="passes over the train split")
    batch_size: int = Field(32, ge=1, description="examples per step")
    micro_batch_size: int | None = Field(
        None, ge=1, description="largest number of examples per pass, to save memory; null: the whole batch"
    )
    learning_rate_lora: float = Field(3e-4, gt=0, description="peak learning rate of methods that train adapters")
    learning_rate_full: float = Field(8e-6, gt=0, description="peak learning rate of full fine-tuning")
    warmup_fraction: float = Field(
        0.06, ge=0, lt=1, description="share of the steps in which the learning rate rises to its peak"
    )
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    gradient_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    checkpoints: int = Field(10, ge=1, le=99, description="number saved, evenly spaced in steps, besides step 0")
    lora_alpha_per_rank: float = Field(2.0, gt=0, description="alpha / rank, which is the LoRA scale")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="precision of forward and backward passes; weights keep the dtype they are loaded in"
    )

    def epochs_of(self, method: Method) -> float:
        """The epochs of a method: its own, or this section's."""
        return method.epochs or self.epochs

    def steps_of(self, method: Method, n_examples: int) -> int:
        """The optimiser steps of a method on this many examples."""
        return max(1, round(self.epochs_of(method) * n_examples / self.batch_size))
