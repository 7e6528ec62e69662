"""Values that are legal but senseless: the study is planned, and one line names the key and the value."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT
from refusals import GOOD, call, case, warnings_in, write

from circuitdrift.checks.before_jobs import check_study
from circuitdrift.study import read_study

TASK = GOOD["tasks"]["sums"]
LORA = GOOD["methods"]["lora"]

VALUES = [
    case("no tasks", {"tasks": {}}, ["study: 'kept'", "does nothing", "tasks is empty"]),
    case("nothing at all", {"models": {}, "tasks": {}, "methods": {}}, ["does nothing", "models and tasks is empty"]),
    case(
        "learning rate",
        {"training": {"checkpoints": 2, "epochs": 1, "learning_rate_lora": 10}},
        ["training.learning_rate_lora: 10"],
    ),
    case(
        "learning rate of a method",
        {"methods": {"lora": {**LORA, "learning_rate": 1}}},
        ["methods.lora.learning_rate: 1"],
    ),
    case(
        "learning rate of pre-training",
        {"models": {"toy": {**GOOD["models"]["toy"], "learning_rate": 5}}},
        ["models.toy.learning_rate: 5"],
    ),
    case(
        "weight decay", {"training": {"epochs": 1, "checkpoints": 2, "weight_decay": 3}}, ["training.weight_decay: 3"]
    ),
    case(
        "more examples than test prompts",
        {"faithfulness": {"examples": 33}},
        ["faithfulness.examples: 33", "32 test prompts of 'sums'"],
    ),
    case("more folds than prompts", {"circuit": {"folds": 17}}, ["circuit.folds: 17", "16 circuit prompts"]),
    case(
        "batch above the prompts",
        {"training": {"epochs": 3, "checkpoints": 2, "batch_size": 65}},
        ["training.batch_size: 65", "64 train prompts"],
    ),
    case(
        "passes above the batch",
        {"training": {"epochs": 1, "checkpoints": 2, "micro_batch_size": 64}},
        ["training.micro_batch_size: 64", "32"],
    ),
    case(
        "more circuits exchanged than saved",
        {"drift": {"functional_checkpoints": 4}},
        ["drift.functional_checkpoints: 4", "3 checkpoints"],
    ),
    case(
        "empty circuit",
        {"faithfulness": {"examples": 8, "size_fractions": [0.001, 0.5]}},
        ["faithfulness.size_fractions: [0.001]", "42 edges", "empty circuit"],
    ),
    case("whole graph", {"circuit": {"fraction": 1}}, ["circuit.fraction: 1", "every edge"]),
    case("method twice", {"methods": {"lora": LORA, "again": LORA}}, ["methods.lora", "methods.again"]),
    case("recipe twice", {"recipes": {"a": {"steps": 3}, "b": {"steps": 3}}}, ["recipes.b", "recipes.a"]),
    case("recipe that changes nothing", {"recipes": {"a": {"steps": 5}}}, ["recipes.a", "itself"]),
    case(
        "default sizes above the range",
        {"tasks": {"sums": {"family": "add_sub", "max_operand": 20, "test": 32}}},
        ["tasks.sums", "4,232", "420", "fewer"],
    ),
    case(
        "default operand above the numbers",
        {
            "models": {"toy": {**GOOD["models"]["toy"], "largest_number": 100}},
            "tasks": {"l": {"family": "lcm", "train": 64, "test": 32}},
        },
        ["tasks.l.max_operand: 200", "end at 100"],
    ),
    case("mps on another system", {"execution": {"device": "mps"}}, ["execution.device: 'mps'", "not on this machine"]),
]


@pytest.mark.parametrize(("config", "words"), VALUES)
def test_one_line_names_key_and_value(tmp_path, config, words):
    warnings = warnings_in(tmp_path, write(tmp_path, config))
    assert len([line for line in warnings if all(word in line for word in words)]) == 1, warnings
    assert max(map(len, warnings)) < 250


@pytest.mark.parametrize("there", [False, True])
def test_a_card_that_is_not_there_is_a_warning_because_jobs_may_run_elsewhere(tmp_path, monkeypatch, there):
    monkeypatch.setattr("circuitdrift.checks.devices._has_driver", lambda: there)
    study = read_study(write(tmp_path, {"execution": {"device": "cuda"}}))
    assert any("execution.device: 'cuda' is not on this machine" in line for line in check_study(study)) is not there


@pytest.mark.parametrize("sections", [{"methods": {}}, {"tasks": {"sums": {**TASK, "methods": []}}}])
def test_without_methods_the_circuits_of_models_as_they_are_are_planned(tmp_path, sections):
    planned = call(write(tmp_path, sections), tmp_path)
    assert planned.code == 0
    assert ": warning: " not in planned.text
    rules = set(re.findall(r"^(?:local)?rule (\S+):$", planned.text, re.MULTILINE))
    assert {"score_edges_base", "measure_faithfulness_base", "measure_recipe_reliability", "plot_circuit"} <= rules
    assert {"tabulate_untouched_circuits", "tabulate_faithfulness_areas", "plot_faithfulness_by_size"} <= rules
    assert not {"finetune", "tabulate_recipes", "tabulate_dropped_rows"} & rules


def test_the_good_study_has_no_warnings(tmp_path):
    assert warnings_in(tmp_path, write(tmp_path, {})) == []


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "configs").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_the_shipped_studies_have_no_warnings(path):
    assert check_study(read_study(path)) == []


def test_a_run_says_it_once_and_not_in_each_job(workflow, tmp_path):
    result = workflow.call("--cores", "1", config=write(tmp_path, {"tasks": {}, "methods": {}}))
    assert result.returncode == 0, result.stderr
    output = result.stdout + result.stderr
    assert "all done" in output
    assert output.count(": warning: ") == 1
