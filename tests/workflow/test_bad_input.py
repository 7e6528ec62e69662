"""Bad configs and bad prompt files stop the workflow before any job, naming key or row, and the fix."""

from __future__ import annotations

import pytest

PROMPTS = "clean,corrupted,answer\n" + "\n".join(f"a b{i},a c{i}, d{i}" for i in range(12))


def study(text: str) -> str:
    return "study: bad\nmodels: {toy: {source: scratch, layers: 2}}\n" + text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (study("circuit: {fracton: 0.1}"), ["circuit.fracton", "did you mean 'fraction'"]),
        (study("circuit: {fraction: 1.5}"), ["circuit.fraction", "less than or equal to 1"]),
        (study("tasks: {t: {family: addsub}}"), ["tasks.t.family", "'addsub'", "add_sub"]),
        (
            study("methods: {c: {kind: circuit_lora, rank: 1, critical_rank: 2, phase_1: x}}"),
            ["methods.c.phase_1", "'x'"],
        ),
        (study("seeds: []"), ["seeds"]),
    ],
)
def test_a_bad_config_stops_before_any_job(workflow, tmp_path, text, named):
    config = tmp_path / "bad.yaml"
    config.write_text(text)
    result = workflow.call("--cores", "1", config=config)
    assert result.returncode != 0
    assert all(word in result.stderr for word in ["bad.yaml", *named]), result.stderr
    assert "Traceback" not in result.stderr
    assert not (workflow.directory / "results").exists()


@pytest.mark.parametrize("text", ["study: [", "- a\n- b\n"])
def test_a_config_that_is_no_mapping_stops_before_any_job(workflow, tmp_path, text):
    config = tmp_path / "bad.yaml"
    config.write_text(text)
    result = workflow.call("--cores", "1", config=config)
    assert result.returncode != 0
    assert "YAML with keys at top level" in result.stderr or "not valid JSON or YAML" in result.stderr
    assert not (workflow.directory / "results").exists()


def test_a_missing_config_file_is_named(workflow, tmp_path):
    result = workflow.call("--cores", "1", config=tmp_path / "absent.yaml")
    assert result.returncode != 0
    assert "absent.yaml" in result.stderr


@pytest.mark.parametrize(
    ("prompts", "named"),
    [
        (PROMPTS.replace("corrupted,", "corupted,"), ["prompts.csv", "corupted", "corrupted"]),
        (PROMPTS.replace("a b3,", ","), ["prompts.csv", "row 4", "clean"]),
        (None, ["prompts.csv"]),
    ],
)
def test_a_bad_prompt_file_stops_before_any_job(workflow, tmp_path, prompts, named):
    config = tmp_path / "own.yaml"
    config.write_text(study("tasks: {own: {family: file, path: prompts.csv}}\nmethods: {l: {kind: lora, rank: 1}}"))
    if prompts is not None:
        (tmp_path / "prompts.csv").write_text(prompts)
    result = workflow.call("--cores", "1", config=config)
    assert result.returncode != 0
    assert all(word in result.stderr for word in named), result.stderr
    assert "Traceback" not in result.stderr
    assert not (workflow.directory / "results").exists()


def test_one_key_on_the_command_line_is_refused_with_the_way_to_do_it(workflow):
    result = workflow.call("--dry-run", "--config", "study=other")
    assert result.returncode != 0
    assert "--configfile" in result.stdout + result.stderr
