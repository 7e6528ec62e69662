"""The search for a learning rate: what is held out, which trial is chosen, and that the runs then train with it."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from small_models import examples, neox, save

import finetune
import search_learning_rate
from circuitdrift.config.learning_rates import LearningRateSearch
from circuitdrift.config.methods import FullMethod, Ia3Method, LoraMethod, RandomLoraMethod, Training
from circuitdrift.models.loading import load_model
from circuitdrift.provenance import Provenance
from circuitdrift.storage import StorageError, provenance_of, read_table, write_table
from circuitdrift.training.adapters import causal_lm
from circuitdrift.training.evaluation import Score, evaluate
from circuitdrift.training.examples import Examples
from circuitdrift.training.learning_rates import SearchError, Trial, best_trial, chosen_rate, hold_out, trials_table
from circuitdrift.training.loop import fine_tune, plan_run
from circuitdrift.training.preparation import prepare_model

CPU = torch.device("cpu")
ORIGIN = Provenance.detached(model="tiny", task="t", method="lora")
LORA = LoraMethod(kind="lora", rank=2)
TRAINING = Training(
    precision="float32", epochs=1, batch_size=8, checkpoints=1, learning_rate_lora=1e-2, learning_rate_full=1e-3
)
SEARCH = LearningRateSearch(rates=(1.0, 4.0, 1e30), seed=9, validation_share=0.25)


@pytest.fixture
def manifest(tmp_path):
    torch.manual_seed(0)
    return save(neox(), tmp_path / "models" / "tiny")


@pytest.fixture
def train(tmp_path):
    write_table(tmp_path / "train.parquet", examples(32), "examples", ORIGIN)
    return tmp_path / "train.parquet"


def search(manifest, train, trials, method=LORA, section=SEARCH, adapter_config=None):
    search_learning_rate.main(
        manifest=manifest, train=train, adapter_config=adapter_config, trials=trials, method=method,
        training=TRAINING, search=section, device="cpu", provenance=ORIGIN,
    )  # fmt: skip
    return read_table(trials, "trials")


def test_no_prompt_is_both_trained_on_and_held_out():
    table = examples(40)
    table["clean"] = [f"prompt {number // 2}" for number in range(40)]  # each twice
    rest, held_out = hold_out(table, 0.3, seed=5)
    assert held_out["clean"].nunique() == 6
    assert not set(rest["clean"]) & set(held_out["clean"])
    assert sorted([*rest["example_id"], *held_out["example_id"]]) == table["example_id"].tolist()
    pd.testing.assert_frame_equal(hold_out(table, 0.3, seed=5)[1], held_out)
    assert set(hold_out(table, 0.3, seed=6)[1]["clean"]) != set(held_out["clean"])
    assert hold_out(table, 0.001, seed=5)[1]["clean"].nunique() == 1


def test_a_share_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(SearchError, match=r"validation_share: 0.9 of 3 train prompts"):
        hold_out(examples(3), 0.9, seed=0)


def chosen_slowly(table: pd.DataFrame) -> int:
    """The slow twin: row after row, keep what is better by the first of the three rules that tells the two apart."""
    best = None
    for row in table.index[table["accuracy"].notna()]:
        if best is None:
            best = row
            continue
        for better in (
            table.loc[row, "accuracy"] - table.loc[best, "accuracy"],
            table.loc[best, "loss"] - table.loc[row, "loss"],
            table.loc[best, "learning_rate"] - table.loc[row, "learning_rate"],
        ):
            if better:
                best = row if better > 0 else best
                break
    return best


def made_up_score(correct, loss):
    return Score(tuple(place < correct for place in range(3)), loss)


def test_the_chosen_row_is_the_right_one():
    draw = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        rates = draw.permutation([1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
        scores = [
            None if draw.random() < 0.3 else made_up_score(int(draw.integers(4)), float(draw.integers(2)))
            for _ in rates
        ]
        if not any(scores):
            continue
        trials = [Trial(rate / 1e-3, float(rate), score) for rate, score in zip(rates, scores, strict=True)]
        table = trials_table(trials, 3)
        assert table["chosen"].sum() == 1
        assert table.index[table["chosen"]][0] == chosen_slowly(table)
        seen.add(chosen_slowly(table))
    assert seen == {0, 1, 2, 3, 4}


def test_a_search_in_which_all_diverge_says_so(manifest, train, tmp_path):
    with pytest.raises(SearchError, match=r"diverged at every rate .*smaller factors"):
        best_trial([Trial(1.0, 0.1, None), Trial(2.0, 0.2, None)])
    with pytest.raises(SearchError, match=r"diverged at every rate \(1e\+28, 1e\+29\)"):
        search(manifest, train, tmp_path / "t.parquet", section=LearningRateSearch(rates=(1e30, 1e31)))
    assert not (tmp_path / "t.parquet").exists()


def test_each_trial_is_the_run_on_the_rest_scored_on_what_was_held_out(manifest, train, tmp_path):
    table = search(manifest, train, tmp_path / "trials.parquet")
    rest, held_out = (Examples(part, CPU) for part in hold_out(examples(32), 0.25, 9))
    assert table["factor"].tolist() == [1.0, 4.0, 1e30]
    assert table["n"].tolist() == [8, 8, 8]
    for factor, accuracy, loss in table.loc[:1, ["factor", "accuracy", "loss"]].itertuples(index=False):
        training = TRAINING.model_copy(update={"learning_rate_lora": factor * 1e-2})
        plan = plan_run(LORA, training, 24, torch.float32, 9)
        model = prepare_model(load_model(manifest, CPU), ("tiny", None), LORA, 2.0, None, rest, plan.steps, 9)
        fine_tune(model, rest, plan, lambda number: Score((True,), 0.0))
        expected = evaluate(causal_lm(model), held_out)
        assert (expected.correct / expected.n, expected.answer_loss) == (accuracy, loss)
    assert table.loc[2, ["accuracy", "lower", "upper", "loss"]].isna().all()
    assert table.index[table["chosen"]].tolist() == [chosen_slowly(table)]
    assert provenance_of(tmp_path / "trials.parquet").seed == 9


def test_nothing_but_the_train_split_is_read(manifest, train, tmp_path, monkeypatch):
    assert not {"test", "circuit"} & set(inspect.signature(search_learning_rate.main).parameters)
    read = []
    monkeypatch.setattr(
        search_learning_rate, "read_table", lambda path, schema: read.append(path) or read_table(path, schema)
    )
    search(manifest, train, tmp_path / "trials.parquet", section=LearningRateSearch(rates=(1.0, 2.0)))
    assert read == [train]


@pytest.mark.parametrize(
    "method", [LORA, FullMethod(kind="full"), Ia3Method(kind="ia3", learning_rate=0.5)], ids=lambda method: method.kind
)
def test_every_method_has_the_same_trials_around_its_own_rate(manifest, train, tmp_path, method):
    table = search(manifest, train, tmp_path / "trials.parquet", method, LearningRateSearch(rates=(0.5, 2.0)))
    own = {"lora": 1e-2, "full": 1e-3, "ia3": 0.5}[method.kind]
    assert table["learning_rate"].tolist() == [0.5 * own, 2.0 * own]
    assert table["chosen"].sum() == 1


def test_a_method_with_allocated_ranks_needs_them_in_the_search_too(manifest, train, tmp_path):
    method = RandomLoraMethod(kind="random_lora", rank=1, critical_rank=4, critical_layers=1)
    with pytest.raises(ValueError, match=r"random_lora needs the adapter_config\.json"):
        search(manifest, train, tmp_path / "trials.parquet", method)


def test_runs_train_with_the_chosen_rate(manifest, train, tmp_path):
    trials = pd.DataFrame({"factor": [0.5, 2.0], "learning_rate": [0.005, 0.02], "n": 8, "chosen": [False, True]})
    trials = trials.assign(accuracy=0.5, lower=0.4, upper=0.6, loss=1.0)
    write_table(tmp_path / "trials.parquet", trials, "trials", ORIGIN)
    for name, table, peak in (("tuned", tmp_path / "trials.parquet", 0.02), ("plain", None, 0.01)):
        run = tmp_path / name
        finetune.main(
            manifest=manifest, train=train, test=train, adapter_config=None, trials=table,
            checkpoints=[run / "00", run / "01"], training_log=run / "log.parquet", accuracy=run / "accuracy.parquet",
            predictions=run / "predictions.parquet",
            method=LoraMethod(kind="lora", rank=1, warmup_fraction=0.0), training=TRAINING, seed=0, device="cpu",
            processes="auto", sharding="none", resume=run / ".resume", provenance=ORIGIN,
        )  # fmt: skip
        log = read_table(run / "log.parquet", "training_log")
        assert log["learning_rate"].max() == pytest.approx(peak)


@pytest.mark.parametrize("chosen", [[False, False], [True, True]])
def test_a_table_without_one_choice_is_refused(tmp_path, chosen):
    trials = pd.DataFrame({"factor": [0.5, 2.0], "learning_rate": [0.1, 0.4], "n": 8, "chosen": chosen})
    trials = trials.assign(accuracy=0.5, lower=0.4, upper=0.6, loss=1.0)
    write_table(tmp_path / "trials.parquet", trials, "trials", ORIGIN)
    with pytest.raises(StorageError, match=r"trials\.parquet: \d trials are marked as chosen"):
        chosen_rate(tmp_path / "trials.parquet")
