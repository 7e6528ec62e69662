"""Tables: the numbers in them, their layout in Markdown and LaTeX."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_tables import LABELS, METHODS, MadeUpStudy
from pydantic import TypeAdapter
from scipy import stats

import write_table
from circuitdrift.comparisons import holm
from circuitdrift.config.methods import MethodConfig
from circuitdrift.figures import (
    controls,
    critical_layer_overlap,
    critical_layers,
    drift_reliability,
    edge_changes,
    faithfulness_areas,
    functional_drift,
    method_accuracy,
    method_comparisons,
    model_controls,
    sham_drift,
)
from circuitdrift.figures.labels import MethodLabels
from circuitdrift.figures.layout import (
    EMPTY,
    Table,
    as_csv,
    as_html,
    as_latex,
    as_markdown,
    escape_latex,
    escape_markdown,
)
from circuitdrift.figures.tidy import FigureDataError
from circuitdrift.figures.training_cost import cost_of_runs, read_seconds
from circuitdrift.method_pairs import runs_with_costs
from circuitdrift.storage import read_tables

ATTACKS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\u200b=1",
    "a\n=1",
    "</td><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert)",
    "![a](https://example.org/x.png)",
    "a | b \\| c",
    r"\input{/etc/passwd}",
    r"\write18{touch x}",
    "$x$ % & ~ ^ # _ { }",
    "a\u202eb\u2028c",
]


COMPETING = TypeAdapter(dict[str, MethodConfig]).validate_python(
    {
        "p": {"kind": "lora", "rank": 2},
        "circuit": {"kind": "circuit_lora", "phase_1": "p", "rank": 2, "critical_rank": 8, "critical_layers": 2},
        **{name: {"kind": "lora", "rank": 4, "warmup_fraction": 0.1 * place} for place, name in enumerate("abc")},
    }
)
del COMPETING["p"]


def made_of_attacks() -> Table:
    frame = pd.DataFrame({"name": ATTACKS, "value": -1.5, "seed": pd.array([None] * len(ATTACKS), dtype="Int64")})
    return Table(title=ATTACKS[7], note=ATTACKS[12], tidy=frame, layout=frame[["name"]])


def test_no_text_of_a_csv_is_a_formula_or_breaks_its_line() -> None:
    header, *lines = as_csv(made_of_attacks()).splitlines()
    assert header == "name,value,seed"
    assert len(lines) == len(ATTACKS)
    names = [row[0] for row in csv.reader(lines)]
    assert not [name for name in names if name.strip().startswith(("=", "+", "-", "@"))]
    assert all(name.isprintable() for name in names)
    assert all(line.endswith(",-1.5,") for line in lines)


def test_no_text_of_a_markdown_table_is_html_or_a_link_or_another_cell() -> None:
    text = as_markdown(made_of_attacks())
    assert not re.search(r"<[A-Za-z/!?]", text)
    assert "](" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == len(ATTACKS) + 2
    ends_of_cells = [re.sub(r"\\.", "", row).count("|") for row in rows]
    assert set(ends_of_cells) == {2}
    assert escape_markdown("p < 0.05, x > 1, [0.1, 0.2]") == "p < 0.05, x > 1, [0.1, 0.2]"


def test_no_text_of_a_table_in_html_is_a_tag_or_another_cell() -> None:
    text = as_html(made_of_attacks())
    tags = {
        "!doctype",
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert set(re.findall(r"</?([!\w]+)", text)) == {*tags, "p"}
    assert text.count("<td>") == len(ATTACKS)
    assert not re.search(r"https?:|src=|href=|url\(", re.sub(r"<t[dh]>.*?</t[dh]>", "", text))


def test_no_text_of_a_latex_table_is_a_command() -> None:
    text = as_latex(made_of_attacks())
    commands = {"begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule"}
    commands |= {"textbackslash", "textasciitilde", "textasciicircum"}
    assert set(re.findall(r"\\([A-Za-z]+)", text)) == commands
    assert not re.search(r"(?<!\\)[$%#_&]", text)
    assert "".join(text.split("\n")).isprintable()


@pytest.fixture
def study(tmp_path: Path) -> MadeUpStudy:
    return MadeUpStudy(
        tmp_path / "in",
        tasks=("add_sub_100", "lcm"),
        methods=("lora_r16", "lora_r2", "circuit_lora_8_32"),
        n_checkpoints=2,
    )


def written(folder: Path, table: str, reads: dict[str, list[Path]], **settings: object) -> pd.DataFrame:
    """Write a table into a folder and read its numbers."""
    files = {ending: folder / f"table.{ending}" for ending in ("csv", "md", "tex", "html")}
    write_table.main(table, reads, settings, METHODS, **files)
    return pd.read_csv(files["csv"])


def test_method_accuracy_is_ordered_by_parameters(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers = written(tmp_path, "method_accuracy", {"accuracy": study.accuracy()})
    rows = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert rows[0] == "| Method | Trainable parameters | Share | Add/Sub (100) | LCM | Mean of tasks |"
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| LoRA r=2", "| LoRA r=16", "| CircuitLoRA (8, 32)"]
    assert set(numbers["statistic"]) == {"seed", "mean"}
    assert len(numbers) == 2 * 3 * (2 + 1)
    assert re.search(r"\| LoRA r=2 \| 24,576 \| 1\.76 % \| \d+\.\d ± \d+\.\d \| ", rows[2])
    assert "mean ± standard deviation over 2 seeds" in (tmp_path / "table.md").read_text()


def test_accuracy_of_one_seed_has_its_interval(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=("lora_r2",), seeds=(3,), n_checkpoints=1)
    (row,) = written(tmp_path, "method_accuracy", {"accuracy": study.accuracy()}).query("statistic == 'mean'").index
    text = (tmp_path / "table.md").read_text()
    assert row == 1
    assert re.search(r"1\.76 % \| \d+\.\d \[\d+\.\d, \d+\.\d\] \|", text)
    assert "one seed, with the 95 % Wilson interval" in text


def compared(study: MadeUpStudy, folder: Path) -> pd.DataFrame:
    """Write the table of comparisons and read its numbers."""
    reads = {"accuracy": study.accuracy(), "predictions": study.predictions(), "training_log": study.training_logs()}
    return written(
        folder, "method_comparisons", reads, layer_sets={}, phase_1={"circuit_lora_8_32": "lora_r2"}, united={}
    )


def test_methods_of_equal_size_are_compared_pair_by_pair(tmp_path: Path) -> None:
    methods = ("lora_r16", "random_lora_8_32", "lora_r2", "circuit_lora_8_32")
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm", "mul_div"), methods=methods, n_checkpoints=2)
    numbers = compared(study, tmp_path)
    planned = [("circuit_lora_8_32", "lora_r16"), ("circuit_lora_8_32", "random_lora_8_32")]
    pairs = [*planned, *planned, *[("random_lora_8_32", "lora_r16")] * 2]
    assert list(zip(numbers["method"], numbers["other"], strict=True)) == pairs
    assert numbers["task"].tolist() == ["lcm", "lcm", "mul_div", "mul_div", "lcm", "mul_div"]
    assert numbers["family"].tolist() == ["planned"] * 4 + ["other"] * 2
    assert set(numbers["basis"]) == {"parameters"}
    assert numbers["difference"].tolist() == pytest.approx([5, 5, 5, 5, 0, 0])
    assert numbers["lower"].lt(numbers["upper"]).tolist() == [True] * 4 + [False] * 2
    assert (numbers["seeds"] == 2).all()
    assert (numbers["prompts"] == 100).all()
    text = (tmp_path / "table.md").read_text()
    costs = "3.07e+04, 2.88e+04"  # 300.5 tokens on average, 3 x 32 FLOPs each; 3 x 2 more for those of phase 1
    row = f"| LCM | CircuitLoRA (8, 32) - RandomLoRA (8, 32) | parameters | planned | 196,608 | {costs} | +5.0 ["
    assert row in text
    half = ((numbers["upper"] - numbers["lower"]) / 2).max()
    assert f"With 2 seeds, a difference of less than {half:.1f} points" in text


def test_planned_comparisons_are_corrected_for_each_other_alone() -> None:
    runs = pd.DataFrame(
        [
            ("m", "lcm", method, seed, 7, 100, 10.0, 20.0 if method == "circuit" else 10.0)
            for method in COMPETING
            for seed in range(3)
        ],
        columns=["model", "task", "method", "seed", "trainable_parameters", "steps", "flops", "total_flops"],
    )
    skill = runs["method"].map({"circuit": 0.95, "a": 0.9, "b": 0.6, "c": 0.5}).to_numpy()
    answers = np.random.default_rng(0).random((len(runs), 50)) < skill[:, None]
    predictions = pd.concat(
        [
            run.to_frame().T.assign(key=0).merge(pd.DataFrame({"example_id": range(50), "correct": correct, "key": 0}))
            for (_, run), correct in zip(runs.iterrows(), answers, strict=True)
        ]
    ).assign(checkpoint="10")
    compared = method_comparisons.compare(runs, predictions, MethodLabels(COMPETING))
    by_family = dict(list(compared.groupby("family")))
    assert by_family["planned"][["method", "other"]].to_numpy().tolist() == [["circuit", other] for other in "abc"]
    assert by_family["other"][["method", "other"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    for rows in by_family.values():
        assert rows["p_holm"].tolist() == pytest.approx(holm(rows["p_value"].tolist()))
    assert compared["p_holm"].tolist() != pytest.approx(holm(compared["p_value"].tolist()))


def test_a_lora_as_costly_as_circuit_lora_with_its_phase_1_is_compared_at_equal_compute(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=("lora_r16", "lora_r2", "circuit_lora_8_32"))
    accuracy, predictions, logs = (read_tables(paths, name) for name, paths in (
        ("accuracy", study.accuracy()), ("predictions", study.predictions()), ("training_log", study.training_logs())
    ))  # fmt: skip
    accuracy.loc[accuracy["method"] == "lora_r16", "step"] *= 2  # trained for twice as many steps
    phase_1 = {"circuit_lora_8_32": "lora_r2"}
    for factor, bases in ((1.0, []), (2.0, ["compute"]), (2.4, [])):  # FLOPs of LoRA: 14,400, of CircuitLoRA 30,600
        costly = logs.assign(flops=logs["flops"].where(logs["method"] != "lora_r16", factor * logs["flops"]))
        made = method_comparisons.table(accuracy, predictions, costly, {}, phase_1, {}, LABELS)
        assert made.tidy["basis"].tolist() == bases
    costly = logs.assign(flops=logs["flops"].where(logs["method"] != "lora_r16", 2 * logs["flops"]))
    (row,) = method_comparisons.table(accuracy, predictions, costly, {}, phase_1, {}, LABELS).tidy.to_dict("records")
    assert (row["method"], row["other"], row["family"]) == ("circuit_lora_8_32", "lora_r16", "planned")
    assert (row["flops"], row["other_flops"]) == pytest.approx((3 * 34 * 300.5, 2 * 3 * 16 * 300.5))


def test_one_seed_has_a_difference_without_an_interval(tmp_path: Path) -> None:
    methods = ("lora_r16", "circuit_lora_8_32")
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=methods, seeds=(4,), n_checkpoints=1)
    numbers = compared(study, tmp_path)
    assert numbers[["p_value", "p_holm", "effect_size"]].isna().all(axis=None)
    text = (tmp_path / "table.md").read_text()
    assert "+5.0 (one seed: no interval) | \N{EN DASH} |" in text
    assert "no interval and no test" in text


def test_methods_that_answer_alike_claim_no_resolution(tmp_path: Path) -> None:
    methods = ("lora_r16", "random_lora_8_32")
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=methods, n_checkpoints=1)
    assert compared(study, tmp_path)["difference"].tolist() == [0]
    text = (tmp_path / "table.md").read_text()
    assert "answer alike with every seed" in text
    assert "could not have been resolved" not in text


def test_a_study_without_methods_of_equal_size_has_nothing_to_compare(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=("lora_r2", "lora_r16"), n_checkpoints=1)
    assert compared(study, tmp_path).empty
    assert "nothing to compare" in (tmp_path / "table.md").read_text()


def test_methods_tested_on_different_prompts_are_not_compared(study: MadeUpStudy) -> None:
    accuracy = read_tables(study.accuracy(), "accuracy")
    predictions = read_tables(study.predictions(), "predictions")
    logs = read_tables(study.training_logs(), "training_log")
    lacking = (predictions["method"] == "lora_r16") & (predictions["example_id"] == 7)
    with pytest.raises(FigureDataError, match="on different prompts"):
        method_comparisons.table(accuracy, predictions[~lacking], logs, {}, {}, {}, LABELS)


def test_change_rates_name_the_controls(study: MadeUpStudy, tmp_path: Path) -> None:
    written(tmp_path, "change_rates", {"summary": study.summary(), "controls": study.controls()})
    text = (tmp_path / "table.md").read_text()
    assert "Control: other seed" in text
    assert "| cumulative |" in text


def test_recipes_stand_beside_the_studys_own(study: MadeUpStudy, tmp_path: Path) -> None:
    reliability, faithfulness, benchmarks, scorings = study.recipes()
    reads = {
        "recipe_reliability": reliability,
        "recipe_faithfulness": faithfulness,
        "recipe_benchmarks": benchmarks,
    }
    numbers = written(tmp_path, "recipes", reads, recipe_scorings=scorings)
    assert numbers["recipe"].tolist() == ["own", "ceap"] * 2
    assert numbers["jaccard_50_prompts"].tolist() == pytest.approx([0.65, 0.75] * 2)
    assert numbers["jaccard"].tolist() == pytest.approx([0.7, 0.8] * 2)
    assert numbers["kl_model_circuit_difference_lower"].tolist() == pytest.approx([0, 0.05] * 2)
    assert numbers["seconds"].tolist() == [10, 20] * 2
    lines = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("| Add/Sub")]
    assert len(lines) == 2
    assert f"| own | 50: 0.650, 100: 0.700 | {EMPTY} |" in lines[0]
    assert lines[0].endswith("| 0.900 | 1.00 |")
    assert "| ceap | 50: 0.750, 100: 0.800 | +0.100 [+0.050, +0.150] |" in lines[1]
    assert lines[1].endswith("| 0.900 | 2.00 |")


def test_circuits_of_models_as_they_are_have_their_reliability_and_faithfulness(
    study: MadeUpStudy, tmp_path: Path
) -> None:
    reliability, faithfulness, _, _ = study.recipes()
    reads = {"untouched_reliability": reliability, "untouched_faithfulness": faithfulness}
    numbers = written(tmp_path, "untouched_circuits", reads)
    assert numbers["task"].tolist() == ["add_sub_100", "lcm"]
    assert numbers["edge_jaccard"].tolist() == pytest.approx([0.7] * 2)
    assert numbers["examples"].tolist() == [100] * 2
    (row,) = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("| Add/Sub")]
    cells = ["50", "0.700 [0.600, 0.800]", "100", *["0.700 [0.600, 0.800]"] * 3, "150"]
    assert row == f"| Add/Sub (100) | {' | '.join(cells)} |"


def test_rows_left_out_are_counted_by_reason_and_tasks_without_any_are_listed(
    study: MadeUpStudy, tmp_path: Path
) -> None:
    found = {"own": ["prompt repeated", "value missing", "prompt repeated"], "whole": []}
    paths = [
        study.write("dropped", pd.DataFrame({"row": range(len(r)), "reason": r}), "dropped", model="m", task=task)
        for task, r in found.items()
    ]
    dropping = [{"model": "m", "task": task} for task in found]
    numbers = written(tmp_path, "dropped_rows", {"dropped": paths}, dropping=dropping)
    assert numbers.query("rows > 0")[["task", "reason", "rows"]].to_numpy().tolist() == [
        ["own", "value missing", 1],
        ["own", "prompt repeated", 2],
    ]
    text = (tmp_path / "table.md").read_text()
    assert "| Own | 3 | value missing: 1, prompt repeated: 2 |" in text
    assert f"| Whole | 0 | {EMPTY} |" in text


def test_areas_of_a_model_as_it_is_and_of_a_task_without_answers(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path / "in", tasks=("lcm",), methods=(), n_checkpoints=1)
    areas = read_tables(study.faithfulness_areas(), "faithfulness_areas")
    found = faithfulness_areas.table(areas[areas["metric"].str.startswith("kl")], LABELS)
    (row,) = found.layout.to_dict("records")
    assert row["Method"] == "Model as it is"
    assert [row["CPR, logit difference"], row["CMD, logit difference"]] == [EMPTY, EMPTY]
    assert found.note.endswith("Brackets: 95 % bootstrap intervals over prompts.")


def test_areas_of_recipes_stand_beside_the_studys_own(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers = written(tmp_path, "recipe_areas", {"recipe_areas": study.recipe_areas()})
    assert numbers["recipe"].unique().tolist() == ["own", "gim"]
    lines = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("| Add/Sub")]
    assert len(lines) == 2
    assert f"| own | {EMPTY} | {EMPTY} | {EMPTY} | {EMPTY} | 0.800 | {EMPTY} | 0.200 | {EMPTY} |" in lines[0]
    assert "| 0.900 | +0.100 [+0.050, +0.150] | 0.100 | -0.100 [-0.150, -0.050] |" in lines[1]


def test_drift_reliability_judges_the_excess_of_edges(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers = written(tmp_path, "drift_reliability", {"reliability": study.reliability()})
    assert len(numbers) == 2 * 3
    first = numbers.iloc[0]
    assert (first["seeds"], first["prompts"], first["prompts_for_80"]) == (2, 200, 300)
    assert first["excess_edges"] == pytest.approx(0.305)
    assert first["edges_less_nodes"] == pytest.approx(0.2)
    # Student's t of two seeds .01 apart is 12.706; each seed's own half-width is .05.
    half_width = ((12.7062 * 0.005) ** 2 + 0.05**2) ** 0.5
    assert first["upper_edges"] - first["excess_edges"] == pytest.approx(half_width, abs=1e-5)
    assert set(numbers["verdict"]) == {"drift beyond noise"}
    assert "| LoRA r=2 | 2 | 0.800 | 0.495 | 0.305 [0.224, 0.386] |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("shift", "p_value", "needed", "verdict"),
    [
        (0.0, 0.01, 300.0, "drift beyond noise"),
        (0.0, 0.05, 300.0, "not beyond noise"),
        (-0.3, 0.01, 300.4, "unresolved, needs 301 prompts"),
        (-0.3, 0.4, 200.0, "not beyond noise"),
        (-0.3, 0.4, float("inf"), "unresolved, needs more prompts"),
        (float("nan"), 1.0, 300.0, "unresolved, empty circuits"),
    ],
)
def test_verdicts_on_drift(study: MadeUpStudy, shift: float, p_value: float, needed: float, verdict: str) -> None:
    one_seed = read_tables(study.reliability(), "reliability").query("seed == 0")
    shifted = {name: one_seed[name] + shift for name in ("excess", "lower", "upper")}
    numbers = drift_reliability.table(one_seed.assign(**shifted, p_value=p_value, prompts_for_80=needed), LABELS).tidy
    assert set(numbers["verdict"]) == {verdict}


def test_the_interval_over_seeds_is_that_of_one_seed_and_wider_with_scatter() -> None:
    seed = pd.DataFrame({"excess": [0.2], "lower": [0.1], "upper": [0.3]})
    assert drift_reliability.interval_over_seeds(seed) == pytest.approx((0.1, 0.3))
    assert drift_reliability.interval_over_seeds(pd.concat([seed] * 5)) == pytest.approx((0.1, 0.3))
    assert np.isnan(drift_reliability.interval_over_seeds(pd.concat([seed, seed.assign(lower=np.nan)]))).all()
    apart = pd.concat([seed, seed + 0.1, seed + 0.2])
    lower, upper = drift_reliability.interval_over_seeds(apart)
    assert (lower + upper) / 2 == pytest.approx(0.3)
    assert upper - lower > 0.4


def test_edge_changes_say_how_many_edges_changed_for_certain(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers = written(tmp_path, "edge_changes", {"edge_counts": study.edge_counts()})
    assert len(numbers) == 2 * 3
    first = numbers.iloc[0]
    assert (first["symmetric_difference"], first["gained"], first["lost"], first["undecided"]) == (38, 6.5, 4, 30)
    assert (first["replicated_gained"], first["replicated_lost"], first["replicated"]) == (1, 1, 2)
    assert not first["stable"]
    text = (tmp_path / "table.md").read_text()
    assert (
        "| LoRA r=2 | 2 | 38 | 6.5 | 4 | 30 | 40 | 2 | 90 of 600 | 0.85 / 0.70 | no | 200 | edges changed, their"
        in text
    )


@pytest.mark.parametrize(
    ("gained", "jaccard", "conclusion"),
    [
        (["a -> b"], 0.9, "edges changed"),
        (["a -> b"], 0.79, "edges changed, their number unresolved, needs more prompts"),
        ([], 0.8, "no edge surely changed"),
        ([], 0.79, "unresolved, needs more prompts"),
        ([], float("nan"), "unresolved, needs more prompts"),
    ],
)
def test_conclusions_on_edges(study: MadeUpStudy, gained: list[str], jaccard: float, conclusion: str) -> None:
    counts = read_tables(study.edge_counts(), "edge_counts")
    counts = counts.assign(jaccard_after=jaccard, gained_edges=[gained] * len(counts), lost_edges=[[]] * len(counts))
    numbers = edge_changes.table(counts, LABELS)
    assert set(numbers.tidy["conclusion"]) == {conclusion}
    one_seed = edge_changes.table(counts[counts["seed"] == 1], LABELS).tidy
    assert (one_seed["replicated"] == len(gained)).all()


def functional_files(study: MadeUpStudy) -> dict[str, list[Path]]:
    """The files that the table of functional drift reads; base and last circuit have a Jaccard index of .55."""
    distance = pd.DataFrame({"measure": ["jaccard_distance_net"], "level": ["edge"], "value": [0.45]})
    net = distance.assign(from_checkpoint=study.checkpoints[0], to_checkpoint=study.checkpoints[-1])
    summary = [study.write("summary", net, "summary", **run) for run in study.runs()]
    return {"functional": study.functional(), "summary": summary, "reliability": study.reliability()}


def functional_tables(study: MadeUpStudy) -> dict[str, pd.DataFrame]:
    """The same as tables, of the first seed alone."""
    return {name: read_tables(paths, name).query("seed == 0") for name, paths in functional_files(study).items()}


def test_functional_drift_compares_circuits_in_the_last_model(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers = written(tmp_path, "functional_drift", functional_files(study))
    assert len(numbers) == 2 * 3
    first = numbers.iloc[0]
    assert first[["edge_jaccard", "base_circuit", "last_circuit", "difference"]].tolist() == pytest.approx(
        [0.55, 0.605, 0.8, -0.195]
    )
    found = first[["shared_circuit", "shared_edges", "last_edges", "other_seed_circuit", "random_circuit"]]
    assert found.tolist() == pytest.approx([0.605, 30, 54, 0.705, 0.055])
    # Student's t of two seeds .01 apart is 12.706; each seed's own half-width is .02.
    half_width = ((12.7062 * 0.005) ** 2 + 0.02**2) ** 0.5
    assert first["upper"] - first["difference"] == pytest.approx(half_width, abs=1e-5)
    assert (first["seeds"], first["prompts"]) == (2, 100)
    assert set(numbers["conclusion"]) == {"structural and functional"}
    text = (tmp_path / "table.md").read_text()
    assert "| LoRA r=2 | 2 | 100 | 0.550 | 0.605 | 0.800 | -0.195 [-0.262, -0.128] | 0.605 (30 of 54) |" in text


@pytest.mark.parametrize(
    ("shift", "random", "excess", "conclusion"),
    [
        (0.0, 0.0, 0.0, "structural and functional"),
        (0.19, 0.0, 0.0, "structural only"),
        (0.4, 0.0, 0.0, "structural and functional"),
        (0.143, 0.0, 0.0, "unresolved, needs about 820 prompts"),
        (0.19, 0.75, 0.0, "unresolved, random circuits are as faithful"),
        (0.19, 0.0, -0.3, "structure unresolved, needs 300 prompts"),
        (0.19, 0.0, -0.4, "structural change not beyond noise"),
        (float("nan"), 0.0, 0.0, "unresolved, faithfulness undefined"),
    ],
)
def test_conclusions_on_functional_drift(
    study: MadeUpStudy, shift: float, random: float, excess: float, conclusion: str
) -> None:
    """The base circuit, at first .2 below the last, and random ones are shifted upwards, excess downwards."""
    tables = functional_tables(study)
    functional, columns = tables["functional"], ["difference", "difference_lower", "difference_upper"]
    for circuit, change in (("00", shift), ("random", random)):
        functional.loc[functional["circuit_checkpoint"] == circuit, columns] += change
    tables["reliability"][["excess", "lower", "upper"]] += excess
    assert set(functional_drift.table(**tables, labels=LABELS).tidy["conclusion"]) == {conclusion}


def test_an_empty_last_circuit_leaves_functional_drift_unresolved(study: MadeUpStudy) -> None:
    """It has no random circuits of its size, so nothing shows that equal faithfulness means anything."""
    tables = functional_tables(study)
    functional, columns = tables["functional"], ["difference", "difference_lower", "difference_upper"]
    functional.loc[functional["circuit_checkpoint"] == "00", columns] += 0.2
    tables["functional"] = functional[functional["circuit_checkpoint"] != "random"]
    conclusions = functional_drift.table(**tables, labels=LABELS).tidy["conclusion"]
    assert set(conclusions) == {"unresolved, random circuits are as faithful"}


SHAM = MethodLabels(
    TypeAdapter(dict[str, MethodConfig]).validate_python(
        {
            "lora_r2": {"kind": "lora", "rank": 2},
            "lora_r8": {"kind": "lora", "rank": 2, "answers": "permuted"},
        }
    )
)
"""The names are those of the made-up study, in which ``lora_r8`` here is the sham twin of ``lora_r2``."""


def reliability_of_twins(folder: Path, seeds: tuple[int, ...]) -> pd.DataFrame:
    """The true fine-tuning has an excess .3 above that of the sham with seed 0, and .1 more with each further seed."""
    study = MadeUpStudy(folder, tasks=("lcm",), methods=("lora_r2", "lora_r8"), seeds=seeds, n_checkpoints=2)
    table = read_tables(study.reliability(), "reliability")
    is_sham = table["method"] == "lora_r8"
    return table.assign(excess=table["excess"] - is_sham * (0.3 + 0.1 * table["seed"]))


def test_sham_drift_is_paired_by_seed(tmp_path: Path) -> None:
    found = sham_drift.table(reliability_of_twins(tmp_path, (0, 1, 2)), {"lora_r8": "lora_r2"}, SHAM)
    (row,) = found.tidy.query("level == 'edge' and measure == 'jaccard'").to_dict("records")
    assert (row["method"], row["sham"], row["seeds"]) == ("lora_r2", "lora_r8", 3)
    wanted = stats.ttest_rel([0.3, 0.4, 0.5], [0.0, 0.0, 0.0])
    assert row["difference"] == pytest.approx(0.4)
    assert row["p_value"] == pytest.approx(wanted.pvalue)
    assert [row["lower"], row["upper"]] == pytest.approx(list(wanted.confidence_interval(0.95)))
    assert row["excess"] - row["excess_sham"] == pytest.approx(0.4)
    assert found.layout["Method"].tolist() == ["LoRA r=2", "LoRA r=2"]
    assert found.layout["Difference"].iloc[0] == f"+0.400 [{row['lower']:+.3f}, {row['upper']:+.3f}]"


def test_sham_drift_of_one_seed_has_no_interval(tmp_path: Path) -> None:
    found = sham_drift.table(reliability_of_twins(tmp_path, (0,)), {"lora_r8": "lora_r2"}, SHAM)
    assert found.tidy[["lower", "upper", "p_value"]].isna().all(axis=None)
    assert found.layout["Difference"].tolist() == ["+0.300", "+0.300"]


def test_model_controls_stand_below_the_drift_of_methods(study: MadeUpStudy, tmp_path: Path) -> None:
    reads = {"reliability": study.reliability(), "model_controls": study.model_controls()}
    numbers = written(tmp_path, "model_controls", reads)
    edges = numbers.query("task == 'lcm' and level == 'edge' and measure == 'jaccard'").set_index("name")
    assert edges["between"].to_dict() == pytest.approx(
        dict.fromkeys(study.methods, 0.495) | {"wording": 0.6, "untrained": 0.2, "untrained_seeds": 0.1}
    )
    assert edges["n"].to_dict() == dict.fromkeys(study.methods, 2) | {
        "wording": 1,
        "untrained": 2,
        "untrained_seeds": 1,
    }
    assert set(edges["examples"]) == {100}
    assert edges.loc["wording", ["lower", "upper"]].tolist() == pytest.approx([0.15, 0.35])
    rows = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    comparisons = [row.split(" | ")[1] for row in rows[2:]]
    methods = ["LoRA r=2", "LoRA r=16", "CircuitLoRA (8, 32)"]
    controls = ["another wording", "untrained model", "two untrained models"]
    of_a_task = [name for label in [*methods, *(f"Control: {c}" for c in controls)] for name in (label, label)]
    assert comparisons == [*of_a_task, *of_a_task]


def test_pairs_of_untrained_models_that_share_models_have_no_interval(study: MadeUpStudy) -> None:
    controls = read_tables(study.model_controls(), "model_controls")
    more = controls[controls["control"] == "untrained_seeds"].assign(after="untrained-2")
    reliability = read_tables(study.reliability(), "reliability")
    compared = model_controls.compare(reliability, pd.concat([controls, more]))
    shared = compared[compared["name"] == "untrained_seeds"]
    assert set(shared["n"]) == {2}
    assert shared[["lower", "upper"]].isna().all(axis=None)


def test_a_task_without_model_controls_is_left_out_of_their_table(study: MadeUpStudy) -> None:
    controls = read_tables(study.model_controls(), "model_controls").query("task == 'lcm'")
    compared = model_controls.compare(read_tables(study.reliability(), "reliability"), controls)
    assert set(compared["task"]) == {"lcm"}


def test_controls_on_permuted_answers_do_not_compete(tmp_path: Path) -> None:
    study = MadeUpStudy(tmp_path, tasks=("lcm",), methods=("lora_r16", "circuit_lora_8_32", "random_lora_8_32"))
    accuracy, predictions, logs = (read_tables(paths, name) for name, paths in (
        ("accuracy", study.accuracy()), ("predictions", study.predictions()), ("training_log", study.training_logs())
    ))  # fmt: skip
    sham = {**METHODS, "lora_r16": METHODS["lora_r16"].model_copy(update={"answers": "permuted"})}
    compared = method_comparisons.compare(runs_with_costs(accuracy, logs, {}, {}), predictions, MethodLabels(sham))
    assert compared[["method", "other"]].to_numpy().tolist() == [["circuit_lora_8_32", "random_lora_8_32"]]
    note = method_accuracy.table(accuracy, MethodLabels(sham)).note
    assert "Sham: a control" in note
    assert "Sham" not in method_accuracy.table(accuracy, LABELS).note


def test_base_accuracy_stands_beside_the_majority_guess(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers = written(tmp_path, "base_accuracy", {"accuracy": study.accuracy(), "test": study.test_splits()})
    assert numbers["task"].tolist() == ["add_sub_100", "lcm"]
    assert numbers["majority_share"].tolist() == [0.75, 0.75]
    assert numbers["commonest_answer"].tolist() == [4, 4]
    assert numbers["accuracy"].tolist() == pytest.approx([0.1, 0.1])


def test_areas_of_the_base_model_stand_above_those_of_the_methods(study: MadeUpStudy, tmp_path: Path) -> None:
    written(tmp_path, "faithfulness_areas", {"faithfulness_areas": study.faithfulness_areas()})
    rows = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert rows[0].startswith("| Task | Method | CPR, KL | CMD, KL | CPR, logit difference |")
    assert len(rows) == 2 + 2 * (1 + 3)
    assert rows[2].startswith("| Add/Sub (100) | Before fine-tuning | 0.800 [0.750, 0.850] | 0.200 [0.150, 0.250] |")
    # The mean of two seeds, which are 0.85 and 0.95.
    assert rows[3].startswith("| Add/Sub (100) | LoRA r=2 | 0.900 [0.850, 0.950] | 0.100 [0.050, 0.150] |")


def test_critical_layers_are_listed_by_rank_with_their_certainty(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers = written(tmp_path, "critical_layers", {"critical_layers": study.critical_layers()}, layer_sets={})
    assert numbers.groupby(["task", "name", "policy", "seed"])["critical"].sum().eq(2).all()
    assert numbers.groupby("certainty").size().to_dict() == {"in": 12, "out": 36, "undecided": 24}
    first = numbers[(numbers["task"] == "lcm") & (numbers["policy"] == "excess") & (numbers["seed"] == 1)]
    a, b, c = first.sort_values("rank_order")["layer"].tolist()[:3]
    counts = numbers[(numbers["task"] == "lcm") & (numbers["policy"] == "excess")].groupby("layer")["critical"].sum()
    row = f"| source | 1 | {a} (0.98), {b} (0.70) | {a} | {b}, {c} | {a}: {counts[a]} of 2, {b}: {counts[b]} of 2 | "
    assert row in (tmp_path / "table.md").read_text()


def test_equal_circuits_and_random_draws_say_what_they_lack(study: MadeUpStudy) -> None:
    table = read_tables(study.critical_layers(), "critical_layers")
    same = table.assign(value=0.0, critical=False, above_threshold=False, in_top=0.0)
    row = critical_layers.table(same, {}, LABELS).layout.iloc[0]
    cells = row[["Critical layers", "Sure", "Cannot be told apart", "Seeds", "Above threshold"]].tolist()
    assert cells == ["nothing changed", "none", "none", EMPTY, "none"]
    drawn = table[table["policy"] == "score_change"]
    drawn = drawn.assign(policy="random", credit=None, above_threshold=None, in_top=np.nan)
    row = critical_layers.table(drawn, {}, LABELS).layout.iloc[0]
    assert re.fullmatch(r"\d, \d", row["Critical layers"])
    assert row[["Credit", "Sure", "Cannot be told apart", "Above threshold"]].tolist() == [EMPTY] * 4


def ranked(task: str, layers: list[int], seed: int = 0, policy: str = "score_change") -> pd.DataFrame:
    """Of the layers in order, of 10, the first three are critical."""
    labels = {"model": "m", "task": task, "name": "circuit_lora_8_32", "policy": policy, "seed": seed}
    rest = [layer for layer in range(10) if layer not in layers]
    return pd.DataFrame({**labels, "layer": [*layers, *rest], "critical": [True] * 3 + [False] * 7})


def test_overlap_counts_layers_that_both_sets_hold_beside_chance() -> None:
    sets = [ranked("lcm", [0, 3, 4]), ranked("mul_div", [4, 0, 5]), ranked("own", [7, 8, 9])]
    sets += [ranked(task, layers, policy="excess") for task, layers in (("lcm", [0, 3, 4]), ("mul_div", [1, 2, 3]))]
    sets.append(ranked("own", [7, 8, 1], policy="excess"))
    table = critical_layer_overlap.table(pd.concat(sets), {}, LABELS)
    numbers = table.tidy.set_index(["compared", "task", "policy"])
    assert len(numbers) == 2 * 3 + 3
    both = numbers.loc[("tasks", "lcm and mul_div", "score_change")]
    assert both[["pairs", "overlap", "chance"]].tolist() == [1, 2.0, 0.9]
    assert both["p_value"] == pytest.approx(stats.hypergeom.sf(1, 10, 3, 3), abs=0.015)
    assert numbers.loc[("tasks", "lcm and own", "score_change"), ["overlap", "p_value"]].tolist() == [0, 1]
    policies = numbers.loc[("policies", "lcm", "score_change and excess")]
    assert policies["overlap"] == 3
    assert np.isnan(policies["p_value"])
    assert "two equal sets of 3 of 10 layers give p = 0.008" in table.note


def test_overlap_of_seeds_is_that_of_each_pair() -> None:
    seeds = [ranked("lcm", layers, seed) for seed, layers in enumerate(([0, 3, 4], [4, 0, 5], [0, 8, 9]))]
    (row,) = critical_layer_overlap.table(pd.concat(seeds), {}, LABELS).tidy.to_dict("records")
    assert (row["compared"], row["pairs"], row["overlap"]) == ("seeds", 3, pytest.approx((2 + 1 + 1) / 3))
    assert (row["lowest"], row["highest"], row["chance"]) == (1, 2, pytest.approx(0.9))


def test_chance_gives_p_values_that_hold_their_level_though_seeds_agree() -> None:
    """All seeds of a task agree, so three seeds tell no more than one: no p-value falls below that of one pair."""
    generator = np.random.default_rng(0)
    p_values = []
    for _ in range(60):
        one, other = (np.tile(generator.permutation(10) < 3, (3, 1)) for _ in range(2))
        p_values.append(critical_layer_overlap.p_of_two_tasks(one, other))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.1
    assert min(p_values) >= 0.005


def test_a_single_set_overlaps_with_nothing() -> None:
    table = critical_layer_overlap.table(ranked("lcm", [0, 3, 4]), {}, LABELS)
    assert table.tidy.empty
    assert "nothing to compare" in as_markdown(table)


def benchmark(path: Path, seconds: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:{seconds // 60:02.0f}:{seconds % 60:02.0f}\t12.5\n")
    return path


def test_training_cost_adds_phase_1_and_its_scoring(study: MadeUpStudy, tmp_path: Path) -> None:
    runs = [{**run, "seed": int(run["seed"])} for run in study.runs()]
    scored = [run for run in runs if run["method"] == "lora_r2" for _ in range(2)]
    own_seconds = {"lora_r16": 16.0, "lora_r2": 2.0, "circuit_lora_8_32": 40.0}
    reads = {
        "accuracy": study.accuracy(),
        "training_log": study.training_logs(),
        "benchmarks": [benchmark(tmp_path / f"{n}.tsv", own_seconds[run["method"]]) for n, run in enumerate(runs)],
        "scoring_benchmarks": [benchmark(tmp_path / f"scored-{n}.tsv", 100.0) for n, _ in enumerate(scored)],
    }
    phase_1 = {"circuit_lora_8_32": "lora_r2"}
    numbers = written(tmp_path, "training_cost", reads, benchmarked=runs, scored=scored, phase_1=phase_1, united={})
    assert len(numbers) == 2 * 3 * (2 + 1)
    own, both = (
        numbers[numbers["method"] == method].set_index(["task", "statistic", "seed"])
        for method in ("lora_r2", "circuit_lora_8_32")
    )
    for task in study.tasks:
        alone, added = own.loc[(task, "seed", 1)], both.loc[(task, "seed", 1)]
        assert alone[["tokens", "flops", "seconds"]].tolist() == [301, 6 * 301, 2]
        assert alone[["total_tokens", "total_flops", "total_seconds"]].tolist() == [301, 6 * 301, 2]
        assert added[["tokens", "flops", "seconds"]].tolist() == [301, 96 * 301, 40]
        assert added[["total_tokens", "total_flops", "total_seconds"]].tolist() == [602, 102 * 301, 40 + 2 + 200]
        mean = numbers[(numbers["statistic"] == "mean") & (numbers["task"] == task)].set_index("method")
        assert mean.loc["circuit_lora_8_32", "total_tokens"] == (600 + 602) / 2
        assert mean.loc["lora_r16", "total_seconds"] == 16
    text = (tmp_path / "table.md").read_text()
    line = next(line for line in text.splitlines() if "CircuitLoRA" in line and "LCM" in line)
    assert line.endswith("| 300 | 2.88e+04 | 40.0 | LoRA r=2 | 601 | 3.07e+04 | 242.0 |")
    assert "mean over 2 seeds" in text.lower()


def test_training_cost_of_a_union_adds_phase_1_on_three_tasks(study: MadeUpStudy, tmp_path: Path) -> None:
    runs = [{**run, "seed": int(run["seed"])} for run in study.runs()]
    scored = [run for run in runs if run["method"] == "lora_r2"]
    seconds = read_seconds([benchmark(tmp_path / f"{n}.tsv", 1.0) for n, _ in enumerate(runs)], runs)
    of_scoring = read_seconds([benchmark(tmp_path / f"s{n}.tsv", 10.0) for n, _ in enumerate(scored)], scored)
    logs, accuracy = (
        read_tables(*files) for files in ((study.training_logs(), "training_log"), (study.accuracy(), "accuracy"))
    )
    first, *others = study.tasks
    phase_1, united = {"circuit_lora_8_32": "lora_r2"}, {"circuit_lora_8_32": {first: others}}
    cost = cost_of_runs(accuracy, logs, seconds, of_scoring, phase_1, united)
    found = cost.query("method == 'circuit_lora_8_32' and statistic == 'seed' and seed == 1").set_index("task")
    n_tasks = len(study.tasks)
    assert n_tasks > 1
    assert found.loc[first, ["phase_1_tokens", "phase_1_flops"]].tolist() == [n_tasks * 301, n_tasks * 6 * 301]
    assert found.loc[first, "total_seconds"] == 1 + n_tasks * (1 + 10)
    assert found.loc[others, "phase_1_tokens"].eq(301).all()
    assert found.loc[others, "total_seconds"].eq(1 + 1 + 10).all()
    assert cost.query("method == 'lora_r2'")["phase_1_tokens"].eq(0).all()
    keys = ["model", "task", "method", "seed"]
    counted = cost[cost["statistic"] == "seed"].set_index(keys)["total_flops"].sort_index()
    compared = runs_with_costs(accuracy, logs, phase_1, united).set_index(keys)["total_flops"].sort_index()
    pd.testing.assert_series_equal(compared, counted, check_index_type=False)


def test_training_cost_of_a_study_without_a_phase_1_is_its_own(study: MadeUpStudy, tmp_path: Path) -> None:
    runs = [{**run, "seed": int(run["seed"])} for run in study.runs()]
    files = [benchmark(tmp_path / f"{n}.tsv", 1.0) for n, _ in enumerate(runs)]
    logs = read_tables(study.training_logs(), "training_log")
    accuracy = read_tables(study.accuracy(), "accuracy")
    cost = cost_of_runs(accuracy, logs, read_seconds(files, runs), read_seconds([], []), {}, {})
    for name in ("tokens", "flops", "seconds"):
        assert (cost[f"total_{name}"] == cost[name]).all()
    assert cost["seconds"].eq(1).all()
    with pytest.raises(FigureDataError, match="'flops'"):
        cost_of_runs(accuracy, logs.drop(columns="flops"), read_seconds(files, runs), read_seconds([], []), {}, {})


@pytest.mark.parametrize("content", ["h:m:s\n0:00:01\n", "s\tio\nNA\t1\n", "s\tio\n-\t1\n"])
def test_a_measurement_without_seconds_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "benchmark.tsv"
    path.write_text(content)
    with pytest.raises(FigureDataError, match=r"benchmark\.tsv: no seconds"):
        read_seconds([path], [{"model": "m", "task": "t", "method": "x", "seed": 0}])


@pytest.mark.parametrize("place", range(len("s\th:m:s\tmax_rss\n"), len("s\th:m:s\tmax_rss\n42.50\t0:00:42")))
def test_a_changed_digit_of_a_measurement_is_noticed_but_for_the_share_of_a_second(tmp_path: Path, place: int) -> None:
    path = tmp_path / "benchmark.tsv"
    content = bytearray(b"s\th:m:s\tmax_rss\n42.50\t0:00:42\t12.5\n")
    content[place] ^= 1
    path.write_bytes(content)
    in_share_of_a_second = place - len("s\th:m:s\tmax_rss\n") in (3, 4)
    run = [{"model": "m", "task": "t", "method": "x", "seed": 0}]
    if in_share_of_a_second:
        assert read_seconds([path], run)["seconds"].item() == pytest.approx(42.5, abs=0.5)
    else:
        with pytest.raises(FigureDataError, match=r"benchmark\.tsv: .*rm -rf"):
            read_seconds([path], run)


def test_every_learning_rate_is_listed_and_a_diverged_one_named(study: MadeUpStudy, tmp_path: Path) -> None:
    paths = []
    for method in ("lora_r2", "lora_r16"):
        trials = pd.DataFrame({"factor": [0.5, 1.0, 4.0], "learning_rate": [0.0015, 0.003, 0.012], "n": 50})
        trials = trials.assign(accuracy=[0.25, 0.5, None], lower=[0.2, 0.4, None], upper=[0.3, 0.6, None])
        trials = trials.assign(loss=[1.0, 0.5, None], chosen=[False, True, False])
        paths.append(study.write("trials", trials, "trials", model="m", task="lcm", method=method))
    numbers = written(tmp_path, "learning_rates", {"trials": paths})
    text = (tmp_path / "table.md").read_text()
    assert "| LCM | LoRA r=16 | 1 | 0.003 | 50.0 [40.0, 60.0] | 0.500 | yes |" in text
    assert "| LCM | LoRA r=2 | 4 | 0.012 | diverged | \N{EN DASH} |  |" in text
    assert "3 trials for each method" in text
    assert numbers.groupby("method")["chosen"].sum().tolist() == [1, 1]
    assert numbers["accuracy"].isna().sum() == 2


def test_special_characters_are_escaped() -> None:
    table = Table("100 % & more", "a_b", pd.DataFrame(), pd.DataFrame({"x|y": ["50 %", "#1"]}))
    latex = as_latex(table)
    assert r"\caption{100 \% \& more. a\_b}" in latex
    assert r"50 \% \\" in latex
    assert r"\#1 \\" in latex
    assert r"| x\|y |" in as_markdown(table)
    assert escape_latex("\\{~") == r"\textbackslash{}\{\textasciitilde{}"


def test_nodes_and_edges_are_judged_on_means_over_seeds(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers = written(tmp_path, "nodes_and_edges", {"nodes_and_edges": study.nodes_and_edges()})
    assert len(numbers) == 2 * 3 * 2
    jaccard = numbers[numbers["measure"] == "jaccard"].iloc[0]
    assert (jaccard["seeds"], jaccard["prompts"]) == (2, 200)
    # Excesses of edges .40 and .41, of nodes .10, expected .20.
    assert jaccard["ratio_drift"] == pytest.approx(4.05)
    assert jaccard["ratio_noise"] == pytest.approx(2.0)
    assert jaccard["quotient"] == pytest.approx(2.025)
    assert jaccard["lower"] > 1
    assert jaccard["verdict"] == "edges drift more than noise's own ratio says"
    pearson = numbers[numbers["measure"] == "pearson"]
    assert pearson[["quotient", "lower", "upper"]].isna().all(axis=None)
    assert set(pearson["verdict"]) == {"unresolved, circuits are empty or do not vary"}
    text = (tmp_path / "table.md").read_text()
    assert "| LoRA r=2 | jaccard | 2 | 200 | 0.405 | 0.100 | 4.05 | 2.00 | 2.02 [" in text
    assert "| pearson | 2 | 200 | 0.405 | 0.100 | undefined | undefined | undefined |" in text


def test_controls_have_their_pairs_prompts_and_brackets(study: MadeUpStudy, tmp_path: Path) -> None:
    numbers = written(tmp_path, "controls", {"controls": study.controls()})
    assert numbers.groupby(["task", "control"]).size().to_dict() == {
        (task, control): size
        for task in study.tasks
        for control, size in (("data_split", 2 * 4), ("other_seed", 2 * 3), ("random_circuit", 2 * 1))
    }
    shared = numbers[numbers["control"] == "random_circuit"]
    assert set(shared["method"]) == {"base"}
    text = (tmp_path / "table.md").read_text()
    assert "| Other data split, base model |" in text
    assert "| Random circuits |" in text


def pairs_of(seeds: list[tuple[int, int]], values: list[float], checkpoint: str) -> pd.DataFrame:
    first, second = zip(*seeds, strict=True)
    return pd.DataFrame({"seed_a": first, "seed_b": second, "checkpoint": checkpoint, "jaccard": values})


def test_brackets_are_a_jackknife_over_seeds() -> None:
    pairs = pairs_of([(0, 1), (0, 2), (1, 2)], [0.5, 0.6, 0.7], "10")
    covers, lower, upper = controls.interval_of_pairs(pairs)
    # Without seed 0, 1 and 2 the means are .7, .6 and .5; Student's t of three seeds is 4.3027.
    error = (2 / 3 * 0.02) ** 0.5
    assert covers == "seeds"
    assert (lower, upper) == pytest.approx((0.6 - 4.3027 * error, 0.6 + 4.3027 * error), abs=1e-4)
    against_base = pairs_of([(-1, 0), (-1, 1), (-1, 2), (-1, 3)], [0.1, 0.2, 0.3, 0.4], "none")
    covers, lower, upper = controls.interval_of_pairs(against_base)
    standard_error = np.std([0.1, 0.2, 0.3, 0.4], ddof=1) / 2
    assert (covers, upper) == ("draws", pytest.approx(0.25 + 3.1824 * standard_error, abs=1e-4))


def test_half_splits_have_the_middle_of_their_pairs_and_two_seeds_no_brackets() -> None:
    halves = pairs_of([(-1, -1)] * 101, [place / 100 for place in range(101)], "00")
    assert controls.interval_of_pairs(halves) == ("half-splits", pytest.approx(0.025), pytest.approx(0.975))
    covers, lower, upper = controls.interval_of_pairs(pairs_of([(0, 1)], [0.5], "10"))
    assert covers == "none"
    assert np.isnan([lower, upper]).all()
