"""Names and markers for readers: tasks, methods, controls, checkpoints and numbers of parameters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from circuitdrift.config.given import GIVEN
from circuitdrift.config.methods import AllocatedLoraMethod, CircuitLoraMethod, MethodConfig, RandomLoraMethod

_TASK_PHRASES = (
    ("add_sub", "Add/Sub"),
    ("mul_div", "Mul/Div"),
    ("lcm", "LCM"),
    ("ioi", "IOI"),
    ("capital_country", "capital-country"),
)
_CONTROLS = {
    "other_seed": "Other seed",
    "data_split": "Other data split",
    "random_circuit": "Random circuits",
    "random_circuits": "Random circuits",
    "wording": "Another wording",
    "untrained": "Untrained model",
    "untrained_seeds": "Two untrained models",
    "degree_preserving": "Random circuits, same degrees",
    "degree_preserving_base": "Random circuits, same degrees, and the base circuit",
}


_CIRCUITS = {
    "own": "Own circuit",
    "union": "Union of sub-tasks",
    "intersection": "Intersection of sub-tasks",
    "random_union": "Union of random circuits",
    "unrelated_union": "Union of unrelated tasks",
}


@dataclass(frozen=True)
class Family:
    """The look of one kind of method in every figure; ``dashes`` as matplotlib's lines take them."""

    title: str
    marker: str
    dashes: Any = "-"


FAMILIES = {
    "full": Family("Full fine-tuning", "D", (0, (1, 1.2))),
    "ia3": Family("IA3", "v"),
    "lora": Family("LoRA", "o"),
    "dora": Family("DoRA", "p"),
    "rslora": Family("rsLoRA", "h"),
    "eva_lora": Family("EVA-LoRA", "d"),
    "adalora": Family("AdaLoRA", "s"),
    "random_lora": Family("RandomLoRA", "X", (0, (3, 1.5))),
    "circuit_lora": Family("CircuitLoRA", "^"),
    "allocated_lora": Family("LoRA by another rule", "P", (0, (5, 1))),
    "grpo": Family("GRPO", "*"),
    GIVEN: Family("Given checkpoints", "<", (0, (5, 1.5))),
}
"""By a method's ``kind``, in the order of legends and tables; last, checkpoints that no method of the study trained."""

_ALLOCATIONS = {
    "uniform": "LoRA, uniform",
    "random": "LoRA, random layers",
    "inverted": "LoRA, least drift",
    "mlp": "LoRA, MLP only",
    "fisher": "LoRA, Fisher",
    "gradient_norm": "LoRA, gradient norm",
    "eva": "LoRA, EVA's ranks",
    "adalora": "LoRA, AdaLoRA's ranks",
}
"""Titles of LoRAs whose ranks follow another rule than drift, by their ``allocation``."""

_RANKS = ("rank", "critical_rank", "initial_rank", "target_rank")
_UNNAMED = {*_RANKS, "kind", "phase_1", "critical_layers", "answers"}


@dataclass(frozen=True)
class MethodLabels:
    """Labels of a study's methods, their families and their order.

    A label is the title of the method's family (LoRA for a RandomLoRA whose layers are all fixed), its ranks, and a
    phrase for each other field that is not the default: ``LoRA r=8``, ``CircuitLoRA (8, 32), normalised``. ``Sham``
    stands before a method on permuted answers. CircuitLoRAs that differ in their phase 1 alone name it. Methods that
    still have one label have their keys in brackets.
    """

    methods: Mapping[str, MethodConfig]

    @cached_property
    def _labels(self) -> dict[str, str]:
        labels = {name: _own_label(method) for name, method in self.methods.items()}
        named = dict(labels)
        for name in _of_shared_labels(labels):
            method = self.methods[name]
            if isinstance(method, CircuitLoraMethod):
                named[name] = f"{labels[name]}, phase 1 {labels.get(method.phase_1, method.phase_1)}"
        named |= {name: f"{named[name]} [{name}]" for name in _of_shared_labels(named)}
        return named | {GIVEN: FAMILIES[GIVEN].title}

    def of(self, name: str) -> str:
        """The label of a method, distinct from all other labels of the study."""
        return self._labels[name]

    def family(self, name: str) -> Family:
        """The family of a method."""
        return FAMILIES[self._kind(name)]

    def is_sham(self, name: str) -> bool:
        """Whether a method is a control: trained on permuted answers."""
        return name != GIVEN and self.methods[name].answers == "permuted"

    def order(self, name: str) -> tuple[bool, int, tuple[int, ...], str]:
        """Sort key of a method: controls on permuted answers last, then its family, its ranks, its name."""
        ranks = () if name == GIVEN else _ranks(self.methods[name])
        return self.is_sham(name), list(FAMILIES).index(self._kind(name)), ranks, name

    def _kind(self, name: str) -> str:
        return GIVEN if name == GIVEN else self.methods[name].kind


def _of_shared_labels(labels: Mapping[str, str]) -> list[str]:
    """The methods that share their label with another method."""
    counts = Counter(labels.values())
    return [name for name, label in labels.items() if counts[label] > 1]


def _own_label(method: MethodConfig) -> str:
    """The label that follows from a method's own fields alone."""
    fields = type(method).model_fields
    unusual = {name: getattr(method, name) for name, field in fields.items() if getattr(method, name) != field.default}
    unnamed = {*_UNNAMED, "allocation"} if isinstance(method, AllocatedLoraMethod) else _UNNAMED
    phrases = [_phrase(name, value) for name, value in unusual.items() if name not in unnamed]
    sham = "Sham " if method.answers == "permuted" else ""
    return ", ".join([sham + _title(method) + _size(method), *phrases])


def _title(method: MethodConfig) -> str:
    """The title of the method's family or allocation; where a RandomLoRA has nothing to draw, that of LoRA."""
    if isinstance(method, AllocatedLoraMethod):
        return _ALLOCATIONS[method.allocation]
    is_drawn = not (isinstance(method, RandomLoraMethod) and method.given_layers)
    return FAMILIES[method.kind if is_drawn else "lora"].title


def _ranks(method: MethodConfig) -> tuple[int, ...]:
    return tuple(getattr(method, name) for name in _RANKS if hasattr(method, name))


def _size(method: MethodConfig) -> str:
    ranks = _ranks(method)
    if method.kind == "adalora":
        return f" r={ranks[0]} to {ranks[1]}"
    return "" if not ranks else f" r={ranks[0]}" if len(ranks) == 1 else f" {ranks}"


def _phrase(field: str, value: Any) -> str:
    """A few words for the value of a method's field."""
    if field == "epochs":
        return f"{value:g} epoch{'' if value == 1 else 's'}"
    if field == "include_layers":
        return f"{_layers(value)} fixed"
    if field == "exclude_layers":
        return f"without {_layers(value)}"
    if field == "by":
        return f"by {value.removesuffix('s')}"
    if field == "credit":
        return f"credit {value}"
    if isinstance(value, str):
        return value.removeprefix("score_change_").replace("_", " ")
    return f"{field.replace('_', ' ').replace('kl ', 'KL ')} {value:g}"


def _layers(layers: tuple[int, ...]) -> str:
    return f"layer{'' if len(layers) == 1 else 's'} {', '.join(map(str, layers))}"


def task_label(name: str) -> str:
    """A task's name for a panel title: ``add_sub_100`` becomes ``Add/Sub (100)``."""
    text = name
    for key, phrase in _TASK_PHRASES:
        text = re.sub(rf"(?<![A-Za-z]){key}(?![A-Za-z])", phrase, text)
    text = re.sub(r"_(\d+)$", r" (\1)", text)
    return _as_words(text)


def control_label(name: str) -> str:
    """A control's name: ``other_seed`` becomes ``Other seed``."""
    return _CONTROLS.get(name, _as_words(name))


def circuit_label(name: str) -> str:
    """A circuit that is compared on a compositional task: a kind, such as ``union``, or the name of a sub-task."""
    return _CIRCUITS.get(name) or task_label(name)


def checkpoint_label(name: str) -> str:
    """A checkpoint's name: ``00`` becomes ``base model``, ``10`` ``checkpoint 10``."""
    return "base model" if name == "00" else f"checkpoint {int(name)}"


def share_label(share: float) -> str:
    """A share of the model's parameters, given as a fraction, in percent with three significant digits."""
    return f"{100 * share:#.3g}".rstrip(".") + " %"


def _as_words(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
