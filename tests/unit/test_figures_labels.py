"""Labels, markers and the order of methods, tasks and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml
from figure_tables import LABELS, METHODS
from pydantic import TypeAdapter

from circuitdrift.config.figures import Figures
from circuitdrift.config.given import GIVEN
from circuitdrift.config.methods import MethodConfig
from circuitdrift.figures.labels import (
    FAMILIES,
    MethodLabels,
    checkpoint_label,
    control_label,
    share_label,
    task_label,
)
from circuitdrift.figures.style import method_styles

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CIRCUIT_LORA = {"kind": "circuit_lora", "rank": 2, "critical_rank": 8, "phase_1": "first"}


def labels_of(methods: dict[str, dict[str, object]]) -> MethodLabels:
    return MethodLabels(TypeAdapter(dict[str, MethodConfig]).validate_python(methods))


def labels_in(config: str) -> dict[str, str]:
    methods = yaml.safe_load((CONFIGS / config).read_text()).get("methods", {})
    labels = labels_of(methods)
    return {name: labels.of(name) for name in methods}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("add_sub_100", "Add/Sub (100)"),
        ("mul_div", "Mul/Div"),
        ("lcm", "LCM"),
        ("complex_ioi", "Complex IOI"),
        ("compositional_add_sub", "Compositional Add/Sub"),
        ("own", "Own"),
    ],
)
def test_tasks_have_readable_names(name: str, label: str) -> None:
    assert task_label(name) == label


def test_every_method_of_the_study_of_methods_has_its_own_label() -> None:
    assert labels_in("methods.yaml") == {
        "full": "Full fine-tuning",
        "lora_r2": "LoRA r=2",
        "lora_r2_short": "LoRA r=2, 1 epoch",
        "lora_r4": "LoRA r=4",
        "dora_r4": "DoRA r=4",
        "rslora_r4": "rsLoRA r=4",
        "eva_lora_r4": "EVA-LoRA r=4",
        "adalora": "AdaLoRA r=8 to 4",
        "ia3": "IA3",
        "circuit_lora": "CircuitLoRA (2, 8), phase 1 LoRA r=2",
        "circuit_lora_short": "CircuitLoRA (2, 8), phase 1 LoRA r=2, 1 epoch",
        "circuit_lora_normalised": "CircuitLoRA (2, 8), normalised",
        "circuit_lora_threshold": "CircuitLoRA (2, 8), threshold",
        "circuit_lora_proportional": "CircuitLoRA (2, 8), proportional",
        "circuit_lora_per_module": "CircuitLoRA (2, 8), per module",
        "circuit_lora_inverted": "CircuitLoRA (2, 8), inverted",
        "random_lora": "RandomLoRA (2, 8)",
        "random_lora_with_0": "RandomLoRA (2, 8), layer 0 fixed",
        "random_lora_without_0": "RandomLoRA (2, 8), without layer 0",
        "lora_on_layer_0": "LoRA (2, 14), layer 0 fixed",
    }


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_labels_of_every_shipped_study_are_distinct(config: str) -> None:
    labels = labels_in(config)
    assert len(set(labels.values())) == len(labels)


def test_the_smoke_study_has_plain_labels() -> None:
    assert list(labels_in("smoke.yaml").values()) == ["LoRA r=1", "LoRA r=2", "CircuitLoRA (1, 3)", "RandomLoRA (1, 3)"]


def test_fields_that_are_not_the_default_are_named() -> None:
    labels = labels_of(
        {
            "a": {"kind": "grpo", "rank": 4, "kl_coefficient": 0.01, "epochs": 2},
            "b": {"kind": "random_lora", "rank": 16, "critical_rank": 64, "draw": 1, "exclude_layers": [0, 3]},
            "c": {"kind": "ia3", "learning_rate": 0.001},
        }
    )
    assert labels.of("a") == "GRPO r=4, 2 epochs, KL coefficient 0.01"
    assert labels.of("b") == "RandomLoRA (16, 64), draw 1, without layers 0, 3"
    assert labels.of("c") == "IA3, learning rate 0.001"


def test_methods_that_the_fields_do_not_tell_apart_have_their_keys_in_brackets() -> None:
    first = {"kind": "lora", "rank": 2}
    labels = labels_of({"first": first, "few": {**CIRCUIT_LORA, "critical_layers": 1}, "many": CIRCUIT_LORA})
    assert labels.of("few") == "CircuitLoRA (2, 8), phase 1 LoRA r=2 [few]"
    assert labels.of("many") == "CircuitLoRA (2, 8), phase 1 LoRA r=2 [many]"


def test_the_key_says_nothing_about_the_family() -> None:
    labels = labels_of({"lora_r9": {"kind": "random_lora", "rank": 2, "critical_rank": 8}})
    styles = method_styles(["lora_r9"], Figures(), labels)
    assert (styles["lora_r9"].label, styles["lora_r9"].marker) == ("RandomLoRA (2, 8)", "X")


def test_every_kind_of_method_has_a_family_with_a_marker_of_its_own() -> None:
    sections = get_args(get_args(MethodConfig)[0])
    kinds = {get_args(section.model_fields["kind"].annotation)[0] for section in sections}
    assert set(FAMILIES) == {*kinds, GIVEN}
    assert len({family.marker for family in FAMILIES.values()}) == len(FAMILIES)


def test_other_labels() -> None:
    assert [share_label(share) for share in (0.001111, 0.14, 1.0)] == ["0.111 %", "14.0 %", "100 %"]
    assert [checkpoint_label(name) for name in ("00", "10")] == ["base model", "checkpoint 10"]
    assert control_label("random_circuit") == "Random circuits"


def test_methods_are_ordered_by_family_and_then_by_rank() -> None:
    ordered = ["full", "lora_r2", "lora_r8", "lora_r16", "random_lora_8_32", "circuit_lora_8_32"]
    assert sorted(METHODS, key=LABELS.order) == ordered


def test_every_method_has_its_own_colour_however_many_there_are() -> None:
    for count in (1, 10, 25):
        methods = {f"lora_r{rank}": {"kind": "lora", "rank": rank} for rank in range(1, count + 1)}
        styles = method_styles(list(methods), Figures(), labels_of(methods))
        assert len({look.colour for look in styles.values()}) == count


def test_a_credit_is_named_as_such() -> None:
    own = {"kind": "circuit_lora", "rank": 2, "critical_rank": 8, "critical_layers": 2, "phase_1": "a"}
    labels = MethodLabels(TypeAdapter(dict[str, MethodConfig]).validate_python({"m": {**own, "credit": "target"}}))
    assert labels.of("m") == "CircuitLoRA (2, 8), credit target"


def test_a_sham_method_is_named_as_such_and_stands_last() -> None:
    labels = labels_of(
        {
            "a_sham": {"kind": "lora", "rank": 2, "answers": "permuted"},
            "true": {"kind": "lora", "rank": 2},
            "short": {"kind": "lora", "rank": 2, "answers": "permuted", "epochs": 1},
            "grpo": {"kind": "grpo", "rank": 2},
        }
    )
    wanted = ["LoRA r=2", "GRPO r=2", "Sham LoRA r=2", "Sham LoRA r=2, 1 epoch"]
    assert [labels.of(name) for name in sorted(labels.methods, key=labels.order)] == wanted
    assert [name for name in labels.methods if labels.is_sham(name)] == ["a_sham", "short"]
