"""The tables of a study that its verdicts are made from, one model at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from circuitdrift.config.given import GIVEN
from circuitdrift.config.methods import CircuitLoraMethod, MethodConfig

BASE = "00"
"""Name of the base model's checkpoint."""

RUN = ["task", "method", "seed"]
"""Columns that tell one run of a model from another."""


def at_last_checkpoint(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last checkpoint."""
    return table[table["checkpoint"] == table.groupby(RUN)["checkpoint"].transform("max")]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a study measured. A table that it lacks has no rows; rows have the wildcards of their file.

    Attributes:
        methods: the study's methods.
        phase_1: the method that is the phase 1 of each method that has one.
        sham_twins: for each method on permuted answers, the same method on its own answers.
        fraction: share of the edges that a circuit keeps.
        runs: of :func:`circuitdrift.method_pairs.runs_with_costs`.
        predictions: which test prompts each run answers correctly, at its last checkpoint.
        faithfulness: of circuits at all checkpoints; rows of the base model have no method and no seed.
        reliability: base model against last checkpoint, from the largest halves of the prompts.
        nodes_and_edges: the same comparison.
        summary: change rates of runs.
        transitions: changes between neighbouring checkpoints.
        robustness: circuits of perturbed prompts, and of disjoint splits.
        untrained_robustness: the same of untrained models.
        where: changes by layer, base model against last checkpoint.
        node_induced: edge changes that node changes induce.
        layer_orders: layers in the order of their change, by checkpoint.
        union_faithfulness: of union circuits on compositional tasks.
        overlaps: common edges of circuits on compositional tasks.
    """

    methods: Mapping[str, MethodConfig]
    phase_1: Mapping[str, str]
    sham_twins: Mapping[str, str]
    fraction: float
    runs: pd.DataFrame
    predictions: pd.DataFrame
    faithfulness: pd.DataFrame
    reliability: pd.DataFrame
    nodes_and_edges: pd.DataFrame
    summary: pd.DataFrame
    transitions: pd.DataFrame
    robustness: pd.DataFrame
    untrained_robustness: pd.DataFrame
    where: pd.DataFrame
    node_induced: pd.DataFrame
    layer_orders: pd.DataFrame
    union_faithfulness: pd.DataFrame
    overlaps: pd.DataFrame

    def of_model(self, model: str) -> Tables:
        """The same with the rows of one model."""
        frames = {field.name: getattr(self, field.name) for field in fields(self)}
        own: dict[str, Any] = {
            name: frame[frame["model"] == model]
            for name, frame in frames.items()
            if isinstance(frame, pd.DataFrame) and len(frame)
        }
        return replace(self, **own)

    def supervised(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of fine-tunings on right answers: no sham runs, no GRPO, no given checkpoints, no base model."""
        methods = self.methods.items()
        names = [n for n, m in methods if m.answers == "own" and m.kind != "grpo"]
        return self._rows_of(table, names)

    def by_grpo(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of reinforcement learning."""
        return self._rows_of(table, [name for name, method in self.methods.items() if method.kind == "grpo"])

    def _rows_of(self, table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
        return table[table["method"].isin(names)] if len(table) else table

    @property
    def paper_circuit_loras(self) -> list[str]:
        """The CircuitLoRAs by the paper's rule, which is the default of all that is no size, in the config's order."""
        circuit_loras = {name: m for name, m in self.methods.items() if isinstance(m, CircuitLoraMethod)}
        return [name for name, method in circuit_loras.items() if _is_the_papers(method)]


def _is_the_papers(method: CircuitLoraMethod) -> bool:
    chosen = {name for name in method.model_fields_set if getattr(method, name) != _default(name)}
    return chosen <= _OF_ANY_RULE and method.phase_1 != GIVEN


def _default(field: str) -> Any:
    return CircuitLoraMethod.model_fields[field].default


_OF_ANY_RULE = {"kind", "rank", "critical_rank", "critical_layers", "phase_1"} | {
    "learning_rate",
    "epochs",
    "warmup_fraction",
}
