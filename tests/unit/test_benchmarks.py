"""The benchmarks run, and what they compare does the same work: losses of our loop and of the Trainer agree."""

from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from circuitdrift.config.reading import load_study
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_table
from circuitdrift.study import Study
from circuitdrift.training.examples import Examples
from circuitdrift.training.preparation import prepare_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def training(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("training")
    for name in ("training", "measuring"):
        sys.modules.pop(name, None)


def rows_of(table: str) -> list[dict[str, str]]:
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_benchmark_of_training_writes_a_row_for_each_loop(tmp_path, training, monkeypatch):
    written = tmp_path / "made" / "benchmark.md"
    command = ["training.py", "--shapes", "embedded", "--steps", "3", "--rounds", "1", "--output", str(written)]
    monkeypatch.setattr(sys, "argv", command)
    training.main()
    trainer, ours = rows_of(written.read_text())
    assert (trainer["loop"], ours["loop"]) == ("Trainer", "CircuitDrift")
    for row in (trainer, ours):
        assert float(row["examples/s"]) > 0
        assert float(row["tokens/s"]) > 10 * float(row["examples/s"])
        assert float(row["CPU time of a step (ms)"]) > 1
        assert float(row["peak memory (GiB)"]) > 0.1
        assert len(row["mean loss by window"].split()) == 3
    assert float(ours["speed-up"]) == pytest.approx(float(ours["examples/s"]) / float(trainer["examples/s"]), abs=0.01)
    assert float(ours["largest difference"]) < 1e-5


@pytest.mark.parametrize("method", ["lora_r2", "full"])
def test_both_loops_take_the_same_steps(training, method):
    """Losses of later steps depend on every update before them, so their agreement says that the updates agree."""
    _, table = training.model_and_table("embedded", None)
    plan = training.plan_of(training.METHODS[method], 4)
    found = []
    for loop in training.LOOPS:
        base, _ = training.model_and_table("embedded", None)
        examples = Examples(table, torch.device("cpu"))
        model = prepare_model(base, ("embedded", None), training.METHODS[method], 2.0, None, examples, 4, seed=0)
        run = (
            training.run_loop(model, examples, plan)
            if loop == "CircuitDrift"
            else training.run_trainer(model, table, plan)
        )
        assert len(run.ends) == 5
        assert all(a.wall < b.wall and a.cpu < b.cpu for a, b in pairwise(run.ends))
        weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
        found.append((torch.tensor(run.losses), weights))
    (losses, weights), (our_losses, our_weights) = found
    assert losses.std() > 1e-3
    torch.testing.assert_close(our_losses, losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_weights, weights, rtol=1e-3, atol=plan.learning_rate / 10)


def test_the_benchmark_of_verification_reads_the_files_of_a_study_and_random_weights(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    verification = importlib.import_module("verification")
    write_table(tmp_path / "in" / "nodes.parquet", pd.DataFrame({"x": range(9)}), "figure", Provenance.detached())
    save_file({"x": torch.arange(9.0)}, tmp_path / "in" / "scores.safetensors")
    written = tmp_path / "benchmark.md"
    command = ["verification.py", str(tmp_path / "in"), "--weights-gib", "0.01", "--output", str(written)]
    monkeypatch.setattr(sys, "argv", command)
    verification.main()
    for name in ("verification", "measuring"):
        sys.modules.pop(name, None)
    rows = rows_of(written.read_text())
    assert [row["files"] for row in rows] == ["nodes.parquet", "scores.safetensors", "random weights"]
    assert [row["number"] for row in rows] == ["1", "1", "1"]
    assert float(rows[2]["mean size (MB)"]) == pytest.approx(0.01 * 1.024**3 * 1000, rel=0.01)
    assert float(rows[2]["verified (ms)"]) > float(rows[2]["plain (ms)"]) > 0


def test_the_large_study_has_the_runs_that_its_benchmark_names(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    planning = importlib.import_module("planning")
    whole, part = (Study(load_study(planning.large_study(models), Path(), "large.yaml")) for models in (3, 1))
    assert (len(whole.runs), len(part.runs), len(whole.checkpoints)) == (3 * 12 * 12 * 5, 12 * 12 * 5, 11)
    for name in ("planning", "measuring"):
        sys.modules.pop(name, None)
