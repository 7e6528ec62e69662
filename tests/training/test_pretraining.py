from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import pretrain as stage_script
from circuitdrift.config.models import ScratchModel
from circuitdrift.models.embedded_corpus import Corpus, build_corpus
from circuitdrift.models.embedded_model import ROW_LENGTH, build_model
from circuitdrift.models.manifest import read_manifest, verify_files
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table
from circuitdrift.training.pretraining import (
    TrainingDivergedError,
    batches_of,
    learning_rate_factor,
    next_token_loss,
    pretrain,
)

SMOKE = ScratchModel(
    source="scratch", layers=2, heads=2, width=32, mlp_width=64, largest_number=200, steps=30, batch_size=16
)
CPU = torch.device("cpu")


def corpus_of(section: ScratchModel) -> Corpus:
    return build_corpus(section.largest_number, section.steps * section.batch_size, ROW_LENGTH, section.seed)


def run_stage(folder: Path, section: ScratchModel) -> None:
    stage_script.main(
        manifest=folder / "manifest.json",
        weights=folder / "model.safetensors",
        tokenizer=folder / "tokenizer.json",
        log=folder / "pretraining_log.parquet",
        model=section,
        device="cpu",
        provenance=Provenance.detached(model="toy"),
    )


def test_loss_equals_that_of_full_logits_at_the_targets() -> None:
    corpus = corpus_of(SMOKE)
    model = build_model(SMOKE)
    batch = next(batches_of(corpus, 16, CPU))
    tokens = torch.from_numpy(corpus.tokens[:16]).long()
    losses = []
    logits = model(input_ids=tokens).logits
    for row in range(16):
        for position in range(1, ROW_LENGTH):
            if corpus.in_loss[row, position]:
                losses.append(-logits[row, position - 1].log_softmax(-1)[tokens[row, position]])
    torch.testing.assert_close(next_token_loss(model, batch, torch.float32), torch.stack(losses).mean())


def test_batches_use_each_row_once_in_order() -> None:
    corpus = corpus_of(SMOKE)
    inputs = torch.cat([batch.inputs for batch in batches_of(corpus, 16, CPU)])
    assert torch.equal(inputs, torch.from_numpy(corpus.tokens[:, :-1]).long())


def test_learning_rate_rises_then_falls_to_its_final_share() -> None:
    factors = [learning_rate_factor(step, 200) for step in range(200)]
    peak = int(np.argmax(factors))
    assert factors[peak] == 1.0
    assert all(np.diff(factors[: peak + 1]) > 0)
    assert all(np.diff(factors[10:]) <= 0)
    assert factors[-1] == pytest.approx(0.05, abs=0.01)


def test_training_lowers_the_loss_and_logs_every_step() -> None:
    log = pretrain(build_model(SMOKE), corpus_of(SMOKE), SMOKE.batch_size, SMOKE.learning_rate, torch.float32)
    assert log["step"].tolist() == list(range(1, 31))
    assert log["loss"].iloc[-5:].mean() < log["loss"].iloc[:5].mean() - 0.2
    assert log["tokens"].is_monotonic_increasing
    assert np.isfinite(log[["loss", "learning_rate", "gradient_norm"]].to_numpy()).all()
    assert log["seconds"].isna().all()


def test_passes_in_bfloat16_train_float32_weights_almost_as_passes_in_float32_do() -> None:
    model = build_model(SMOKE)
    log = pretrain(model, corpus_of(SMOKE), SMOKE.batch_size, SMOKE.learning_rate, torch.bfloat16)
    exact = pretrain(build_model(SMOKE), corpus_of(SMOKE), SMOKE.batch_size, SMOKE.learning_rate, torch.float32)
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    assert not (log["loss"] == exact["loss"]).all()
    np.testing.assert_allclose(log["loss"], exact["loss"], rtol=0.03)


def test_a_loss_that_is_not_a_number_names_the_step() -> None:
    model = build_model(SMOKE)
    with torch.no_grad():
        model.get_output_embeddings().weight[0, 0] = torch.nan
    with pytest.raises(TrainingDivergedError, match=r"loss is nan at step 1 of 30; lower the model's learning_rate"):
        pretrain(model, corpus_of(SMOKE), SMOKE.batch_size, SMOKE.learning_rate, torch.float32)


def test_the_stage_writes_a_model_that_loads_and_the_same_bytes_again(tmp_path: Path) -> None:
    section = SMOKE.model_copy(update={"steps": 5})
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        run_stage(tmp_path / name, section)
    first, again = tmp_path / "first", tmp_path / "again"
    names = sorted(file.name for file in first.iterdir())
    assert {"manifest.json", "model.safetensors", "tokenizer.json", "pretraining_log.parquet", "config.json"} <= set(
        names
    )
    for name in names:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    manifest = read_manifest(first / "manifest.json")
    assert manifest.source["source"] == "scratch"
    assert manifest.source["largest_number"] == 200
    verify_files(manifest.files, first, "")
    assert len(read_table(first / "pretraining_log.parquet", "training_log")) == 5
    ids = AutoTokenizer.from_pretrained(first)("Derive the following sequence: 2, 4, 6, 8,", return_tensors="pt")
    logits = AutoModelForCausalLM.from_pretrained(first)(ids["input_ids"]).logits
    assert logits.shape[-1] == len(AutoTokenizer.from_pretrained(first))
