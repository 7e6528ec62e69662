"""Checkpoints that were trained elsewhere, as Snakemake plans them: a study without any fine-tuning."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from refusals import GOOD, call

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)


def adapter(folder: Path) -> str:
    """An adapter on the good study's model, as far as it is looked at before any job."""
    folder.mkdir()
    config = {"peft_type": "LORA", "target_modules": ["dense"], "base_model_name_or_path": "toy"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(WEIGHTS)
    return folder.name


def test_every_stage_of_circuits_is_planned_for_each_checkpoint_and_nothing_is_trained(tmp_path):
    checkpoints = [{"adapter": adapter(tmp_path / name)} for name in ("first", "second", "third")]
    models = {"toy": {**GOOD["models"]["toy"], "checkpoints": checkpoints}}
    given = {"rank": 1, "critical_rank": 2, "critical_layers": 1}
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump({**GOOD, "models": models, "methods": {}, "given": given}))
    planned = call(config, tmp_path)
    assert planned.code == 0, planned.text[-2000:]
    jobs = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", planned.text, re.MULTILINE)}
    for rule in ("fetch_checkpoint", "score_edges_given", "select_base_circuit_given", "measure_faithfulness_given"):
        assert jobs[rule] == 3, rule
    once = (
        *("measure_accuracy", "compare_circuits_given", "measure_reliability_given", "classify_edges_given"),
        *("measure_functional_drift_given", "measure_controls_given", "allocate_circuit_lora_given"),
        *("score_perturbed_base", "score_perturbed_given", "measure_robustness_given", "measure_untrained_robustness"),
        *("locate_changes_given", "tabulate_early_signal"),
        *("pretrain", "score_edges_base", "plot_change_rates", "plot_explorer", "tabulate_critical_layers"),
    )
    assert [rule for rule in once if jobs.get(rule) != 1] == []
    assert not {"finetune", "plot_method_accuracy"} & set(jobs)
    read = re.findall(r"rule fetch_checkpoint:\n\s+input: (.*)\n", planned.text)
    assert all("adapter_model.safetensors" in line and "models/toy/manifest.json" in line for line in read)
    assert " warning: " not in planned.text
