"""What is measured of circuits: faithfulness, robustness, drift of edges and nodes, and where it happens.

Each function takes the tables of one model and gives one value for each run; docs/method.md#verdicts defines them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import special

from circuitdrift.drift.nodes_and_edges import SIMULATED_DRIFTS
from circuitdrift.intervals import CONFIDENCE
from circuitdrift.verdicts.decision import Measured, mean_of_defined, measured_in, nothing_measured
from circuitdrift.verdicts.tables import BASE, RUN, Tables, at_last_checkpoint

NO_CIRCUITS = "the study has no fine-tuning with circuits"
_SHARES = (0.1, 0.9)


def faithfulness_before(tables: Tables, metric: str) -> Measured:
    """Faithfulness of the base model's circuit on each task; the base model has no seed."""
    own = _own_circuits(tables, metric)
    base = own[own["checkpoint"] == BASE] if len(own) else own
    if base.empty:
        return nothing_measured("the study has no circuit of the base model")
    return measured_in(base.assign(seed=0), base["faithfulness"], "the base model has no seed")


def faithfulness_after(tables: Tables, metric: str) -> Measured:
    """Faithfulness of the circuit of each run's last checkpoint."""
    own = _own_circuits(tables, metric)
    runs = tables.supervised(own) if "method" in own else own.iloc[:0]
    if runs.empty:
        return nothing_measured(NO_CIRCUITS)
    last = at_last_checkpoint(runs)
    return measured_in(last, last["faithfulness"]).with_half_width((last["upper"] - last["lower"]) / 2)


def _own_circuits(tables: Tables, metric: str) -> pd.DataFrame:
    found = tables.faithfulness
    return found[found["own_circuit"] & (found["metric"] == metric)] if len(found) else found


def robustness_before(tables: Tables) -> Measured:
    """Similarity of the base model's circuits from its own and from perturbed prompts."""
    found = _edges_of_control(tables, "perturbed")
    base = found[found["checkpoint"] == BASE] if len(found) else found
    if base.empty:
        return nothing_measured("the study perturbs no prompts")
    return _mean_similarity(base.assign(seed=0, method=BASE), "the base model has no seed")


def robustness_after(tables: Tables) -> Measured:
    """The same of the last checkpoints."""
    found = _edges_of_control(tables, "perturbed")
    last = found[found["checkpoint"] != BASE] if len(found) else found
    return nothing_measured("the study perturbs no prompts") if last.empty else _mean_similarity(last)


def splits_above_untrained(tables: Tables) -> Measured:
    """Similarity between circuits of disjoint splits: last checkpoints, with untrained models as the reference."""
    found, untrained = _edges_of_control(tables, "disjoint_splits"), tables.untrained_robustness
    last = found[found["checkpoint"] != BASE] if len(found) else found
    if last.empty or untrained.empty:
        return nothing_measured("the study has no disjoint splits of fine-tuned and of untrained models")
    named = untrained.assign(seed=untrained["untrained_seed"], method="untrained")
    reference = _mean_similarity(_edges_by_jaccard(named, "disjoint_splits")).runs
    tuned = _mean_similarity(last)
    remark = f"fine-tuned {tuned.runs['value'].mean():.2f}, untrained {reference['value'].mean():.2f}"
    return replace(tuned, reference=reference, remark=remark)


def _mean_similarity(found: pd.DataFrame, remark: str = "") -> Measured:
    """The mean over the shares of each run. Its half-width is the mean of theirs, as if prompts moved all alike."""
    widths = found.assign(half_width=(found["upper"] - found["lower"]) / 2)
    means = widths.groupby(RUN, as_index=False)[["similarity", "half_width"]].agg(mean_of_defined)
    return measured_in(means, means["similarity"], remark).with_half_width(means["half_width"])


def _edges_of_control(tables: Tables, control: str) -> pd.DataFrame:
    runs = tables.supervised(tables.robustness)
    return _edges_by_jaccard(runs, control) if len(runs) else runs


def _edges_by_jaccard(robustness: pd.DataFrame, control: str) -> pd.DataFrame:
    """Rows of a control; of perturbed prompts those of the shares that the paper averages over."""
    wanted = robustness["control"].eq(control) & robustness["level"].eq("edge") & robustness["measure"].eq("jaccard")
    share = robustness["share"].round(6)
    return robustness[wanted & (share.isna() | share.between(*_SHARES))]


def edges_over_nodes(tables: Tables) -> Measured:
    """Net rate of edges over that of nodes, in supervised fine-tunings."""
    found = _summary(tables.supervised(tables.summary), "edge_over_node", "rate_net")
    return measured_in(found, found["value"]) if len(found) else nothing_measured(NO_CIRCUITS)


def edges_over_nodes_grpo(tables: Tables) -> Measured:
    """The same in reinforcement learning."""
    found = _summary(tables.by_grpo(tables.summary), "edge_over_node", "rate_net")
    return measured_in(found, found["value"]) if len(found) else nothing_measured("the study has no GRPO with circuits")


def edges_over_node_estimate(tables: Tables) -> Measured:
    """Net changes of edges over the estimate from net changes of nodes."""
    found = _summary(tables.supervised(tables.summary), "edge", "excess_over_estimate_net")
    remark = "by arithmetic the ratio of the rates, no second piece of evidence"
    return measured_in(found, found["value"], remark) if len(found) else nothing_measured(NO_CIRCUITS)


def _summary(summary: pd.DataFrame, level: str, measure: str) -> pd.DataFrame:
    if summary.empty:
        return summary
    return summary[(summary["level"] == level) & (summary["measure"] == measure)]


def edges_over_nodes_beyond_noise(tables: Tables) -> Measured:
    """The edges' excess less that of simulated drift which moves the nodes as far, in Jaccard indices."""
    found = tables.supervised(tables.nodes_and_edges)
    if found.empty:
        return nothing_measured(NO_CIRCUITS)
    found = found[found["measure"] == "jaccard"]
    of_prompts = found["edge_variance"] - 2 * found["covariance"] + found["expected_variance"]
    quantile = np.array([_students_t(folds) for folds in found["folds"]])
    squares = quantile**2 * of_prompts.clip(lower=0) + _students_t(SIMULATED_DRIFTS) ** 2 * found["drift_variance"]
    return measured_in(found, found["edge_excess"] - found["expected"]).with_half_width(np.sqrt(squares))


def drift_beyond_noise(tables: Tables) -> Measured:
    """Excess of edges, in Jaccard indices."""
    found = tables.supervised(tables.reliability)
    if found.empty:
        return nothing_measured(NO_CIRCUITS)
    found = _edge_excess(found)
    return measured_in(found, found["excess"]).with_half_width((found["upper"] - found["lower"]) / 2)


def drift_beyond_sham(tables: Tables) -> Measured:
    """The same less that of the sham twin with the same seed."""
    if not tables.sham_twins or tables.reliability.empty:
        return nothing_measured("the study has no sham fine-tuning with circuits beside its true twin")
    excess = _edge_excess(tables.reliability)[[*RUN, "excess"]]
    sham = excess[excess["method"].isin(list(tables.sham_twins))]
    sham = sham.assign(method=sham["method"].map(dict(tables.sham_twins)))
    pairs = excess.merge(sham, on=RUN, suffixes=("", "_sham"))
    return measured_in(pairs, pairs["excess"] - pairs["excess_sham"])


def _edge_excess(reliability: pd.DataFrame) -> pd.DataFrame:
    return reliability[(reliability["level"] == "edge") & (reliability["measure"] == "jaccard")]


def convergence(tables: Tables) -> Measured:
    """Mean change of edges per transition in the last third of the transitions less that in the first third."""
    found = tables.supervised(tables.transitions)
    if found.empty:
        return nothing_measured(NO_CIRCUITS)
    edges = found[found["level"] == "edge"].sort_values("from_checkpoint")
    rows = []
    for run, transitions in edges.groupby(RUN, sort=False):
        changes = 1 - transitions["jaccard"].to_numpy()
        third = max(1, len(changes) // 3)
        later = changes[-third:].mean() - changes[:third].mean() if len(changes) > 1 else np.nan
        rows.append((*run, later))
    runs = pd.DataFrame(rows, columns=[*RUN, "value"])
    return measured_in(runs, runs["value"], "the learning rate decays to 0, which alone makes later changes smaller")


def added_later(tables: Tables, level: str) -> Measured:
    """Share of added nodes or edges in the upper two thirds of the layers, less that of a random draw."""
    found = tables.supervised(tables.where)
    if found.empty:
        return nothing_measured("the study has no table of where parts are added")
    found = found[found["level"] == level]
    n_layers = found.groupby(RUN)["layer"].transform("nunique")
    upper = found["layer"] >= n_layers / 3
    counts = found.assign(upper=found["added"].where(upper, 0), drawn=found["expected_added"].where(upper, 0))
    runs = counts.groupby(RUN, as_index=False)[["added", "expected_added", "upper", "drawn"]].sum()
    share = runs["upper"] / runs["added"].replace(0, np.nan)
    expected = runs["drawn"] / runs["expected_added"].replace(0, np.nan)
    return measured_in(runs, share - expected)


def node_induced_beyond_degrees(tables: Tables) -> Measured:
    """Node-induced edge changes over those of random circuits with the same degrees."""
    found = tables.supervised(tables.node_induced)
    if found.empty:
        return nothing_measured("the study does not count node-induced changes against circuits of the same degrees")
    return measured_in(found, found["node_induced"] / found["expected"].replace(0, np.nan))


def _students_t(n: int) -> float:
    """The two-sided 95 % quantile with one degree of freedom less than there are values."""
    return float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2))
