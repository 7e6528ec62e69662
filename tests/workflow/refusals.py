"""Calls Snakemake on a bad study, in this process, and holds what every refusal before the first job must be."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT
from snakemake.cli import main

GOOD: Mapping[str, Any] = {
    "study": "kept",
    "models": {"toy": {"source": "scratch", "layers": 2, "heads": 2, "width": 32, "mlp_width": 64}},
    "tasks": {"sums": {"family": "add_sub", "max_operand": 50, "train": 64, "circuit": 16, "test": 32}},
    "methods": {"lora": {"kind": "lora", "rank": 2}},
    "training": {"epochs": 1, "checkpoints": 2},
}
"""A study that can be run, whose sections a case replaces."""

MOST_LINES = 12


@dataclass(frozen=True)
class Refused:
    """What Snakemake printed, and its exit code."""

    text: str
    code: int


def call(config: Path, folder: Path) -> Refused:
    """Plan every job of a config file, as ``snakemake --dry-run`` does."""
    output = io.StringIO()
    arguments = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(config), "--directory", str(folder)]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), contextlib.chdir(folder):
        try:
            main([*arguments, "--dry-run", "--cores", "1"])
        except SystemExit as stopped:
            return Refused(output.getvalue(), int(stopped.code or 0))
    return Refused(output.getvalue(), 0)


def write(folder: Path, config: Mapping[str, Any] | str | bytes) -> Path:
    """A config file: of the good study with some sections replaced, or verbatim."""
    path = folder / "study.yaml"
    if isinstance(config, Mapping):
        config = yaml.safe_dump({**GOOD, **config}, allow_unicode=True)
    path.write_bytes(config.encode() if isinstance(config, str) else config)
    return path


def results_of(folder: Path) -> dict[str, str]:
    """Digest and time of each file that was computed before."""
    files = [path for path in sorted((folder / "results").rglob("*")) if path.is_file()]
    return {f"{path} {path.stat().st_mtime_ns}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def computed_before(folder: Path) -> None:
    """Results of the good study: a finished run, as its files lie."""
    run = folder / "results" / "kept" / "runs" / "toy" / "sums" / "lora" / "seed-0"
    (run / "checkpoints" / "02").mkdir(parents=True)
    (run / "checkpoints" / "02" / "adapter_model.safetensors").write_bytes(b"weights of hours")
    (run / "accuracy.parquet").write_bytes(b"measured")


def assert_refused(folder: Path, config: Path, words: list[str]) -> None:
    """The study stops with exit code 1, in few lines that hold ``words``, and leaves the results as they were."""
    computed_before(folder)
    before = results_of(folder)
    refused = call(config, folder)
    assert refused.code == 1, refused.text[-2000:]
    assert [word for word in words if word not in refused.text] == [], refused.text
    lines = [line for line in refused.text.splitlines() if line and not line.startswith("Using workflow specific")]
    assert len(lines) <= MOST_LINES, refused.text
    assert max(map(len, lines)) < 500, refused.text
    assert "Traceback" not in refused.text
    assert results_of(folder) == before
    assert len(before) == 2


def warnings_in(folder: Path, config: Path) -> list[str]:
    """The warnings of a study that can be planned."""
    planned = call(config, folder)
    assert planned.code == 0, planned.text[-2000:]
    return [line for line in planned.text.splitlines() if ": warning: " in line]


def case(name: str, *values: Any) -> Any:
    """A named case of a table."""
    return pytest.param(*values, id=name)
