"""How a job ends that refuses its input: a few lines through Snakemake's own frame, and a command that mends."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from checkout import ROOT, Workflow

sys.path.insert(0, str(ROOT / "tests" / "unit"))
from exchange_files import study_of_two_circuits

MOST_LINES = 12
TARGET = "results/imported/drift/imported/mine/transitions.parquet"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return study_of_two_circuits(tmp_path)


def failure_of(printed: str) -> list[str]:
    """The lines from a job's refusal to the end of the call."""
    lines = printed.splitlines()
    return lines[next(number for number, line in enumerate(lines) if " error: " in line) :]


def test_snakemakes_own_lines_come_back_where_they_are_asked_for(workflow: Workflow, config: Path) -> None:
    own = ("rule import_circuits_mine:", "Finished jobid: ")
    printed = workflow.call("imports", "--cores", "1", "--printshellcmds", config=config).stderr
    assert [words for words in own if words not in printed] == []
    assert "import_circuits/mine: " in printed
    lines = workflow.call("imports", "--cores", "1", "--forceall", config=config).stderr.splitlines()
    assert [words for words in own if any(words in line for line in lines)] == []
    assert sum(" of 4 jobs, " in line for line in lines) == 4
    assert len(lines) <= MOST_LINES


def test_a_refusal_in_a_job_takes_a_few_lines_and_no_traceback(workflow: Workflow, config: Path) -> None:
    config.with_name("after.json").write_text('{"cfg": ')
    result = workflow.call("imports", "--cores", "1", config=config)
    assert result.returncode == 1
    lines = failure_of(result.stderr)
    assert len(lines) <= MOST_LINES, result.stderr
    assert sum("after.json: truncated, or not JSON" in line for line in lines) == 2
    path = "logs/imported/import_circuits/mine.log"
    assert re.fullmatch(rf"import_circuits/mine: failed after \d+ s; log: {path}", lines[1])
    end = lines[next(number for number, line in enumerate(lines) if line.startswith("1 job failed")) :]
    assert end[1].startswith("  import_circuits/mine: ")
    assert "after.json: truncated, or not JSON" in end[1]
    assert end[2] == f"    log: {path}"
    log = (workflow.directory / "logs" / "imported" / "import_circuits" / "mine.log").read_text()
    assert "after.json: truncated, or not JSON" in log
    assert "Traceback" not in result.stderr + log


def test_a_damaged_result_is_refused_and_mended_by_the_command_that_the_refusal_gives(
    workflow: Workflow, config: Path
) -> None:
    assert workflow.call(TARGET, "--cores", "1", config=config).returncode == 0
    results = workflow.directory / "results" / "imported"
    before = {path: path.read_bytes() for path in sorted(results.rglob("*")) if path.is_file()}
    edges = results / "circuits" / "imported" / "mine" / "01" / "edges.parquet"
    damaged = bytearray(before[edges])
    damaged[len(damaged) // 3] ^= 1
    edges.write_bytes(damaged)

    result = workflow.call(TARGET, "--cores", "1", config=config)
    assert result.returncode == 1
    lines = failure_of(result.stderr)
    assert len(lines) <= MOST_LINES, result.stderr
    assert "Traceback" not in result.stderr
    told = "\n".join(lines)
    assert "01/edges.parquet: truncated, or changed since it was written" in told
    removal = re.search(r"make it again: rm -rf (\S+) && snakemake", told)
    assert removal is not None
    (workflow.directory / removal.group(1)).unlink()
    assert workflow.call(TARGET, "--cores", "1", config=config).returncode == 0
    assert {path: path.read_bytes() for path in sorted(results.rglob("*")) if path.is_file()} == before


def test_a_refused_config_takes_a_few_lines_and_no_traceback(workflow: Workflow, config: Path) -> None:
    config.write_text(config.read_text().replace("imports:", "importss:"))
    result = workflow.call("imports", "--cores", "1", config=config)
    assert result.returncode == 1
    assert "did you mean 'imports'" in result.stderr
    assert len(result.stderr.splitlines()) <= MOST_LINES, result.stderr
    assert "Traceback" not in result.stderr
