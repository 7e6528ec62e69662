"""The script of docs/library.md, on a small model and a CSV as a reader would have them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from circuitdrift.models.embedded_tokenizer import build_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "examples" / "circuit_of_a_model.py"


@pytest.fixture
def model(tmp_path):
    tokenizer = build_tokenizer(100)
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=5,
        num_attention_heads=4,
        initializer_range=0.2,
    )
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def prompts(tmp_path):
    rows = [f"{a} + {b} =,{a} + {b + 1} =, {a + b}, {a + b + 1}" for a in range(10, 16) for b in range(20, 28)]
    path = tmp_path / "prompts.csv"
    path.write_text("\n".join(["clean,corrupted,answer,corrupted_answer", *rows]) + "\n")
    return path


def test_it_goes_from_a_model_and_a_csv_to_a_circuit_and_its_reliability(monkeypatch, capsys, model, prompts):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(model), str(prompts)])
    names = runpy.run_path(str(SCRIPT))
    graph = names["anatomy"].graph
    assert int(names["circuit"].sum()) == int(names["edges"]["in_circuit"].sum()) > 0
    assert int(names["circuit"].sum()) <= 0.05 * graph.n_edges
    assert set(names["outcome"]) == {"kl_model_circuit", "kl_from_corrupted", "accuracy", "logit_difference"}
    assert names["noise"].set_index(["level", "measure"]).loc[("edge", "jaccard"), "within"].between(0, 1).all()
    assert "logits" in capsys.readouterr().out


def test_the_page_shows_the_script_as_it_is():
    page = (ROOT / "docs" / "library.md").read_text()
    assert f"```python\n{SCRIPT.read_text()}```" in page


def test_the_script_is_short():
    lines = [
        line for line in SCRIPT.read_text().splitlines() if line and not line.startswith(("import", "from", '"""'))
    ]
    assert len(lines) <= 20
