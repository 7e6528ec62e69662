"""The tables of verdicts and of published rates: from files to numbers and their layout."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from figure_tables import METHODS, MadeUpStudy
from pydantic import TypeAdapter

import write_table
from circuitdrift.config.methods import MethodConfig
from circuitdrift.figures import published_rates
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.verdicts.claims import CLAIMS

LACKING = ("robustness", "untrained_robustness", "where", "node_induced", "layer_orders", "overlaps")
LACKING += ("union_faithfulness",)
SETTINGS = {"phase_1": {"circuit_lora_8_32": "lora_r2"}, "united": {}, "sham_twins": {}, "fraction": 0.05}


def write_verdicts(study: MadeUpStudy, folder: Path, **later: list[Path]) -> tuple[pd.DataFrame, str]:
    """The numbers and the layout of a made-up study that lacks what later stages make, but for what is given."""
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
        **later,
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
    assert re.search(rf"\| two \| {sentence} \| supported \| 0\.3[01] \[0\.23, 0\.38\] \|", text)
    assert "above 80 % |" in text
    assert "within 0 ± 0.1" in text


def test_a_study_of_one_seed_and_one_task_decides_nothing(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), seeds=(3,), n_checkpoints=2)
    numbers, _ = write_verdicts(study, tmp_path)
    assert set(numbers["verdict"]) == {"undecided"}
    measured = numbers[numbers["measured"].notna()]
    assert len(measured) >= 8
    assert measured["remark"].str.contains("neither two seeds nor 3 tasks").all()


def robustness_of(similarity: float, control: str, share: float) -> dict[str, object]:
    """A row of one control, with an interval of .02."""
    point = {"control": control, "share": share, "draws": 20, "examples": 100, "level": "edge", "measure": "jaccard"}
    return {**point, "similarity": similarity, "lower": similarity - 0.01, "upper": similarity + 0.01}


def write_later_stages(study: MadeUpStudy) -> dict[str, list[Path]]:
    """Tables as the stages of robustness, of places and of unions write them; values rise from seed to seed."""
    found: dict[str, list[Path]] = {name: [] for name in LACKING}
    for run in study.runs():
        more = 0.001 * int(run["seed"])
        shared = [robustness_of(0.95 + more, "perturbed", share) for share in (0.25, 0.75)]
        split = robustness_of(0.7 + more, "disjoint_splits", float("nan"))
        rows = [{"checkpoint": name, **row} for name in ("00", study.checkpoints[-1]) for row in (*shared, split)]
        counted = {"present_before": 2, "possible": 10, "addable": 8, "removed": 1, "expected_added": 4.0}
        layers = [
            {"layer": layer, "level": level, "added": 2 + 4 * layer + int(run["seed"]) * (1 - 2 * layer), **counted}
            for level in ("node", "edge")
            for layer in range(2)
        ]
        induced = {"changed": 50, "node_induced": 40 + int(run["seed"]), "expected": 20.0, "lower": 15.0}
        orders = [
            {"checkpoint": name, "epoch": epoch, "policy": "score_change", "layer": layer, "value": value}
            for name, epoch in (("01", 1.0), ("02", 2.0))
            for layer, value in enumerate([3.0, 2.0, 1.0 + 3 * more * (name == "02"), 0.5 + more * epoch])
        ]
        tables = {
            "robustness": pd.DataFrame(rows),
            "where": pd.DataFrame(layers),
            "node_induced": pd.DataFrame([{**induced, "upper": 25.0, "node_based_estimate": 30.0}]),
            "layer_orders": pd.DataFrame(orders).assign(rank_order=1),
        }
        for name, table in tables.items():
            found[name].append(study.write(name, table, name, **run))
    for task in study.tasks:
        splits = [
            {"untrained_seed": seed, **robustness_of(0.5 + 0.01 * seed, "disjoint_splits", float("nan"))}
            for seed in range(2)
        ]
        table = pd.DataFrame(splits)
        path = study.write("untrained_robustness", table, "untrained_robustness", model=study.models[0], task=task)
        found["untrained_robustness"].append(path)
    unions = replace(study, tasks=("compositional",), folder=study.folder / "unions")
    return found | {"union_faithfulness": unions.union_faithfulness(), "overlaps": unions.overlaps()}


def test_the_tables_of_all_stages_have_what_the_claims_read(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm", "mul_div"), seeds=(0, 1, 2), n_checkpoints=2)
    numbers, _ = write_verdicts(study, tmp_path, **write_later_stages(study))
    found = numbers.set_index("name")
    unmeasured = {"edges_over_nodes_grpo", "drift_beyond_sham", "circuit_lora_over_adalora"}
    unmeasured |= {"circuit_lora_over_lora_compute", "edges_over_nodes", "edges_over_node_estimate"}
    assert set(found.index[found["measured"].isna()]) == unmeasured
    assert found.loc["robust_after", "measured"] == pytest.approx(0.951)
    assert found.loc["splits_above_untrained", "measured"] == pytest.approx(0.701 - 0.505)
    assert found.loc["added_nodes_later", "measured"] == pytest.approx(5 / 8 - 0.5)
    assert found.loc["node_induced_beyond_degrees", "verdict"] == "supported"
    assert found.loc["rank_2_layers", "remark"].startswith("phase 1 has rank 2, the other LoRA 16")


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
