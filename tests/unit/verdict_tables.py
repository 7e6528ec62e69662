"""Small tables of a study on one model, whose verdicts are computed by hand; each test gives those that it is about."""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import pandas as pd
from pydantic import TypeAdapter

from circuitdrift.config.methods import MethodConfig
from circuitdrift.verdicts.tables import Tables

_RANKS = {"rank": 2, "critical_rank": 8, "critical_layers": 2, "phase_1": "lora_r2"}
METHODS = TypeAdapter(dict[str, MethodConfig]).validate_python(
    {
        "lora_r2": {"kind": "lora", "rank": 2},
        "lora_r4": {"kind": "lora", "rank": 4},
        "lora_r4_long": {"kind": "lora", "rank": 4, "epochs": 8},
        "lora_r8": {"kind": "lora", "rank": 8},
        "adalora": {"kind": "adalora", "initial_rank": 8, "target_rank": 4},
        "circuit_lora": {"kind": "circuit_lora", **_RANKS},
        "inverted": {"kind": "circuit_lora", **_RANKS, "allocation": "inverted"},
        "random": {"kind": "random_lora", "rank": 2, "critical_rank": 8, "critical_layers": 2},
        "random_second": {"kind": "random_lora", "rank": 2, "critical_rank": 8, "critical_layers": 2, "draw": 1},
        "without_0": {
            "kind": "random_lora", "rank": 2, "critical_rank": 8, "critical_layers": 2, "exclude_layers": [0]
        },
        "sham": {"kind": "lora", "rank": 2, "answers": "permuted"},
        "grpo": {"kind": "grpo", "rank": 2},
    }
)  # fmt: skip
EMPTY = pd.DataFrame()
FRAMES = [field.name for field in fields(Tables) if field.type == "pd.DataFrame"]


def tables(**frames: pd.DataFrame) -> Tables:
    """A study with these tables alone."""
    given = dict.fromkeys(FRAMES, EMPTY) | frames
    twins = {"sham": "lora_r2"}
    phase_1 = {"circuit_lora": "lora_r2", "inverted": "lora_r2"}
    return Tables(methods=METHODS, phase_1=phase_1, sham_twins=twins, fraction=0.05, **given)


def per_run(values: dict[str, list[float]], column: str, method: str = "lora_r2", **constant: object) -> pd.DataFrame:
    """A row for each task and seed: {task: [value of each seed]}."""
    rows = [("m", task, method, seed, v) for task, seeds in values.items() for seed, v in enumerate(seeds)]
    return pd.DataFrame(rows, columns=["model", "task", "method", "seed", column]).assign(**constant)


def crossed(table: pd.DataFrame, **columns: list[object]) -> pd.DataFrame:
    """Each row once for each combination of values of further columns."""
    combinations = pd.DataFrame(list(product(*columns.values())), columns=list(columns))
    return table.merge(combinations, how="cross")
