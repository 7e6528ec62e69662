"""What each claim measures, against numbers computed by hand, and the verdict on it: each of the three outcomes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from verdict_tables import crossed, per_run, tables

from circuitdrift.comparisons import holm
from circuitdrift.method_pairs import runs_with_costs
from circuitdrift.verdicts.claims import CLAIMS
from circuitdrift.verdicts.tabulation import COLUMNS, tabulate_verdicts

NAN = float("nan")
HIGH, MIDDLE, LOW = "supported", "undecided", "not supported"
NOISE = np.array([-0.002, 0.0, 0.002])
"""Scatter of three seeds; the half-width of their mean is 0.00497."""


def verdicts(**frames):
    """The row of each claim by its name."""
    table = tabulate_verdicts(tables(**frames), "m")
    return {row["name"]: row for row in table.to_dict("records")}


def verdict_of(name, **frames):
    return verdicts(**frames)[name]


def around(*means):
    """Values of three seeds on tasks a, b ... with these means."""
    return {task: list(mean + NOISE) for task, mean in zip("abc", means, strict=False)}


def test_every_claim_has_a_row_where_nothing_was_measured():
    table = tabulate_verdicts(tables(), "m")
    assert table["name"].tolist() == [claim.name for claim in CLAIMS]
    assert list(table.columns) == COLUMNS
    assert (table["verdict"] == "undecided").all()
    assert (table["remark"] != "").all()
    assert table["name"].is_unique
    assert table[["measured", "lower", "upper", "p_value"]].isna().all(axis=None)


def test_rows_of_other_models_count_for_nothing():
    found = per_run(around(0.9), "value", level="edge_over_node", measure="rate_net")
    other = tabulate_verdicts(tables(summary=found), "other")
    assert other["measured"].isna().all()


def faithfulness(before, after, metric="kl_from_corrupted", width=0.0):
    base = pd.DataFrame({"task": list("abc"), "faithfulness": before, "checkpoint": "00"})
    last = per_run(around(*after), "faithfulness", checkpoint="10")
    early = per_run(around(*[0.0] * len(after)), "faithfulness", checkpoint="05")
    sham = per_run(around(*[0.0] * len(after)), "faithfulness", method="sham", checkpoint="10")
    table = pd.concat([base.assign(model="m", method=None, seed=NAN), last, early, sham], ignore_index=True)
    table = table.assign(metric=metric, own_circuit=True)
    table = table.assign(lower=table["faithfulness"] - width, upper=table["faithfulness"] + width)
    others = table.assign(own_circuit=False, faithfulness=0.0)
    return pd.concat([table, others], ignore_index=True)


@pytest.mark.parametrize(("mean", "verdict"), [(0.9, HIGH), (0.8, MIDDLE), (0.7, LOW)])
def test_faithfulness_is_that_of_own_circuits_before_and_after(mean, verdict):
    found = verdicts(faithfulness=faithfulness([mean - 0.01, mean, mean + 0.01], [mean, mean]))
    before, after = found["faithful_before"], found["faithful_after"]
    assert (before["measured"], after["measured"]) == pytest.approx((mean, mean))
    assert (before["verdict"], after["verdict"]) == (verdict, verdict)
    assert (before["over"], before["replicates"], after["over"], after["replicates"]) == ("tasks", 3, "seeds", 3)
    assert found["faithful_after_kl"]["remark"] == "the study has no fine-tuning with circuits"


def test_faithfulness_has_the_interval_of_the_prompts_too_and_another_row_for_kl():
    found = verdicts(faithfulness=faithfulness([0.9, 0.9, 0.8], [0.81, 0.83], "kl_model_circuit", width=0.03))
    row = found["faithful_after_kl"]
    seeds, prompts = 4.302652729911275 * 0.002 / np.sqrt(3), 0.03 / np.sqrt(2)
    assert row["upper"] - row["measured"] == pytest.approx(np.hypot(seeds, prompts))
    assert (row["measured"], row["verdict"]) == (pytest.approx(0.82), "undecided")
    assert row["remark"] == "the interval holds the null"
    assert np.isnan(found["faithful_after"]["measured"])


def robustness(similarity, control="perturbed", checkpoint="10", width=0.0):
    """The value on each task lies between that of share .2 and that of share .8; shares outside .1 to .9 are 0."""
    runs = per_run(similarity, "similarity", checkpoint=checkpoint, control=control, level="edge", measure="jaccard")
    if control == "perturbed":
        shared = crossed(runs, share=[0.05, 0.2, 0.8, 0.95])
        apart = shared["share"].map({0.05: -9.0, 0.2: 0.02, 0.8: -0.02, 0.95: -9.0})
        runs = shared.assign(similarity=shared["similarity"] + apart)
    else:
        runs = runs.assign(share=NAN)
    nodes = runs.assign(level="node", similarity=0.0)
    both = pd.concat([runs, nodes, runs.assign(measure="ruzicka", similarity=0.0)], ignore_index=True)
    return both.assign(lower=both["similarity"] - width, upper=both["similarity"] + width)


@pytest.mark.parametrize(("mean", "verdict"), [(0.95, HIGH), (0.9, MIDDLE), (0.85, LOW)])
def test_robustness_is_averaged_over_the_papers_shares(mean, verdict):
    base = robustness({task: [mean + apart] * 3 for task, apart in zip("abc", NOISE, strict=True)}, checkpoint="00")
    found = verdicts(robustness=pd.concat([robustness(around(mean, mean)), base], ignore_index=True))
    for name, over in (("robust_after", "seeds"), ("robust_before", "tasks")):
        row = found[name]
        assert row["measured"] == pytest.approx(mean)
        assert (row["verdict"], row["over"]) == (verdict, over)


@pytest.mark.parametrize(("untrained", "verdict"), [(0.5, HIGH), (0.7, MIDDLE), (0.9, LOW)])
def test_splits_are_compared_with_those_of_untrained_models(untrained, verdict):
    random = robustness(around(untrained, untrained), "disjoint_splits").rename(columns={"seed": "untrained_seed"})
    random = random.drop(columns=["method", "checkpoint"])
    tuned = robustness(around(0.7, 0.7), "disjoint_splits")
    row = verdict_of("splits_above_untrained", robustness=tuned, untrained_robustness=random)
    assert row["measured"] == pytest.approx(0.7 - untrained)
    assert row["verdict"] == verdict
    assert row["remark"].startswith(f"fine-tuned 0.70, untrained {untrained:.2f}")


def test_intervals_of_prompts_count_for_tuned_and_for_untrained_circuits():
    random = robustness(around(0.5), "disjoint_splits", width=0.4).rename(columns={"seed": "untrained_seed"})
    tuned = robustness(around(0.7), "disjoint_splits", width=0.3)
    row = verdict_of("splits_above_untrained", robustness=tuned, untrained_robustness=random)
    assert row["upper"] - row["measured"] == pytest.approx(0.5, abs=1e-4)
    alone = verdict_of("robust_after", robustness=robustness(around(0.95), width=0.3))
    assert alone["measured"] - alone["lower"] == pytest.approx(0.3, abs=1e-4)


def ratios(mean, method="lora_r2", level="edge_over_node", measure="rate_net"):
    found = per_run({"a": [mean * 0.99, mean, mean / 0.99]}, "value", method=method, level=level, measure=measure)
    return pd.concat([found, found.assign(measure="rate_cumulative", value=99.0)], ignore_index=True)


@pytest.mark.parametrize(("mean", "verdict"), [(2.0, HIGH), (1.0, MIDDLE), (0.5, LOW)])
def test_ratios_of_rates_are_compared_with_1(mean, verdict):
    estimates = ratios(mean, level="edge", measure="excess_over_estimate_net")
    by_grpo = ratios(mean**2, method="grpo")
    sham = ratios(99.0, method="sham")
    found = verdicts(summary=pd.concat([ratios(mean), estimates, by_grpo, sham], ignore_index=True))
    names = {"edges_over_nodes": mean, "edges_over_node_estimate": mean, "edges_over_nodes_grpo": mean**2}
    for name, value in names.items():
        assert found[name]["measured"] == pytest.approx(value)
        assert found[name]["verdict"] == verdict
    assert "no second piece of evidence" in found["edges_over_node_estimate"]["remark"]
    alone = verdict_of("edges_over_nodes_grpo", summary=ratios(2.0))
    assert alone["remark"] == "the study has no GRPO with circuits"


@pytest.mark.parametrize(("edges", "verdict"), [(0.5, HIGH), (0.41, MIDDLE), (0.3, LOW)])
def test_drift_of_edges_is_compared_with_noise_that_moves_the_nodes_as_far(edges, verdict):
    found = per_run(around(edges), "edge_excess", measure="jaccard", expected=0.4, folds=16)
    found = found.assign(edge_variance=3e-4, covariance=1e-4, expected_variance=1e-4, drift_variance=2e-4)
    found = pd.concat([found, found.assign(measure="pearson", edge_excess=9.0)], ignore_index=True)
    row = verdict_of("edges_over_nodes_beyond_noise", nodes_and_edges=found)
    t_15, t_19, t_2 = 2.131449545559323, 2.093024054408263, 4.302652729911275
    squares = (t_2 * 0.002) ** 2 / 3 + t_15**2 * (3e-4 - 2e-4 + 1e-4) + t_19**2 * 2e-4
    assert row["measured"] == pytest.approx(edges - 0.4)
    assert row["upper"] - row["measured"] == pytest.approx(np.sqrt(squares))
    assert row["verdict"] == verdict


@pytest.mark.parametrize(("excess", "verdict"), [(0.2, HIGH), (0.05, MIDDLE), (-0.2, LOW)])
def test_drift_is_compared_with_the_noise_of_prompts_and_with_its_sham_twin(excess, verdict):
    own = per_run(around(excess, excess), "excess")
    sham = per_run({"a": [0.01, 0.02, 0.03], "b": [-0.01, -0.02, -0.03]}, "excess", method="sham")
    table = pd.concat([own, sham], ignore_index=True).assign(level="edge", measure="jaccard")
    table = table.assign(lower=table["excess"] - 0.1, upper=table["excess"] + 0.1)
    nodes = table.assign(level="node", excess=9.0)
    found = verdicts(reliability=pd.concat([table, nodes], ignore_index=True))
    row = found["drift_beyond_noise"]
    assert (row["measured"], row["verdict"]) == (pytest.approx(excess), verdict)
    assert row["upper"] - row["measured"] == pytest.approx(
        np.hypot(4.302652729911275 * 0.002 / np.sqrt(3), 0.1 / 2**0.5)
    )
    beside = found["drift_beyond_sham"]
    assert beside["measured"] == pytest.approx(excess)
    assert beside["upper"] - beside["measured"] == pytest.approx(4.302652729911275 * 0.002 / np.sqrt(3))


@pytest.mark.parametrize(("early", "verdict"), [(0.5, HIGH), (0.2, MIDDLE), (0.1, LOW)])
def test_convergence_compares_the_last_third_of_the_transitions_with_the_first(early, verdict):
    steps = [early, early, 0.9, 0.9, 0.9, 0.1, 0.3, 0.2]  # thirds of 8 are 2: the last two have the mean .25
    late = np.mean(steps[-2:])
    rows = [
        ("m", "a", "lora_r2", seed, f"{place:02d}", f"{place + 1:02d}", "edge", 1 - change - 0.06 * seed * (place > 5))
        for seed in range(3)
        for place, change in enumerate(steps)
    ]
    columns = ["model", "task", "method", "seed", "from_checkpoint", "to_checkpoint", "level", "jaccard"]
    table = pd.DataFrame(rows[::-1], columns=columns)
    row = verdict_of("convergence", transitions=pd.concat([table, table.assign(level="node", jaccard=0.0)]))
    assert row["measured"] == pytest.approx(late + 0.06 - early)
    assert row["verdict"] == (verdict if early != 0.2 else MIDDLE)
    assert "learning rate decays" in row["remark"]
    one = table[table["from_checkpoint"] == "00"]
    assert verdict_of("convergence", transitions=one)["remark"].endswith("undefined on 1 of 1 tasks")


@pytest.mark.parametrize(("upper", "verdict"), [(9, HIGH), (6, MIDDLE), (2, LOW)])
def test_added_parts_in_upper_layers_are_compared_with_a_random_draw(upper, verdict):
    rows = []
    for seed in range(3):
        in_upper = upper + seed - 1
        # Six layers, so that layers 2 to 5 are the upper two thirds; a random draw would put 6 of 10 there.
        added, expected = [10 - in_upper, 0, in_upper, 0, 0, 0], [2, 2, 1.5, 1.5, 1.5, 1.5]
        for layer in range(6):
            rows += [("m", "a", "lora_r2", seed, layer, lv, added[layer], expected[layer]) for lv in ("node", "edge")]
    columns = ["model", "task", "method", "seed", "layer", "level", "added", "expected_added"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[table["level"] == "edge", "added"] *= 2  # shares of edges are of their own number
    found = verdicts(where=table)
    for name in ("added_nodes_later", "added_edges_later"):
        assert found[name]["measured"] == pytest.approx(upper / 10 - 0.6)
        assert found[name]["verdict"] == verdict
    nothing = table.assign(added=0, expected_added=0.0)
    assert found_nowhere(verdict_of("added_nodes_later", where=nothing))


def found_nowhere(row):
    return np.isnan(row["measured"]) and row["remark"] == "undefined on 1 of 1 tasks"


@pytest.mark.parametrize(("induced", "verdict"), [(40, HIGH), (20, MIDDLE), (10, LOW)])
def test_node_induced_changes_are_compared_with_those_of_equal_degrees(induced, verdict):
    table = per_run({"a": [induced - 1, induced, induced + 1]}, "node_induced", expected=20.0)
    row = verdict_of("node_induced_beyond_degrees", node_induced=table)
    shares = np.array([induced - 1, induced, induced + 1]) / 20
    assert row["measured"] == pytest.approx(np.exp(np.log(shares).mean()))
    assert row["verdict"] == verdict


SIZES = {"lora_r2": 2, "lora_r4": 4, "lora_r4_long": 4, "lora_r8": 8, "adalora": 5, "circuit_lora": 4, "inverted": 4}
SIZES |= {"random": 4, "random_second": 4, "without_0": 4, "sham": 2}


def trained(right, n_seeds=3, n_prompts=400):
    """Runs, and their answers: {method: share of right answers}; hard prompts come last, for every method and seed."""
    rows, answers = [], []
    for method, share in right.items():
        for seed in range(n_seeds):
            steps = 200 if method == "lora_r4_long" else 100
            rows.append(("m", "a", method, seed, "10", steps, "test", SIZES[method]))
            limit = round((share + 0.01 * (seed - 1) * (method == "circuit_lora")) * n_prompts)
            answers.append(pd.DataFrame({"example_id": range(n_prompts), "correct": np.arange(n_prompts) < limit}))
    columns = ["model", "task", "method", "seed", "checkpoint", "step", "split", "trainable_parameters"]
    accuracy = pd.DataFrame(rows, columns=columns)
    named = accuracy[["model", "task", "method", "seed"]]
    log = named.assign(flops=100.0 * accuracy["step"] / 100)
    predictions = pd.concat(
        [answer.assign(**run) for answer, run in zip(answers, named.to_dict("records"), strict=True)], ignore_index=True
    )
    phase_1 = {"circuit_lora": "lora_r2", "inverted": "lora_r2"}
    return {"runs": runs_with_costs(accuracy, log, phase_1, {}), "predictions": predictions}


@pytest.mark.parametrize(("share", "verdict"), [(0.9, HIGH), (0.5, MIDDLE), (0.1, LOW)])
def test_circuit_lora_is_compared_with_each_baseline_in_points(share, verdict):
    right = dict.fromkeys(SIZES, 0.5) | {"circuit_lora": share, "inverted": 0.0, "random": 0.4, "random_second": 0.6}
    found = verdicts(**trained(right | {"without_0": 0.0, "lora_r8": 0.0}))
    for name in ("lora", "lora_compute", "adalora", "random"):
        row = found[f"circuit_lora_over_{name}"]
        assert row["measured"] == pytest.approx(100 * (share - 0.5))
        assert row["verdict"] == verdict
        assert row["unit"] == "points"
    assert "FLOPs with phase 1 1.00 to 1.00 times those of LoRA" in found["circuit_lora_over_lora_compute"]["remark"]
    assert "AdaLoRA has 1.25 to 1.25 times" in found["circuit_lora_over_adalora"]["remark"]


def test_a_difference_between_prompts_widens_the_interval_of_a_comparison():
    found = verdicts(**trained({"lora_r2": 0.5, "circuit_lora": 0.6, "lora_r4": 0.5}))
    row = found["circuit_lora_over_lora"]
    d = np.zeros((3, 400))
    for seed in range(3):
        d[seed, 200 : round(400 * (0.6 + 0.01 * (seed - 1)))] = 1
    of_seeds, of_prompts = d.mean(axis=1), d.mean(axis=0)
    rest = d - of_seeds[:, None] - of_prompts[None, :] + d.mean()
    squares = (3 * ((of_prompts - d.mean()) ** 2).sum() / 399, (rest**2).sum() / (2 * 399))
    prompts = 1.9659272959 * np.sqrt((squares[0] - squares[1]) / 1200)
    half = 100 * np.hypot(4.302652729911275 * of_seeds.std(ddof=1) / np.sqrt(3), prompts)
    assert row["upper"] - row["measured"] == pytest.approx(half)


def test_the_verdict_on_accuracy_takes_the_corrected_p_value():
    right = {"lora_r2": 0.5, "circuit_lora": 0.55, "lora_r4": 0.5, "random": 0.545, "adalora": 0.54}
    found = verdicts(**trained(right))
    names = [f"circuit_lora_over_{name}" for name in ("lora", "adalora", "random")]
    rows = [found[name] for name in names]
    assert [row["p_holm"] for row in rows] == pytest.approx(holm([row["p_value"] for row in rows]))
    assert [row["verdict"] == "supported" for row in rows] == [
        row["p_holm"] < 0.05 and row["lower"] > 0 for row in rows
    ]


def test_a_comparison_that_is_sure_alone_but_not_among_others_is_undecided():
    right = {"lora_r2": 0.5, "circuit_lora": 0.535, "lora_r4": 0.5}
    alone = verdicts(**trained(right))["circuit_lora_over_lora"]
    among = verdicts(**trained(right | {"random": 0.535, "adalora": 0.535}))["circuit_lora_over_lora"]
    assert alone["p_value"] == among["p_value"] < 0.05 < among["p_holm"]
    assert (alone["lower"], alone["verdict"], among["verdict"]) == (among["lower"], "supported", "undecided")
    assert among["lower"] > 0
    assert among["remark"].endswith("not after the correction")


def test_a_study_without_a_baseline_says_so():
    found = verdicts(**trained({"lora_r2": 0.5, "circuit_lora": 0.6, "lora_r8": 0.5, "without_0": 0.5}))
    assert "no LoRA of exactly equal size" in found["circuit_lora_over_lora"]["remark"]
    assert "with as many FLOPs" in found["circuit_lora_over_lora_compute"]["remark"]
    assert found["circuit_lora_over_adalora"]["remark"] == "the study has no AdaLoRA"
    assert "no RandomLoRA" in found["circuit_lora_over_random"]["remark"]
    inverted = verdicts(**trained({"lora_r2": 0.5, "lora_r4": 0.5, "inverted": 0.4}))
    assert "no LoRA of exactly equal size" in inverted["circuit_lora_over_lora"]["remark"]


def orders(method, checkpoints):
    """{checkpoint: (epoch, [changes of each layer, a list for each seed])}."""
    rows = []
    for checkpoint, (epoch, by_seed) in checkpoints.items():
        for seed, values in enumerate(by_seed):
            rows += [("m", "a", method, seed, checkpoint, epoch, layer, v) for layer, v in enumerate(values)]
    columns = ["model", "task", "method", "seed", "checkpoint", "epoch", "layer", "value"]
    table = pd.DataFrame(rows, columns=columns).assign(policy="score_change")
    return pd.concat([table, table.assign(policy="excess", value=-table["value"])], ignore_index=True)


FALLING = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
NEARLY = [[5.0, 6.0, 4.0, 3.0, 2.0, 1.0], [6.0, 4.0, 5.0, 3.0, 2.0, 1.0], [6.0, 5.0, 3.0, 4.0, 2.0, 1.0]]


def test_the_order_of_phase_1_is_compared_with_the_highest_rank_and_over_time():
    low = orders("lora_r2", {"03": (0.9, NEARLY), "07": (3.0, [FALLING[::-1]] * 3), "10": (4.0, [FALLING] * 3)})
    high = orders("lora_r8", {"10": (4.0, NEARLY)})
    found = verdicts(layer_orders=pd.concat([low, high, orders("lora_r4", {"10": (4.0, [FALLING[::-1]] * 3)})]))
    for name in ("rank_2", "one_epoch"):
        shared, order = found[f"{name}_layers"], found[f"{name}_order"]
        assert shared["measured"] == pytest.approx(np.mean([2, 1, 2]) - 2 * 2 / 6)
        # Two neighbours swapped: 1 - 6 x 2 / (6 x 35) with every seed, so nothing shows how seeds scatter.
        assert order["measured"] == pytest.approx(1 - 12 / 210)
        assert (order["verdict"], "agree exactly" in order["remark"]) == ("undecided", True)
    assert found["rank_2_layers"]["remark"].startswith("phase 1 has rank 2, the other LoRA 8")


@pytest.mark.parametrize(
    ("last", "verdict"), [(FALLING, HIGH), ([3.0, 1.0, 5.0, 2.0, 6.0, 4.0], MIDDLE), (FALLING[::-1], LOW)]
)
def test_orders_correlate_or_not(last, verdict):
    early = [NEARLY[0], NEARLY[1], [5.0, 6.0, 3.0, 4.0, 2.0, 1.0]]
    table = orders("lora_r2", {"03": (0.9, early), "10": (4.0, [last] * 3)})
    row = verdict_of("one_epoch_order", layer_orders=table)
    expected = [np.corrcoef(np.argsort(np.argsort(one)), np.argsort(np.argsort(last)))[0, 1] for one in early]
    assert row["measured"] == pytest.approx(np.mean(expected))
    assert row["verdict"] == verdict


def test_orders_that_a_study_lacks_are_named():
    short = verdicts(layer_orders=orders("lora_r2", {"05": (0.5, NEARLY), "10": (1.0, NEARLY)}))
    assert "no checkpoint after its first epoch" in short["one_epoch_layers"]["remark"]
    assert "no LoRA of a higher rank" in short["rank_2_layers"]["remark"]


def critical(sets):
    """{task: [critical layers of each seed]} of six layers, which drifted by 2, the others by 1."""
    last = [
        orders("lora_r2", {"10": (4.0, [[2.0 if layer in found else 1.0 for layer in range(6)] for found in seeds])})
        for seeds in sets.values()
    ]
    named = [table.assign(task=task) for table, task in zip(last, sets, strict=True)]
    earlier = [table.assign(checkpoint="05", value=-table["value"]) for table in named]
    return pd.concat([*named, *earlier, *(table.assign(method="lora_r8") for table in earlier)], ignore_index=True)


def test_critical_layers_of_tasks_are_compared_with_those_of_seeds():
    sets = {"a": [{0, 1}, {0, 1}, {0, 2}], "b": [{3, 4}, {3, 4}, {3, 4}]}
    row = verdict_of("layers_differ_by_task", layer_orders=critical(sets))
    # Tasks share nothing. Seeds share 2, 1 and 1 layers on a and 2, 2 and 2 on b: 10 / 6 on average.
    assert row["measured"] == pytest.approx(-10 / 6)
    # Without seed 0 they share 1 and 2, without seed 1 the same, without seed 2 two and two.
    left = np.array([-1.5, -1.5, -2.0])
    pseudo = 3 * -10 / 6 - 2 * left
    half = 4.302652729911275 * pseudo.std(ddof=1) / np.sqrt(3)
    assert (row["lower"], row["upper"]) == pytest.approx((pseudo.mean() - half, pseudo.mean() + half))
    assert (row["verdict"], row["tasks"], row["replicates"]) == ("supported", 2, 3)


@pytest.mark.parametrize(
    ("sets", "verdict"),
    [
        ({"a": [{0, 1}, {2, 3}, {4, 5}], "b": [{0, 1}, {2, 3}, {4, 5}], "c": [{0, 1}, {2, 3}, {0, 4}]}, LOW),
        ({"a": [{0, 1}, {0, 3}, {4, 5}], "b": [{0, 1}, {2, 3}, {2, 5}]}, MIDDLE),
    ],
)
def test_critical_layers_that_follow_seeds_do_not_follow_tasks(sets, verdict):
    assert verdict_of("layers_differ_by_task", layer_orders=critical(sets))["verdict"] == verdict


def test_two_seeds_are_too_few_for_a_jackknife():
    row = verdict_of("layers_differ_by_task", layer_orders=critical({"a": [{0, 1}] * 2, "b": [{2, 3}] * 2}))
    assert row["remark"] == "needs phase 1 on two tasks with 3 seeds"


def unions(less_own, less_random, width=0.0):
    """Faithfulness on the compositional task: own .9; numbers of other sizes, metrics and checkpoints are absurd."""
    union = 0.9 + less_own
    rows = []
    for seed, noise in enumerate(NOISE):
        of = {("own", 0): 0.9, ("union", 0): union + noise}
        of |= {("random_union", draw): union - less_random + 0.1 * (2 * draw - 1) for draw in range(2)}
        rows += [("m", "c", "lora_r2", seed, *circuit, value, value - 0.9) for circuit, value in of.items()]
    columns = ["model", "task", "method", "seed", "circuit", "draw", "faithfulness", "difference"]
    table = pd.DataFrame(rows, columns=columns).assign(checkpoint="10", metric="kl_from_corrupted", size_fraction=0.05)
    absurd = [{"checkpoint": "00"}, {"metric": "accuracy"}, {"size_fraction": 0.1}]
    others = [table.assign(faithfulness=-9.0, difference=-9.0, **change) for change in absurd]
    table = pd.concat([table, *others], ignore_index=True)
    return table.assign(difference_lower=table["difference"] - width, difference_upper=table["difference"] + width)


@pytest.mark.parametrize(("less", "verdict"), [(-0.08, HIGH), (-0.1, MIDDLE), (-0.2, LOW), (0.2, LOW)])
def test_the_union_is_equivalent_to_the_own_circuit_within_a_margin(less, verdict):
    row = verdict_of("union_as_faithful", union_faithfulness=unions(less, 0.0))
    assert row["measured"] == pytest.approx(less)
    assert row["verdict"] == verdict
    assert (row["margin"], np.isnan(row["p_value"])) == (0.1, True)
    assert row["remark"].startswith(f"union {0.9 + less:.3f}, own 0.900")
    assert verdict_of("union_as_faithful", union_faithfulness=unions(-0.08, 0.0, 0.05))["verdict"] == "undecided"


@pytest.mark.parametrize(("less", "verdict"), [(0.3, HIGH), (0.0, MIDDLE), (-0.3, LOW)])
def test_the_union_is_compared_with_random_unions(less, verdict):
    row = verdict_of("union_over_random", union_faithfulness=unions(0.0, less))
    assert row["measured"] == pytest.approx(less)
    assert row["verdict"] == verdict


@pytest.mark.parametrize(("union", "verdict"), [(69, HIGH), (51, MIDDLE), (30, LOW)])
def test_overlaps_are_those_of_the_first_100_edges(union, verdict):
    rows = []
    for seed in range(3):
        of = {("own", "union"): union + seed - 1, ("own", "intersection"): 9, ("own", "c_add_sub"): 8}
        of |= {("c_add_sub", "c_mul_div"): 51}
        rows += [
            ("m", "c", "lora_r2", seed, *pair, k, n if k == 100 else 0) for pair, n in of.items() for k in (100, 200)
        ]
    columns = ["model", "task", "method", "seed", "first", "second", "k", "overlap"]
    table = pd.DataFrame(rows, columns=columns).assign(checkpoint="10")
    table = pd.concat([table, table.assign(checkpoint="05", overlap=0)], ignore_index=True)
    row = verdict_of("union_overlap", overlaps=table)
    assert row["measured"] == pytest.approx(union - 51)
    assert row["verdict"] == verdict
    assert row["remark"].startswith(f"of the first 100 edges: union {union:.1f}, sub-tasks 51.0")


def test_p_values_of_circuits_are_corrected_apart_from_those_of_accuracy():
    found = verdicts(**trained({"lora_r2": 0.5, "circuit_lora": 0.9, "lora_r4": 0.5}), summary=ratios(2.0))
    accuracy, circuits = found["circuit_lora_over_lora"], found["edges_over_nodes"]
    assert accuracy["p_holm"] == accuracy["p_value"]  # each is the only one of its family
    assert circuits["p_holm"] == circuits["p_value"]
