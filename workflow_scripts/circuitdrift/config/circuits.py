"""Sections ``circuit``, ``faithfulness`` and ``drift``: how circuits are extracted, measured and compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from circuitdrift.section import Fraction, Name, Section

Quadrature = Literal["right", "left", "midpoint", "gauss-legendre"]
BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]
Precision = Literal["auto", "float32", "bfloat16"]
AttributionName = Literal[
    "eap-ig-inputs", "eap", "clean-corrupted", "ceap", "eap-ig-activations", "relp", "gim", "exact", "random"
]
ObjectiveName = Literal["kl", "logit_difference", "answer_loss"]

_AS_IN_CIRCUIT = "as in section circuit; null: its value"
_PRECISION = "auto: that of the weights, on a CPU float32 for bfloat16"
_BATCH_SIZE = "prompt pairs per batch; auto: as many as fit into memory"


class Attribution(Section):
    """How edges are scored: the ``circuit`` section without the choice of edges."""

    attribution: AttributionName = Field(
        "eap-ig-inputs", description="how edges are scored (docs/method.md#attribution)"
    )
    steps: int = Field(5, ge=1, description="of ceap and the eap-ig methods")
    quadrature: Quadrature = Field("right", description="of ceap and eap-ig-inputs; gauss-legendre of the latter")
    objective: ObjectiveName = Field("kl", description="what scores approximate the change of")
    precision: Precision = Field("auto", description=_PRECISION)
    batch_size: BatchSize = Field("auto", description=_BATCH_SIZE)
    folds: int = Field(16, ge=4, description="disjoint groups of prompts, alike in kind, whose scores are kept apart")
    seed: int = Field(0, description="of random scores")

    @model_validator(mode="after")
    def _some_gradient_is_not_zero(self) -> Attribution:
        if self.objective == "kl" and self.attribution in {"eap", "relp", "gim"}:
            raise ValueError(
                f"attribution {self.attribution} takes its gradients on the clean prompt, where objective kl has "
                "gradient zero; use objective logit_difference or answer_loss, or attribution eap-ig-inputs"
            )
        along_a_path = self.attribution in {"ceap", "eap-ig-inputs"}
        alone_at_clean = self.steps == 1 and self.quadrature == "right" and along_a_path
        if self.objective == "kl" and alone_at_clean:
            raise ValueError(
                "steps 1 with quadrature right evaluates only the clean prompt, where objective kl has gradient zero; "
                "use more steps, or quadrature left or midpoint"
            )
        return self

    @model_validator(mode="after")
    def _steps_have_ends(self) -> Attribution:
        if self.attribution == "ceap" and self.quadrature == "gauss-legendre":
            raise ValueError(
                "attribution ceap needs the ends of its steps, which quadrature gauss-legendre does not have; "
                "use quadrature right, left or midpoint, or attribution eap-ig-inputs"
            )
        return self


class Recipe(Section):
    """Another way to score edges, compared with the study's own: the keys of ``circuit`` that it changes."""

    attribution: AttributionName | None = Field(None, description=_AS_IN_CIRCUIT)
    steps: int | None = Field(None, ge=1, description=_AS_IN_CIRCUIT)
    quadrature: Quadrature | None = Field(None, description=_AS_IN_CIRCUIT)
    objective: ObjectiveName | None = Field(None, description=_AS_IN_CIRCUIT)

    def applied_to(self, recipe: Attribution) -> Attribution:
        """The study's recipe with these changes.

        Raises:
            ValidationError: the changed recipe scores nothing.
        """
        return Attribution.model_validate(recipe.model_dump() | self.model_dump(exclude_none=True))


class Selection(Section):
    """Which edges a circuit keeps, before nodes without a path to input or logits are pruned."""

    selection: Literal["top", "threshold", "greedy", "minimal", "consistent"] = Field(
        "top",
        description=(
            "top: the edges of largest absolute score, a share fraction of all edges; threshold: every edge whose "
            "absolute score is at least threshold; greedy: a share fraction of all edges, grown backwards from the "
            "logits; minimal: the smallest top circuit that reaches wanted_faithfulness (kl_model_circuit); "
            "consistent: as top, of the edges whose score has one sign whichever folds are drawn"
        ),
    )
    fraction: Fraction = Field(0.05, description="share of all edges that top, greedy and consistent keep")
    positive_share: Fraction | None = Field(
        None, description="of top: share of the kept edges that are the largest positive scores; the rest are negative"
    )
    threshold: float | None = Field(None, gt=0, description="absolute score, for threshold")
    wanted_faithfulness: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="for minimal")

    @model_validator(mode="after")
    def _settings_fit(self) -> Selection:
        for selection, key in (("threshold", "threshold"), ("minimal", "wanted_faithfulness")):
            given, needed = getattr(self, key) is not None, self.selection == selection
            if given and not needed:
                raise ValueError(f"{key} applies to selection {selection} only; remove it, or change selection")
            if needed and not given:
                raise ValueError(f"selection {selection} needs {key}; add it, or change selection")
        if self.positive_share is not None and self.selection != "top":
            raise ValueError("positive_share applies to selection top only; remove it, or change selection")
        return self


class Circuit(Attribution, Selection):
    """Circuit extraction: edge attribution and edge selection."""

    def recipe(self) -> Attribution:
        """The part that scoring depends on; without the choice of edges, so that a new choice re-scores nothing."""
        return Attribution.model_validate(self.model_dump(include=set(Attribution.model_fields)))

    def choice(self) -> Selection:
        """The part that selection depends on."""
        return Selection.model_validate(self.model_dump(include=set(Selection.model_fields)))


class Faithfulness(Section):
    """Circuits evaluated on the test split, with an ablated activation on every edge outside the circuit."""

    ablation: Literal["patching", "mean", "zero"] = Field(
        "patching",
        description="patching: the corrupted activation; mean: the mean over all clean prompts and tokens; zero",
    )
    size_fractions: tuple[Fraction, ...] = Field(
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
        description="shares of all edges at which circuits are run, beside the circuit itself",
    )
    examples: int = Field(100, ge=2, description="largest number of examples from the test split")
    precision: Precision = Field("auto", description=_PRECISION)
    batch_size: BatchSize = Field("auto", description=_BATCH_SIZE)
    bootstrap: int = Field(1000, ge=100, description="bootstrap resamples for the confidence intervals")


class Drift(Section):
    """Which circuits are extracted during fine-tuning, and how their change is measured."""

    methods: tuple[Name, ...] | Literal["all"] = Field(
        "all", description="methods whose circuits are extracted at every checkpoint; those of a phase_1 always are"
    )
    half_splits: int = Field(100, ge=20, description="random half-splits of the prompts behind a similarity")
    exchanges: int = Field(199, ge=19, description="exchanges of before and after behind a p-value")
    functional_checkpoints: int = Field(
        3, ge=2, description="checkpoints, the first and the last among them, whose circuits run in each other's models"
    )
    untrained: int = Field(
        2, ge=0, description="untrained models of each architecture whose circuits are extracted as a control"
    )
    random_circuits: int = Field(20, ge=1, description="size-matched random circuits for the control")
    resamples: int = Field(200, ge=100, description="resamples of the folds: how often an edge is in, a layer on top")
    perturbed_draws: int = Field(
        20, ge=0, description="draws of the prompts that fresh ones replace, for each share; 0: no prompts are replaced"
    )
    disjoint_splits: int = Field(
        5, ge=0, description="disjoint groups of the prompts whose circuits are compared with one another; 0: none"
    )

    @model_validator(mode="after")
    def _splits_can_be_compared(self) -> Drift:
        if self.disjoint_splits == 1:
            raise ValueError("disjoint_splits 1 leaves nothing to compare; use 2 or more, or 0 for none")
        return self


class Composition(Section):
    """How the circuit of a compositional task is compared with the union of the circuits of its sub-tasks."""

    scores: Literal["raw", "unit_mass"] = Field(
        "raw",
        description="scores of the two sub-tasks where their circuits are united. raw: as they are, the paper's; "
        "unit_mass: divided by the sum of the absolute scores of their circuit",
    )
    size_fractions: tuple[Fraction, ...] = Field(
        (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1),
        min_length=1,
        description="shares of all edges at which united circuits are run, beside that of the study's own circuits",
    )
    overlap_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        tuple(range(100, 1001, 100)), description="numbers of strongest edges whose overlap is counted"
    )
    random_unions: int = Field(5, ge=1, description="unions of random circuits for the control")
