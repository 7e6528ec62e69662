"""The tables of verdicts and of published rates: from files to numbers and their layout."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from figure_tables import METHODS, MadeUpStudy
from pydantic import TypeAdapter

import write_table
from circuitdrift.config.methods import MethodConfig
from circuitdrift.figures import published_rates
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.layout import EMPTY
from circuitdrift.verdicts.claims import CLAIMS

LACKING = ("robustness", "untrained_robustness", "where", "node_induced", "layer_orders", "overlaps")
LACKING += ("union_faithfulness",)
SETTINGS = {"phase_1": {"circuit_lora_8_32": "lora_r2"}, "sham_twins": {}, "fraction": 0.05}


def write_verdicts(study: MadeUpStudy, folder: Path) -> tuple[pd.DataFrame, str]:
    """The numbers and the layout of a made-up study that lacks what later stages make."""
    reads = {
        "accuracy": study.accuracy(),
        "predictions": study.predictions(),
        "training_log": study.training_logs(),
        "faithfulness": study.faithfulness(),
        "reliability": study.reliability(),
        "nodes_and_edges": study.nodes_and_edges(),
        "summary": study.summary(),
        "transitions": study.transitions(),
        **{name: [] for name in LACKING},
    }
    files = {ending: folder / f"verdicts.{ending}" for ending in ("csv", "md", "tex", "html")}
    write_table.main("verdicts", reads, SETTINGS, METHODS, **files)
    return pd.read_csv(files["csv"]), files["md"].read_text()


def test_all_claims_are_listed_for_each_model(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm", "mul_div"), models=("one", "two"), n_checkpoints=2)
    numbers, text = write_verdicts(study, tmp_path)
    names = [claim.name for claim in CLAIMS]
    assert numbers["name"].tolist() == names * 2
    assert numbers["model"].tolist() == ["one"] * len(names) + ["two"] * len(names)
    found = numbers[numbers["model"] == "one"].set_index("name")
    # Seeds 0 and 1 have an excess of .30 and .31 on both tasks, each with a half-width of its own of .05.
    half = ((12.706204736174698 * 0.005) ** 2 + 0.05**2 / 2) ** 0.5
    row = found.loc["drift_beyond_noise"]
    assert (row["measured"], row["upper"]) == pytest.approx((0.305, 0.305 + half))
    assert (row["verdict"], row["replicates"], row["tasks"]) == ("supported", 2, 2)
    assert found.loc["circuit_lora_over_lora", "measured"] == pytest.approx(5)
    assert (found.loc[["robust_after", "union_overlap", "rank_2_order"], "verdict"] == "undecided").all()
    assert found.loc["robust_after", "remark"] == "the study perturbs no prompts"
    counts = numbers["verdict"].value_counts()
    assert f"{counts['supported']} supported" in text
    assert f"{counts['undecided']} undecided" in text
    sentence = "Fine-tuning changes circuits beyond the noise of the prompts"
    assert re.search(rf"\| two \| {sentence} \| {EMPTY} \| 0\.3[01] \[0\.23, 0\.38\] \|", text)
    assert "above 80 % |" in text
    assert "within 0 ± 0.1" in text


def test_a_study_of_one_seed_and_one_task_decides_nothing(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), seeds=(3,), n_checkpoints=2)
    numbers, _ = write_verdicts(study, tmp_path)
    assert set(numbers["verdict"]) == {"undecided"}
    measured = numbers[numbers["measured"].notna()]
    assert len(measured) >= 8
    assert measured["remark"].str.contains("neither two seeds nor 3 tasks").all()


REWARDED = MethodLabels(
    TypeAdapter(dict[str, MethodConfig]).validate_python(
        {"lora": {"kind": "lora", "rank": 2}, "grpo": {"kind": "grpo", "rank": 2}}
        | {"sham": {"kind": "lora", "rank": 2, "answers": "permuted"}}
    )
)


def rates() -> pd.DataFrame:
    """Net rates of edges .3 and .4, of nodes .1; all other measures are 1."""
    rows = [
        ("m", task, method, seed, level, measure, value)
        for task in ("ioi", "lcm")
        for method in ("lora", "sham", "grpo")
        for seed, edges in enumerate((0.3, 0.4))
        for level, rate in (("edge", edges), ("node", 0.1), ("edge_over_node", 9.0))
        for measure in published_rates._MEASURES
        for value in [rate if measure == "rate_net" else 1.0]
    ]
    return pd.DataFrame(rows, columns=["model", "task", "method", "seed", "level", "measure", "value"])


def test_rates_stand_beside_those_published_for_the_same_kind_of_task() -> None:
    made = published_rates.table(rates(), {"ioi": "complex_ioi", "lcm": "lcm"}, REWARDED)
    found = made.tidy.set_index(["task", "method", "measure"])
    assert {key[:2] for key in found.index} == {("ioi", "lora"), ("ioi", "grpo"), ("lcm", "grpo")}
    row = found.loc[("ioi", "lora", "rate_net")]
    assert row[["edges", "lowest_edges", "highest_edges", "nodes"]].tolist() == pytest.approx([35, 30, 40, 10])
    assert row[["published_edges", "published_nodes", "edges_over_nodes"]].tolist() == pytest.approx([17.3, 6.0, 3.5])
    assert found.loc[("lcm", "grpo", "rate_net"), "published_edges"] == 30.3
    assert "35.0 [30.0, 40.0]" in made.layout["Edges (%)"].tolist()
    assert len(found) == 3 * 5


def test_a_study_without_published_tasks_has_an_empty_table_that_says_so() -> None:
    own = rates().query("method != 'grpo'")
    made = published_rates.table(own, {"ioi": "sequence", "lcm": "lcm"}, REWARDED)
    assert made.tidy.empty
    assert made.note.startswith("No rate of this study has a published counterpart")
