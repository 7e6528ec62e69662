"""Names as a reader sees them: tasks, methods, controls and numbers of parameters."""

from __future__ import annotations

import re

_TASK_PHRASES = (
    ("add_sub", "Add/Sub"),
    ("mul_div", "Mul/Div"),
    ("lcm", "LCM"),
    ("ioi", "IOI"),
    ("capital_country", "capital-country"),
)
_METHOD_FAMILIES = {
    "circuit_lora": "CircuitLoRA",
    "random_lora": "RandomLoRA",
    "adalora": "AdaLoRA",
    "lora": "LoRA",
    "grpo": "GRPO",
}
_METHOD_ORDER = ("full", "ia3", "lora", "adalora", "random_lora", "circuit_lora", "grpo")
_CONTROLS = {
    "other_seed": "Other seed",
    "data_split": "Other data split",
    "random_circuit": "Random circuits",
    "random_circuits": "Random circuits",
}


def task_label(name: str) -> str:
    """A task's name for a panel title: ``add_sub_100`` becomes ``Add/Sub (100)``."""
    text = name
    for key, phrase in _TASK_PHRASES:
        text = re.sub(rf"(?<![A-Za-z]){key}(?![A-Za-z])", phrase, text)
    text = re.sub(r"_(\d+)$", r" (\1)", text)
    return _as_words(text)


def method_label(name: str) -> str:
    """A method's name for a legend: ``lora_r8`` becomes ``LoRA r=8``, ``circuit_lora_8_32`` ``CircuitLoRA (8, 32)``."""
    if name == "full":
        return "Full fine-tuning"
    if name == "ia3":
        return "IA3"
    for family, title in _METHOD_FAMILIES.items():
        if name == family:
            return title
        if found := re.fullmatch(rf"{family}_r(\d+)(?:_(.+))?", name):
            return _with_suffix(f"{title} r={found[1]}", found[2])
        if found := re.fullmatch(rf"{family}_(\d+)_(\d+)(?:_(.+))?", name):
            return _with_suffix(f"{title} ({found[1]}, {found[2]})", found[3])
    return _as_words(name)


def method_family(name: str) -> str:
    """The family that a method's name announces: full, ia3, lora, adalora, random_lora, circuit_lora, grpo or other."""
    for family in ("full", "ia3", *_METHOD_FAMILIES):
        if name == family or name.startswith(f"{family}_"):
            return family
    return "other"


def method_order(name: str) -> tuple[int, list[int], str]:
    """Sort key for methods: family first, then the numbers in the name (ranks), then the name."""
    family = method_family(name)
    place = _METHOD_ORDER.index(family) if family in _METHOD_ORDER else len(_METHOD_ORDER)
    return place, [int(number) for number in re.findall(r"\d+", name)], name


def control_label(name: str) -> str:
    """A control's name: ``other_seed`` becomes ``Other seed``."""
    return _CONTROLS.get(name, _as_words(name))


def checkpoint_label(name: str) -> str:
    """A checkpoint's name: ``00`` becomes ``base model``, ``10`` ``checkpoint 10``."""
    return "base model" if name == "00" else f"checkpoint {int(name)}"


def share_label(share: float) -> str:
    """A share of the model's parameters, given as a fraction, in percent with three significant digits."""
    return f"{100 * share:#.3g}".rstrip(".") + " %"


def _with_suffix(label: str, suffix: str | None) -> str:
    return label if suffix is None else f"{label}, {suffix.replace('_', ' ')}"


def _as_words(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
