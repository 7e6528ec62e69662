"""Sham fine-tuning: the answers are permuted and nothing else, and accuracy is measured on the right answers."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import examples, neox, save

import finetune
import search_learning_rate
from circuitdrift.config.learning_rates import LearningRateSearch
from circuitdrift.config.methods import FullMethod, LoraMethod, Method, Training
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_table, write_table
from circuitdrift.training.checkpoints import load_checkpoint
from circuitdrift.training.evaluation import evaluate
from circuitdrift.training.examples import Examples
from circuitdrift.training.sham import permute_answers

CPU = torch.device("cpu")
ORIGIN = Provenance.detached(model="tiny")
TRAINING = Training(epochs=4, batch_size=8, checkpoints=2, learning_rate_full=5e-3, precision="float32")


def split_of(answers: list[int]) -> pd.DataFrame:
    """Examples with these answers; an answer of value v has v mod 3 + 1 tokens."""
    return pd.DataFrame(
        {
            "example_id": range(len(answers)),
            "clean": [f"prompt {place}" for place in range(len(answers))],
            "clean_ids": [[place, 1] for place in range(len(answers))],
            "answer": [f" {value}" for value in answers],
            "answer_ids": [[value] * (value % 3 + 1) for value in answers],
        }
    )


def kept(before: pd.DataFrame, after: pd.DataFrame) -> int:
    return int((before["answer"] == after["answer"]).sum())


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 5))
@settings(deadline=None)
def test_as_few_examples_as_possible_keep_their_answer(answers: list[int], seed: int) -> None:
    before = split_of(answers)
    after = permute_answers(before, seed)
    most = max(Counter(answers).values())
    assert kept(before, after) == max(0, 2 * most - len(answers))
    assert Counter(after["answer"]) == Counter(before["answer"])
    assert all(
        len(ids) == int(text) % 3 + 1 and set(ids) == {int(text)}
        for text, ids in after[["answer", "answer_ids"]].to_numpy()
    )
    unchanged = ["example_id", "clean", "clean_ids"]
    pd.testing.assert_frame_equal(after[unchanged], before[unchanged])


@pytest.mark.parametrize("answers", [[1, 1, 2, 2, 3], [1, 1, 1, 2, 3], [1, 1, 1, 1, 2], [4, 4]])
def test_no_permutation_keeps_fewer_answers(answers: list[int]) -> None:
    """The slow twin tries all permutations."""
    least = min(sum(a == b for a, b in zip(answers, p, strict=True)) for p in permutations(answers))
    assert kept(split_of(answers), permute_answers(split_of(answers), 0)) == least


def test_the_seed_decides_and_answers_scatter_over_prompts() -> None:
    before = split_of([value for value in range(20) for _ in range(20)])
    first, again, other = (permute_answers(before, seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first["answer"].equals(other["answer"])
    # an answer does not stand for another one, which could be learnt
    given_to = first.groupby(before["answer"])["answer"].nunique()
    assert given_to.min() >= 8


@pytest.fixture
def manifest(tmp_path):
    torch.manual_seed(0)
    return save(neox(), tmp_path / "models" / "tiny")


def run(manifest, folder, method: Method, seed: int = 0):
    write_table(folder / "train.parquet", examples(64), "examples", ORIGIN)
    write_table(folder / "test.parquet", examples(20, seed=1), "examples", ORIGIN)
    finetune.main(
        manifest=manifest, train=folder / "train.parquet", test=folder / "test.parquet", adapter_config=None,
        trials=None, checkpoints=[folder / "checkpoints" / f"{number:02d}" for number in range(3)],
        training_log=folder / "training_log.parquet", accuracy=folder / "accuracy.parquet",
        predictions=folder / "predictions.parquet", method=method, training=TRAINING, seed=seed, device="cpu",
        processes="auto", sharding="none", resume=folder / ".resume", provenance=ORIGIN,
    )  # fmt: skip
    return folder / "checkpoints" / "02"


def test_a_sham_run_trains_on_permuted_answers_and_is_tested_on_the_right_ones(manifest, tmp_path):
    true = run(manifest, tmp_path / "true", FullMethod(kind="full"))
    sham = run(manifest, tmp_path / "sham", FullMethod(kind="full", answers="permuted"))
    models = {name: load_checkpoint(manifest, path, CPU) for name, path in (("true", true), ("sham", sham))}
    permuted = Examples(permute_answers(examples(64), 0), CPU)
    losses = {name: evaluate(model, permuted).answer_loss for name, model in models.items()}
    assert losses["sham"] < losses["true"] - 0.1
    row = read_table(tmp_path / "sham" / "accuracy.parquet", "accuracy").iloc[-1]
    right = evaluate(models["sham"], Examples(examples(20, seed=1), CPU))
    assert row["answer_loss"] == pytest.approx(right.answer_loss, rel=1e-4)
    assert row["accuracy"] == right.correct / right.n
    logs = [read_table(tmp_path / name / "training_log.parquet", "training_log") for name in ("true", "sham")]
    same = ["step", "epoch", "learning_rate", "tokens", "flops"]
    pd.testing.assert_frame_equal(logs[0][same], logs[1][same])
    assert not np.allclose(logs[0]["loss"], logs[1]["loss"])


def test_a_sham_run_takes_the_learning_rate_of_its_twin(manifest, tmp_path):
    write_table(tmp_path / "train.parquet", examples(32), "examples", ORIGIN)
    found = []
    for answers in ("own", "permuted"):
        method = LoraMethod(kind="lora", rank=2, answers=answers)
        search_learning_rate.main(
            manifest=manifest, train=tmp_path / "train.parquet", adapter_config=None,
            trials=tmp_path / f"{answers}.parquet", method=method, training=TRAINING,
            search=LearningRateSearch(rates=(0.5, 2.0), seed=9), device="cpu", provenance=ORIGIN,
        )  # fmt: skip
        found.append(read_table(tmp_path / f"{answers}.parquet", "trials"))
    pd.testing.assert_frame_equal(*found)
