"""Faithfulness: formulas by hand, the bootstrap against scipy's, and curves against plain runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from random_models import MODELS, random_pairs, small_llama
from scipy import stats

from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.metrics import (
    METRICS,
    METRICS_OF_OUTPUTS,
    SizedCircuit,
    bootstrap_interval,
    difference_of_faithfulness,
    faithfulness_areas,
    faithfulness_curve,
    measure_circuits,
    sized_circuits,
    summarise,
    tabulate_recipe_areas,
)
from circuitdrift.circuits.prompts import PromptPairs, pair_batches
from circuitdrift.circuits.selection import edge_table, select_circuit
from circuitdrift.config.circuits import Attribution, Faithfulness, Selection
from circuitdrift.decoder.anatomy import anatomy_of


def pairs(n: int) -> PromptPairs:
    clean, corrupted = random_pairs(n)
    return PromptPairs(clean, corrupted, [[i % 5] for i in range(n)], [[i % 5 + 1] for i in range(n)])


@pytest.mark.parametrize(
    ("metric", "means", "expected"),
    [
        ("kl_model_circuit", (0.0, 0.5, 2.0), 0.75),
        ("kl_from_corrupted", (2.0, 1.5, 0.0), 0.75),
        ("kl_from_corrupted", (2.0, 2.5, 0.0), 0.75),
        ("accuracy", (0.9, 0.5, 0.1), 0.5),
        ("logit_difference", (3.0, 4.0, -1.0), 1.25),
        ("accuracy", (0.3, 0.5, 0.3), np.nan),
    ],
)
def test_formulas(metric: str, means: tuple[float, float, float], expected: float) -> None:
    row = summarise(metric, np.array([means, means]), resamples=200)
    assert (row["full"], row["circuit"], row["corrupted"]) == pytest.approx(means)
    assert row["faithfulness"] == pytest.approx(expected, nan_ok=True)
    assert (row["lower"], row["upper"]) == pytest.approx((expected, expected), nan_ok=True)


def test_interval_is_the_paired_bootstrap_of_a_ratio() -> None:
    generator = np.random.default_rng(5)
    strength = generator.uniform(1, 5, size=80)
    runs = np.stack([strength, strength * generator.normal(0.7, 0.2, 80), 0.1 * strength], axis=1)
    ours = bootstrap_interval("logit_difference", runs, 4000)
    theirs = stats.bootstrap(
        tuple(runs.T),
        lambda f, c, k, axis: (c.mean(axis) - k.mean(axis)) / (f.mean(axis) - k.mean(axis)),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.08 * width)
    assert ours == bootstrap_interval("logit_difference", runs, 4000)


@pytest.mark.parametrize("name", list(MODELS))
def test_curve(name: str) -> None:
    """Sizes are sorted and hold the study's own; the full graph is faithful by every measure."""
    model, data = MODELS[name](), pairs(12)
    anatomy = anatomy_of(model)
    scores = score_edges(anatomy, data, Attribution(), 8).scores
    measure = Faithfulness(size_fractions=(1.0, 0.3), batch_size=5, bootstrap=200)
    table = edge_table(anatomy.graph, scores, select_circuit(anatomy.graph, scores, Selection(fraction=0.1)))
    circuits = sized_circuits(anatomy.graph, table, measure.size_fractions, Selection(fraction=0.1))
    outcomes = measure_circuits(anatomy, data, torch.stack([circuit.edges for circuit in circuits]), measure)
    curve = faithfulness_curve(circuits, outcomes, measure.bootstrap)
    assert curve.loc[curve["own_circuit"], "size_fraction"].unique().tolist() == [0.1]
    assert curve["size_fraction"].unique().tolist() == [0.1, 0.3, 1.0]
    assert curve["metric"].tolist() == list(METRICS) * 3
    for size, rows in curve.groupby("size_fraction"):
        assert rows["n_edges"].unique().tolist() == [
            int(select_circuit(anatomy.graph, scores, Selection(fraction=size)).sum())
        ]
    whole = curve[curve["size_fraction"] == 1.0].set_index("metric")
    assert whole["n_edges"].eq(anatomy.graph.n_edges).all()
    defined = whole["faithfulness"].dropna()
    np.testing.assert_allclose(defined, 1.0, atol=1e-4)
    with torch.no_grad():
        clean, corrupted = (
            [model(torch.tensor([ids])).logits[0, -1] for ids in prompts] for prompts in (data.clean, data.corrupted)
        )
    logits = list(zip(clean, corrupted, strict=True))
    hits = [int(x.argmax()) == answer[0] for (x, _), answer in zip(logits, data.answers, strict=True)]
    assert whole.loc["accuracy", "full"] == pytest.approx(np.mean(hits))
    moved = [float((x.softmax(-1) * (x.log_softmax(-1) - y.log_softmax(-1))).sum()) for x, y in logits]
    assert whole.loc["kl_model_circuit", "corrupted"] == pytest.approx(np.mean(moved), rel=1e-4)
    back = [float((y.softmax(-1) * (y.log_softmax(-1) - x.log_softmax(-1))).sum()) for x, y in logits]
    assert whole.loc["kl_from_corrupted", "full"] == pytest.approx(np.mean(back), rel=1e-4)
    differences = [
        float(x[a[0]] - x[b[0]]) for x, a, b in zip(clean, data.answers, data.corrupted_answers, strict=True)
    ]
    assert whole.loc["logit_difference", "full"] == pytest.approx(np.mean(differences), rel=1e-4)


def test_without_answers_the_same_outputs_are_compared_and_nothing_else() -> None:
    anatomy, data = anatomy_of(small_llama()), pairs(9)
    without = PromptPairs(data.clean, data.corrupted, [[]] * 9, [[]] * 9)
    assert [data.have_answers, without.have_answers] == [True, False]
    scores, same = (score_edges(anatomy, each, Attribution(steps=2), 4).scores for each in (data, without))
    assert torch.equal(scores, same)
    circuit = select_circuit(anatomy.graph, scores, Selection(fraction=0.2))[None]
    measure = Faithfulness(batch_size=4)
    (expected,), (found,) = (measure_circuits(anatomy, each, circuit, measure) for each in (data, without))
    assert list(found) == list(METRICS_OF_OUTPUTS)
    assert all(np.array_equal(found[metric], expected[metric]) for metric in METRICS_OF_OUTPUTS)
    sized = [SizedCircuit(0.2, circuit[0], is_own=True), SizedCircuit(0.3, circuit[0], is_own=False)]
    assert faithfulness_curve(sized, [found] * 2, 100)["metric"].tolist() == [*METRICS_OF_OUTPUTS] * 2
    areas = faithfulness_areas(sized, [found] * 2, Faithfulness(size_fractions=(0.2, 0.3)))
    assert set(areas["metric"]) == {*METRICS_OF_OUTPUTS}


@pytest.mark.parametrize("objective", ["logit_difference", "answer_loss"])
def test_objectives_about_answers_say_that_they_need_them(objective: str) -> None:
    anatomy, data = anatomy_of(small_llama()), pairs(3)
    without = PromptPairs(data.clean, data.corrupted, [[]] * 3, [[]] * 3)
    with pytest.raises(ValueError, match=f"no answers, which circuit.objective {objective} needs; use objective kl"):
        score_edges(anatomy, without, Attribution(objective=objective), 2)
    with pytest.raises(ValueError, match="which accuracies, logit differences and losses are about"):
        _ = pair_batches(without, 2, anatomy.device)[0].answers
    with pytest.raises(ValueError, match="example 1: the answer has no tokens, other answers have"):
        PromptPairs(data.clean, data.corrupted, [[1], [], [2]], [[]] * 3)


def test_the_difference_of_two_circuits_resamples_the_same_examples_for_both() -> None:
    generator = np.random.default_rng(0)
    runs, other = (generator.normal((2.0, 1.0, 0.0), 1, size=(30, 3)) for _ in range(2))
    found, lower, upper = difference_of_faithfulness("logit_difference", runs, other, 500)
    of_means = [summarise("logit_difference", values, 10)["faithfulness"] for values in (runs, other)]
    assert found == pytest.approx(of_means[0] - of_means[1])
    counts = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=500)
    drawn = []
    for count in counts:
        taken = np.repeat(np.arange(30), count)
        means = [values[taken].mean(axis=0) for values in (runs, other)]
        drawn.append(np.diff([(m[1] - m[2]) / (m[0] - m[2]) for m in reversed(means)])[0])
    assert (lower, upper) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert difference_of_faithfulness("logit_difference", runs, runs, 500) == (0, 0, 0)
    undefined = np.zeros((30, 3))
    assert np.isnan(difference_of_faithfulness("logit_difference", runs, undefined, 500)).all()


def curve_of(*points: tuple[float, float], examples: int = 6, noise: float = 0.0) -> tuple[list, list]:
    """Circuits of some sizes, and outcomes in which every metric's faithfulness has these means."""
    generator = np.random.default_rng(0)
    circuits = [SizedCircuit(size, torch.ones(1, 1, dtype=torch.bool), is_own=False) for size, _ in points]
    outcomes = []
    for _, value in points:
        spread = noise * (generator.permuted(np.linspace(-1, 1, examples)))
        kl = np.stack([np.zeros(examples), 1 - value + spread, np.ones(examples)], axis=1)
        away = np.stack([np.ones(examples), value + spread, np.zeros(examples)], axis=1)
        outcomes.append({metric: kl if metric == "kl_model_circuit" else away.copy() for metric in METRICS})
    return circuits, outcomes


def test_areas_by_hand() -> None:
    """CPR and CMD by the trapezoidal rule; above 1 the curve adds to both."""
    circuits, outcomes = curve_of((0.1, 0.2), (0.3, 0.6), (1.0, 1.0))
    table = faithfulness_areas(circuits, outcomes, Faithfulness(size_fractions=(0.1, 0.3, 1.0), bootstrap=100))
    cpr = 0.2 * (0.2 + 0.6) / 2 + 0.7 * (0.6 + 1.0) / 2
    cmd = 0.2 * (0.8 + 0.4) / 2 + 0.7 * (0.4 + 0.0) / 2
    assert table["metric"].tolist() == [metric for metric in METRICS for _ in range(2)]
    for area, expected in (("cpr", cpr), ("cmd", cmd)):
        rows = table[table["area"] == area]
        for column in ("value", "lower", "upper"):
            np.testing.assert_allclose(rows[column], expected)
    assert table[["n_sizes", "smallest", "largest"]].drop_duplicates().values.tolist() == [[3, 0.1, 1.0]]
    circuits, outcomes = curve_of((0.5, 1.2), (1.0, 1.0))
    above = faithfulness_areas(circuits, outcomes, Faithfulness(size_fractions=(0.5, 1.0), bootstrap=100))
    of_difference = above[above["metric"] == "logit_difference"].set_index("area")["value"]
    assert of_difference.to_dict() == pytest.approx({"cpr": 0.5 * 1.1, "cmd": 0.5 * 0.1})


def test_areas_take_the_sizes_of_the_curve_and_resample_an_example_at_all_sizes_together() -> None:
    """The study's own circuit is no point of the curve; an example's errors at two sizes may cancel."""
    circuits, outcomes = curve_of((0.1, 0.5), (0.2, 0.9), (0.5, 0.5), examples=40, noise=0.4)
    # The first and the last point err in opposite ways, example by example, so that their mean never moves.
    for metric in METRICS:
        outcomes[2][metric][:, 1] = 2 * outcomes[2][metric][:, 1].mean() - outcomes[0][metric][:, 1]
    table = faithfulness_areas(circuits, outcomes, Faithfulness(size_fractions=(0.1, 0.5), bootstrap=200))
    cpr = table[table["area"] == "cpr"]
    np.testing.assert_allclose(cpr[["value", "lower", "upper"]], 0.4 * 0.5)
    assert table["n_sizes"].eq(2).all()


def test_areas_need_two_sizes_and_defined_faithfulness() -> None:
    circuits, outcomes = curve_of((0.1, 0.5), (1.0, 1.0))
    one = faithfulness_areas(circuits, outcomes, Faithfulness(size_fractions=(0.1,), bootstrap=100))
    assert one["value"].isna().all()
    outcomes[0]["logit_difference"][:] = np.nan
    two = faithfulness_areas(circuits, outcomes, Faithfulness(size_fractions=(0.1, 1.0), bootstrap=100))
    assert two["value"].isna().tolist() == [metric == "logit_difference" for metric in two["metric"]]


def test_areas_of_recipes_are_those_of_their_curves_and_differences_are_paired() -> None:
    sizes = (0.1, 0.5, 1.0)
    curves = {
        name: curve_of(*zip(sizes, values, strict=True), examples=20, noise=0.3) for name, values in CURVES.items()
    }
    table = tabulate_recipe_areas({name: outcomes for name, (_, outcomes) in curves.items()}, sizes, 200)
    assert table["recipe"].tolist() == ["own"] * 8 + ["other"] * 8
    measure = Faithfulness(size_fractions=sizes, bootstrap=200)
    columns = ["metric", "area", "value", "lower", "upper", "n_sizes", "smallest", "largest"]
    for name, (circuits, outcomes) in curves.items():
        alone = faithfulness_areas(circuits, outcomes, measure)
        found = table[table["recipe"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(found[columns], alone[columns])
    own, other = (table[table["recipe"] == name].reset_index(drop=True) for name in CURVES)
    assert (own[["difference", "difference_lower", "difference_upper"]] == 0).all(axis=None)
    np.testing.assert_allclose(other["difference"], other["value"] - own["value"])
    # Both curves err alike on each example, so that the difference of their CPR is the same in every resample.
    cpr = other[(other["area"] == "cpr") & (other["metric"] == "logit_difference")]
    np.testing.assert_allclose(cpr[["difference_lower", "difference_upper"]], cpr["difference"].item())
    assert cpr["upper"].item() - cpr["lower"].item() > 0.01


CURVES = {"own": (0.2, 0.6, 1.0), "other": (0.4, 0.7, 1.0)}
