"""Circuits made elsewhere, from their files to an adapter configuration: a study of nothing but imports."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from peft import LoraConfig

sys.path.insert(0, str(ROOT / "tests" / "unit"))
from exchange_files import content, write

from circuitdrift.provenance import Provenance
from circuitdrift.storage import provenance_of, read_table

RELEASED = ROOT.parent / "shared" / "authors_circuits"
MADE_BEFORE = {"input->a0.h0<q>": 1.0, "input->a0.h0<v>": 1.0, "a0.h0->m1": 2.0, "m1->logits": 1.0, "m0->logits": 0.5}
MADE_AFTER = {"input->a0.h0<k>": -0.5, "a0.h0->m1": 2.0, "m1->logits": 4.0, "input->m0": 0.25, "m0->logits": 0.5}


def study(folder: Path, **imports: dict) -> Path:
    config = folder / "imports.yaml"
    config.write_text(yaml.safe_dump({"study": "imported", "imports": imports}))
    return config


def made_up(folder: Path, **settings) -> dict:
    """An import of two small files beside the config: sequential blocks, one file gzipped under a plain name."""
    write(folder / "before.json", content(with_input(MADE_BEFORE), parallel=False), compress=True)
    write(folder / "after.json", content(MADE_AFTER, parallel=False, only_kept=True, old_nodes=True))
    checkpoints = {"00": "before.json", "01": "after.json"}
    return {"format": "eap-json", "checkpoints": checkpoints, "critical_layers": 1, "architecture": "gpt2", **settings}


def with_input(kept: dict[str, float]) -> dict[str, float]:
    return {**kept, "input->m0": 0.25}


def drift_of(workflow, name: str) -> tuple[dict, dict, list[int]]:
    """Rows of transitions by level, net measures by level, and the critical layers in their order."""
    results = workflow.directory / "results" / "imported"
    drift = results / "drift" / "imported" / name
    transitions = read_table(drift / "transitions.parquet", "transitions").set_index("level")
    summary = read_table(drift / "summary.parquet", "summary").set_index(["level", "measure"])["value"]
    table = read_table(results / "allocation" / "imported" / name / "critical_layers.parquet", "critical_layers")
    critical = table[(table["policy"] == "score_change") & table["critical"]].sort_values("rank_order")
    return transitions.to_dict("index"), summary.to_dict(), critical["layer"].tolist()


def test_made_up_circuits_give_drift_layers_and_ranks(workflow, tmp_path):
    config = study(tmp_path, **{"made-up.1": made_up(tmp_path, rank=2, critical_rank=6, model="gpt2")})
    result = workflow.call("imports", "--cores", "1", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    transitions, summary, critical = drift_of(workflow, "made-up.1")
    # input -> a0.h0 is one edge, kept before (1 + 1) and after (-0.5)
    assert (transitions["edge"]["initial"], transitions["edge"]["changed"]) == (5, 0)
    assert (summary["node", "initial"], summary["node", "final"]) == (5.0, 5.0)
    assert critical == [1]  # layer 0: |-0.5 - 2| = 2.5; layer 1: |4 - 1| = 3

    results = workflow.directory / "results" / "imported"
    for label, kept in (("00", 6), ("01", 5)):
        edges = results / "circuits" / "imported" / "made-up.1" / label / "edges.parquet"
        assert read_table(edges, "edges")["in_circuit"].sum() == kept
        assert read_table(edges.with_name("nodes.parquet"), "nodes")["in_circuit"].sum() == 5
        origin: Provenance = provenance_of(edges)
        assert origin.wildcards == {"name": "made-up.1", "checkpoint": label}
    allocation = results / "allocation" / "imported" / "made-up.1"
    adapter = LoraConfig.from_pretrained(allocation)
    assert (adapter.r, adapter.base_model_name_or_path, adapter.fan_in_fan_out) == (2, "gpt2", True)
    assert set(adapter.rank_pattern.values()) == {6}
    assert all(r"transformer\.h\.1\." in pattern for pattern in adapter.rank_pattern)
    assert str(tmp_path) not in json.dumps(json.loads((allocation / "adapter_config.json").read_text()))


def test_identical_circuits_have_no_critical_layer_and_the_log_says_so(workflow, tmp_path):
    imported = made_up(tmp_path, checkpoints={"00": "before.json", "01": "before.json"})
    result = workflow.call("imports", "--cores", "1", config=study(tmp_path, same=imported))
    assert result.returncode != 0
    log = (workflow.directory / "logs/imported/allocate_imported_ranks/same.log").read_text()
    assert "policy score_change: nothing changed" in log
    assert "import circuits that differ" in log


def test_a_study_of_imports_alone_makes_them_by_default_and_only_once(workflow, tmp_path):
    imported = made_up(tmp_path)
    config = study(tmp_path, small=imported)
    rules = {"compare_circuits_imported", "allocate_imported_ranks", "import_circuits_small"}
    assert workflow.rules_to_run(config=config) == rules | {"write_config"}
    assert workflow.rules_to_run("imports", config=config) == rules | {"imports"}
    assert workflow.rules_to_run("exports", config=config) == {"exports"}
    result = workflow.call("--cores", "1", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    assert workflow.rules_to_run(config=config) == set()
    study(tmp_path, small={**imported, "critical_rank": 64})
    assert workflow.rules_to_run(config=config) == {"allocate_imported_ranks", "write_config"}


def test_a_damaged_file_fails_with_its_name_in_the_log(workflow, tmp_path):
    imported = made_up(tmp_path)
    whole = (tmp_path / "before.json").read_bytes()
    (tmp_path / "before.json").write_bytes(whole[:-30])
    result = workflow.call("imports", "--cores", "1", config=study(tmp_path, small=imported))
    assert result.returncode != 0
    log = workflow.directory / "logs" / "imported" / "import_circuits" / "small.log"
    assert f"{tmp_path / 'before.json'}: truncated or damaged gzip" in log.read_text()
    assert not list(workflow.directory.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("checkpoints", "words"),
    [
        ({"00": "before.json", "01": "absent.json"}, ["imports.small.checkpoints.01", "no such file", "absent.json"]),
        ({"00": "before.json"}, ["imports.small.checkpoints", "later"]),
        ({"00": "before.json", "1": "after.json"}, ["imports.small.checkpoints.1"]),
        ({0: "before.json", 1: "after.json"}, ["imports.small.checkpoints", "quotes"]),
    ],
)
def test_bad_checkpoints_stop_the_workflow_before_any_job(workflow, tmp_path, checkpoints, words):
    config = study(tmp_path, small=made_up(tmp_path, checkpoints=checkpoints))
    result = workflow.call("--cores", "1", config=config)
    assert result.returncode != 0
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert not (workflow.directory / "results").exists()


@pytest.mark.skipif(not RELEASED.is_dir(), reason=f"the released circuits are not in {RELEASED}")
def test_the_released_circuits_give_the_known_numbers(workflow, tmp_path):
    files = {name: str(RELEASED / f"compositional_{name}.json.gz") for name in ("epoch0", "r2_epoch4", "r32_epoch4")}
    config = study(
        tmp_path,
        **{
            name: {"format": "eap-json", "checkpoints": {"00": files["epoch0"], "01": files[f"{name}_epoch4"]}}
            for name in ("r2", "r32")
        },
    )
    result = workflow.call("imports", "--cores", "1", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    known = {
        "r2": ((334, 316, 30, 48), (9153, 8397, 3291, 4047), 0.4103, 1070, [0, 11, 3, 5, 4]),
        "r32": ((334, 316, 27, 45), (9153, 8508, 3428, 4073), 0.4038, 1113, [0, 11, 3, 4, 5]),
    }
    for name, (nodes, edges, jaccard, induced, layers) in known.items():
        transitions, summary, critical = drift_of(workflow, name)
        measures = ("initial", "final", "added_net", "removed_net")
        assert tuple(summary["node", measure] for measure in measures) == nodes
        assert tuple(summary["edge", measure] for measure in measures) == edges
        assert round(transitions["edge"]["jaccard"], 4) == jaccard
        assert transitions["edge"]["node_induced"] == induced
        assert critical == layers
        adapter = LoraConfig.from_pretrained(
            workflow.directory / "results" / "imported" / "allocation" / "imported" / name
        )
        assert (adapter.r, set(adapter.rank_pattern.values()), len(adapter.rank_pattern)) == (8, {32}, 20)
