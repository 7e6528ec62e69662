"""Sections ``circuit``, ``faithfulness`` and ``drift``: how circuits are extracted, measured and compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from circuitdrift.section import Fraction, Name, Section

Quadrature = Literal["right", "left", "midpoint"]
BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]
Precision = Literal["auto", "float32", "bfloat16"]


class Attribution(Section):
    """How edges are scored: all of the ``circuit`` section but the choice of edges."""

    attribution: Literal["eap-ig-inputs", "eap", "clean-corrupted", "eap-ig-activations", "exact", "random"] = (
        "eap-ig-inputs"
    )
    steps: int = Field(5, ge=1, description="of the eap-ig methods")
    quadrature: Quadrature = Field("right", description="of eap-ig-inputs")
    objective: Literal["kl", "logit_difference", "answer_loss"] = "kl"
    precision: Precision = Field("auto", description="auto: as the weights are, but float32 where bfloat16 is slow")
    batch_size: BatchSize = Field("auto", description="prompt pairs that are run as one; auto: what memory allows")
    seed: int = Field(0, description="of random scores")

    @model_validator(mode="after")
    def _some_run_has_a_gradient(self) -> Attribution:
        if self.objective == "kl" and self.attribution == "eap":
            raise ValueError(
                "attribution eap takes its gradients at the clean run, where those of objective kl are all zero; "
                "use objective logit_difference or answer_loss, or attribution eap-ig-inputs"
            )
        alone_at_clean = self.steps == 1 and self.quadrature == "right" and self.attribution == "eap-ig-inputs"
        if self.objective == "kl" and alone_at_clean:
            raise ValueError(
                "steps 1 with quadrature right is the clean run itself, where every gradient of objective kl is zero; "
                "use more steps, or quadrature left or midpoint"
            )
        return self


class Selection(Section):
    """Which edges a circuit keeps, before nodes without a way to input or logits are pruned."""

    selection: Literal["top", "threshold", "greedy", "minimal"] = Field(
        "top",
        description=(
            "top: the share fraction of all edges, by absolute score; threshold: every edge of at least that absolute "
            "score; greedy: the share fraction, grown from logits up; minimal: the smallest top circuit that is as "
            "faithful (kl_model_circuit) as wanted"
        ),
    )
    fraction: Fraction = Field(0.05, description="share of all edges that top and greedy keep")
    threshold: float | None = Field(None, gt=0, description="absolute score, for threshold")
    wanted_faithfulness: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="for minimal")

    @model_validator(mode="after")
    def _settings_fit(self) -> Selection:
        for selection, key in (("threshold", "threshold"), ("minimal", "wanted_faithfulness")):
            given = getattr(self, key) is not None
            if given != (self.selection == selection):
                raise ValueError(
                    f"{key} goes with selection {selection}, and is needed there; "
                    f"{'remove it, or set' if given else 'give one, or change'} selection"
                )
        return self


class Circuit(Attribution, Selection):
    """Circuit extraction: edge attribution, and which edges the circuit keeps."""

    def recipe(self) -> Attribution:
        """The part that scoring depends on, so that another choice of edges re-scores nothing."""
        return Attribution.model_validate(self.model_dump(include=set(Attribution.model_fields)))

    def choice(self) -> Selection:
        """The part that selection depends on."""
        return Selection.model_validate(self.model_dump(include=set(Selection.model_fields)))


class Faithfulness(Section):
    """Circuit runs on the circuit split, every edge outside the circuit carrying an ablated activation."""

    ablation: Literal["patching", "mean", "zero"] = Field(
        "patching", description="patching: the corrupted activation; mean: over all clean prompts and tokens; zero"
    )
    size_fractions: tuple[Fraction, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    examples: int = Field(100, ge=2, description="at most this many examples of the circuit split")
    precision: Precision = "auto"
    batch_size: BatchSize = "auto"
    bootstrap: int = Field(1000, ge=100, description="resamples for the intervals")


class Drift(Section):
    """Which circuits are extracted along fine-tuning, and how their change is measured."""

    methods: tuple[Name, ...] | Literal["all"] = Field(
        "all", description="methods whose circuit is extracted at every checkpoint; a phase_1 always is"
    )
    random_circuits: int = Field(20, ge=1, description="size-matched random circuits for the control")
