"""Tables: the numbers in them, their layout in Markdown and LaTeX."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from figure_tables import MadeUpStudy

import tabulate_base_accuracy
import tabulate_change_rates
import tabulate_critical_layers
import tabulate_faithfulness_areas
import tabulate_method_accuracy
from circuitdrift.figures.tables import Table, as_latex, as_markdown, critical_layers, escape_latex
from circuitdrift.provenance import Provenance


@pytest.fixture
def study(tmp_path: Path) -> MadeUpStudy:
    return MadeUpStudy(
        tmp_path / "in",
        tasks=("add_sub_100", "lcm"),
        methods=("lora_r16", "lora_r2", "circuit_lora_8_32"),
        n_checkpoints=2,
    )


def outputs(folder: Path) -> dict[str, object]:
    files = {kind: folder / f"table.{kind}" for kind in ("csv", "md", "tex")}
    return {**files, "provenance": Provenance.detached()}


def test_method_accuracy_is_ordered_by_parameters(study: MadeUpStudy, tmp_path: Path) -> None:
    tabulate_method_accuracy.main(accuracy=study.accuracy(), **outputs(tmp_path))
    rows = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert rows[0] == "| Method | Trainable parameters | Share | Add/Sub (100) | LCM | Mean of tasks |"
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| LoRA r=2", "| LoRA r=16", "| CircuitLoRA (8, 32)"]
    numbers = pd.read_csv(tmp_path / "table.csv")
    assert set(numbers["statistic"]) == {"seed", "mean"}
    assert len(numbers) == 2 * 3 * (2 + 1)


def test_change_rates_name_the_controls(study: MadeUpStudy, tmp_path: Path) -> None:
    tabulate_change_rates.main(summary=study.summary(), controls=study.controls(), **outputs(tmp_path))
    text = (tmp_path / "table.md").read_text()
    assert "Control: other seed" in text
    assert "| cumulative |" in text


def test_base_accuracy_stands_beside_the_majority_guess(study: MadeUpStudy, tmp_path: Path) -> None:
    tabulate_base_accuracy.main(accuracy=study.accuracy(), test=study.test_splits(), **outputs(tmp_path))
    numbers = pd.read_csv(tmp_path / "table.csv")
    assert numbers["task"].tolist() == ["add_sub_100", "lcm"]
    assert numbers["majority_share"].tolist() == [0.75, 0.75]
    assert numbers["commonest_answer"].tolist() == [4, 4]
    assert numbers["accuracy"].tolist() == pytest.approx([0.1, 0.1])


def test_areas_of_the_base_model_stand_above_those_of_the_methods(study: MadeUpStudy, tmp_path: Path) -> None:
    tabulate_faithfulness_areas.main(areas=study.faithfulness_areas(), **outputs(tmp_path))
    rows = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert rows[0].startswith("| Task | Method | CPR, KL | CMD, KL | CPR, logit difference |")
    assert len(rows) == 2 + 2 * (1 + 3)
    assert rows[2].startswith("| Add/Sub (100) | Before fine-tuning | 0.800 [0.750, 0.850] | 0.200 [0.150, 0.250] |")
    # The mean of two seeds, 0.85 and 0.95, and the mean of their intervals.
    assert rows[3].startswith("| Add/Sub (100) | LoRA r=2 | 0.900 [0.850, 0.950] | 0.100 [0.050, 0.150] |")


def test_critical_layers_are_listed_by_rank(study: MadeUpStudy, tmp_path: Path) -> None:
    tabulate_critical_layers.main(critical_layers=study.critical_layers(), **outputs(tmp_path))
    numbers = pd.read_csv(tmp_path / "table.csv")
    assert numbers.groupby(["task", "name", "policy", "seed"]).size().eq(2).all()


def test_overlap_counts_layers_that_both_sets_hold() -> None:
    def ranked(task: str, layers: list[int]) -> pd.DataFrame:
        labels = {"model": "m", "task": task, "name": "circuit_lora_8_32", "policy": "score_change", "seed": 0}
        order = range(1, len(layers) + 1)
        return pd.DataFrame(
            {**labels, "layer": layers, "rank_order": order, "value": 1.0, "critical": [r <= 3 for r in order]}
        )

    table = critical_layers(
        pd.concat([ranked("lcm", [0, 3, 4, 7]), ranked("mul_div", [4, 0, 5, 3]), ranked("own", [7, 8, 9, 0])])
    )
    row = table.layout.set_index("Task").loc["LCM"]
    assert row["Critical layers"] == "0, 3, 4"
    assert row["Shared with other tasks"] == "1.0 of 3"
    assert row["Shared with other seeds"] == "\N{EN DASH}"
    assert "LCM and Mul/Div 2.0; LCM and Own 0.0" in table.note


def test_special_characters_are_escaped() -> None:
    table = Table("100 % & more", "a_b", pd.DataFrame(), pd.DataFrame({"x|y": ["50 %", "#1"]}))
    latex = as_latex(table)
    assert r"\caption{100 \% \& more. a\_b}" in latex
    assert r"50 \% \\" in latex
    assert r"\#1 \\" in latex
    assert r"| x\|y |" in as_markdown(table)
    assert escape_latex("\\{~") == r"\textbackslash{}\{\textasciitilde{}"
