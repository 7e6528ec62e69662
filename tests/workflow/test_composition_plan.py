"""A compositional task with its sub-tasks as Snakemake plans it, and CircuitLoRA by the union of their circuits."""

from __future__ import annotations

import re

import yaml
from refusals import GOOD, call

CIRCUIT_LORA = {"kind": "circuit_lora", "rank": 1, "critical_rank": 2, "critical_layers": 1, "phase_1": "lora"}
METHODS = {**GOOD["methods"], "own": CIRCUIT_LORA, "union": {**CIRCUIT_LORA, "circuit": "union"}}
SIZES = {"train": 64, "circuit": 16, "test": 16}
TASKS = {
    "two": {"family": "compositional", **SIZES, "methods": ["own", "union"]},
    "inner": {"family": "sub_task", "of": "two", "part": "add_sub", **SIZES, "methods": []},
    "outer": {"family": "sub_task", "of": "two", "part": "mul_div", **SIZES, "methods": []},
}


def plan(folder, **sections):
    config = folder / "study.yaml"
    config.write_text(yaml.safe_dump({**GOOD, "tasks": TASKS, "methods": METHODS, **sections}))
    planned = call(config, folder)
    assert planned.code == 0, planned.text[-2000:]
    return planned.text, {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", planned.text, re.MULTILINE)}


def inputs_of(text, rule, **wildcards):
    """The inputs of each job of a rule with these wildcards."""
    jobs = re.findall(rf"rule {rule}:\n    input: (.*)\n(?:    .*\n)*?    wildcards: (.*)\n", text)
    return [
        inputs.split(", ")
        for inputs, named in jobs
        if all(f"{name}={value}" in named.split(", ") for name, value in wildcards.items())
    ]


def test_ranks_by_union_follow_phase_1_on_three_tasks(tmp_path):
    text, jobs = plan(tmp_path, seeds=[3], drift={"methods": []})
    assert jobs["finetune"] == 3 + 2
    assert jobs["select_circuits"] == 3
    once = ("unite_circuits", "measure_overlaps", "measure_union_faithfulness", "plot_overlaps")
    once = (
        *once,
        "plot_union_faithfulness",
        "tabulate_overlaps",
        "tabulate_union_faithfulness",
        "plot_layer_certainty",
    )
    assert {rule: jobs.get(rule) for rule in once} == dict.fromkeys(once, 1)
    (union,) = inputs_of(text, "allocate_circuit_lora", name="union")
    assert "results/kept/composition/toy/two/lora/seed-3/union/layers.parquet" in union
    assert not any("/circuits/" in path for path in union)
    (own,) = inputs_of(text, "allocate_circuit_lora", name="own")
    assert "results/kept/drift/toy/two/lora/seed-3/layers.parquet" in own
    (united,) = inputs_of(text, "unite_circuits")
    base, after = "results/kept/circuits/toy/{0}/base/edges.parquet", "circuits/toy/{0}/lora/seed-3/{1}/edges.parquet"
    assert united == [
        path
        for task in TASKS
        for path in (base.format(task), *(f"results/kept/{after.format(task, number)}" for number in ("01", "02")))
    ]
    (run,) = inputs_of(text, "measure_union_faithfulness")
    assert [path for path in run if path.endswith("edges.parquet")] == [
        path for task in TASKS for path in (base.format(task), f"results/kept/{after.format(task, '02')}")
    ]


def test_circuits_of_two_unrelated_tasks_are_united_as_a_control(tmp_path):
    others = {"lcm": {"family": "lcm", **SIZES}, "function": {"family": "function", **SIZES}}
    tasks = {name: {**task, "methods": ["lora"]} for name, task in {**TASKS, **others}.items()}
    text, _ = plan(tmp_path, tasks=tasks, methods=GOOD["methods"])
    (run,) = inputs_of(text, "measure_union_faithfulness")
    named = [path.split("/")[4] for path in run if path.endswith("edges.parquet")]
    assert named == [task for task in ("two", "inner", "outer", "function", "lcm") for _ in range(2)]


def test_modules_take_their_changes_from_the_unions(tmp_path):
    by_module = {**METHODS, "union": {**METHODS["union"], "allocation": "per_module"}}
    text, _ = plan(tmp_path, methods=by_module)
    (union,) = inputs_of(text, "allocate_circuit_lora_per_module", name="union")
    assert [path for path in union if path.endswith("edges.parquet")] == [
        f"results/kept/composition/toy/two/lora/seed-0/{checkpoint}/union/edges.parquet" for checkpoint in ("00", "02")
    ]


def test_a_study_without_sub_tasks_has_nothing_to_compare(tmp_path):
    _, jobs = plan(
        tmp_path, tasks={"two": {**TASKS["two"], "methods": ["own"]}}, methods={**GOOD["methods"], "own": CIRCUIT_LORA}
    )
    assert not {"unite_circuits", "measure_overlaps", "plot_overlaps"} & set(jobs)
