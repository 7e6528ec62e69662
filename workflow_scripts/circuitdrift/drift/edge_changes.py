"""Edges one by one: which edges of two checkpoints' circuits changed for certain (docs/method.md#edges-one-by-one).

Two questions are asked of each edge, both of scores by fold, with the same prompts before and after:

- Did its score change by more than a margin? A paired test over folds, with control of the false-discovery rate.
- Is it in the circuit, whichever prompts are drawn? The share of resampled folds whose circuit holds it, before and
  after.

Scores are compared at unit mass: divided by the sum of the absolute scores of all edges at their checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8
from scipy import special

from circuitdrift.drift.reliability import FoldScores
from circuitdrift.drift.series import DriftError

CHANGES = ("kept", "gained", "lost", "undecided", "outside")
SURELY_OUT, SURELY_IN = 0.05, 0.95
"""Shares of resamples below and above which an edge is surely outside and surely inside a circuit."""

FALSE_DISCOVERIES = 0.05
"""Expected share of false discoveries among the edges whose score counts as changed beyond the margin."""

MARGIN = 0.5
"""Margin of a change, in units of the cut-off."""

CONFIDENCE = 0.95
"""Of the interval of an effect."""

STABLE = 0.8
"""Mean pairwise Jaccard index of resampled circuits from which a circuit counts as stable."""

SEED = 0
_SCORES_AT_ONCE = 2**23
_BYTES_AT_ONCE = 2**13

Select = Callable[[Float[np.ndarray, "row edge"]], Bool[np.ndarray, "row edge"]]
"""From rows of scores to the edges kept in each row."""


@dataclass(frozen=True)
class CircuitSelection:
    """How a study takes circuits from scores.

    Attributes:
        names: ``source``, ``target`` and ``qkv`` of each edge.
        merged: for each edge the number of its merged edge, from 0; the q, k and v edges of a pair of nodes share one.
        selected: the edges kept before pruning.
        pruned: the edges kept after pruning: the circuits.
    """

    names: pd.DataFrame
    merged: Int[np.ndarray, " edge"]
    selected: Select
    pruned: Select

    def merge(self, circuits: Bool[np.ndarray, "row edge"]) -> Bool[np.ndarray, "row merged"]:
        """Membership of merged edges: in a circuit if any of their edges is."""
        order, starts = self._groups
        merged: Bool[np.ndarray, "row merged"] = np.logical_or.reduceat(circuits[:, order], starts, axis=1)
        return merged

    @cached_property
    def _groups(self) -> tuple[Int[np.ndarray, " edge"], Int[np.ndarray, " merged"]]:
        """The edges in the order of their merged edges, and where each merged edge starts."""
        order = np.argsort(self.merged, kind="stable")
        return order, np.searchsorted(self.merged[order], np.arange(self.merged.max() + 1))

    def merged_names(self) -> list[str]:
        """``source -> target`` of each merged edge."""
        first = self.names.iloc[np.unique(self.merged, return_index=True)[1]]
        return (first["source"] + " -> " + first["target"]).tolist()


@dataclass(frozen=True)
class Inclusion:
    """How often resampled circuits of one checkpoint hold each edge.

    Attributes:
        edges: share of the resamples whose circuit holds an edge.
        merged: the same for merged edges.
        jaccard: mean Jaccard index of merged edges over all pairs of resamples; NaN where all circuits are empty.
    """

    edges: Float[np.ndarray, " edge"]
    merged: Float[np.ndarray, " merged"]
    jaccard: float


@dataclass(frozen=True)
class EdgeChanges:
    """The changes of one pair of checkpoints.

    Attributes:
        edges: one row for each edge, in the columns of schema "edges_changed".
        counts: one row, in the columns of schema "edge_counts" but for the names of the checkpoints.
    """

    edges: pd.DataFrame
    counts: pd.DataFrame


def classify_edges(before: FoldScores, after: FoldScores, selection: CircuitSelection, resamples: int) -> EdgeChanges:
    """Test each edge's change of score, and classify it by how surely it is in the circuits before and after.

    Args:
        before: scores of the earlier checkpoint.
        after: scores of the later checkpoint, on the same prompts in the same folds.
        selection: the study's own.
        resamples: how often the folds are drawn with replacement; each draw serves both checkpoints.

    Raises:
        DriftError: folds or edges differ between the checkpoints or from the selection's edges, there are fewer than
            four folds, all scores of a checkpoint are zero, or the circuit before keeps no edge with a score.
    """
    _check(before, after, selection)
    every_fold = np.ones((1, before.n_folds), dtype=bool)
    means = [checkpoint.means(every_fold) for checkpoint in (before, after)]
    unit_before, unit_after = (_unit_mass(mean[0]) for mean in means)
    cutoff = _cutoff(np.abs(unit_before[selection.selected(means[0])[0]]))
    by_fold = unit_mass_by_fold(after) - unit_mass_by_fold(before)
    p_values = p_values_beyond(by_fold, before.sizes, margin=MARGIN * cutoff)
    lower, upper = interval_of_mean(by_fold, before.sizes)
    from scipy.stats import false_discovery_control  # here, because scipy.stats is slow to import

    draws = draw_folds(before.n_folds, resamples, SEED)
    found_before, found_after = (resample(checkpoint, draws, selection) for checkpoint in (before, after))
    merged_change = change_of(found_before.merged, found_after.merged)
    edges = selection.names.assign(
        score_before=unit_before.astype(np.float32),
        score_after=unit_after.astype(np.float32),
        effect=(unit_after - unit_before) / cutoff,
        effect_lower=lower / cutoff,
        effect_upper=upper / cutoff,
        q_value=false_discovery_control(p_values, method="bh"),
        included_before=found_before.edges,
        included_after=found_after.edges,
        change=change_of(found_before.edges, found_after.edges),
        merged_included_before=found_before.merged[selection.merged],
        merged_included_after=found_after.merged[selection.merged],
        merged_change=merged_change[selection.merged],
    )
    plain_before, plain_after = (selection.merge(selection.pruned(mean))[0] for mean in means)
    names = np.array(selection.merged_names(), dtype=object)
    counts = {
        "examples": int(before.sizes.sum()),
        "resamples": resamples,
        "n_edges": len(edges),
        "changed_beyond_margin": int((edges["q_value"] < FALSE_DISCOVERIES).sum()),
        "cutoff": cutoff,
        "n_merged_edges": len(names),
        **{change: int((merged_change == change).sum()) for change in CHANGES},
        "gained_edges": names[merged_change == "gained"].tolist(),
        "lost_edges": names[merged_change == "lost"].tolist(),
        "in_both": int((plain_before & plain_after).sum()),
        "added": int((plain_after & ~plain_before).sum()),
        "removed": int((plain_before & ~plain_after).sum()),
        "jaccard_before": found_before.jaccard,
        "jaccard_after": found_after.jaccard,
    }
    return EdgeChanges(edges, pd.DataFrame([counts]))


def _check(before: FoldScores, after: FoldScores, selection: CircuitSelection) -> None:
    if not np.array_equal(before.sizes, after.sizes):
        raise DriftError(
            f"the checkpoint before was scored in folds of {before.sizes.tolist()} prompts, the one after in folds of "
            f"{after.sizes.tolist()}; score both on the same prompts"
        )
    if before.n_folds < 4:
        raise DriftError(f"{before.n_folds} folds are too few to resample; raise the task's circuit to 4 prompts")
    n_edges = {before.scores.shape[1], after.scores.shape[1], len(selection.merged)}
    if len(n_edges) > 1:
        raise DriftError(
            f"the scores before are of {before.scores.shape[1]} edges, those after of {after.scores.shape[1]}, and the "
            f"graph has {len(selection.merged)}; take the scores of one model"
        )


def _unit_mass(scores: Float[np.ndarray, " edge"]) -> Float[np.ndarray, " edge"]:
    mass = np.abs(scores).sum()
    if not mass > 0:
        raise DriftError(
            "all scores of a checkpoint are zero, so they have no unit mass; "
            "look at the circuit's objective and precision, and score the checkpoint again"
        )
    return scores / mass


def _cutoff(strengths: Float[np.ndarray, " selected"]) -> float:
    """The smallest unit-mass strength among the selected edges."""
    smallest = float(strengths.min(initial=np.inf))
    if not 0 < smallest < np.inf:
        raise DriftError(
            "the selection keeps no edge of the circuit before, or one whose score is zero, so changes have no scale; "
            "raise circuit.fraction where it keeps none, or lower it or circuit.threshold to the edges that have scores"
        )
    return smallest


def unit_mass_by_fold(checkpoint: FoldScores) -> Float[np.ndarray, "fold edge"]:
    """What each fold says of the unit-mass scores: values whose mean over prompts is exactly the unit-mass score.

    The unit-mass score u = s / M is a ratio, of the mean score s of an edge to the mass M, the sum of |s| over edges.
    With s_f the mean score in fold f, the linear part of u in the folds is

        u_f = s_f / M - u (M_f / M - 1),    M_f = sum over edges of sign(s) s_f.

    All folds are divided by the one mass of all prompts. A fold's own mass would not do: |noise| adds to it, so that
    ratios by fold would not average to the ratio. The second term takes out what a fold adds to all edges alike:
    prompts that double every score say nothing of any edge. Its mean over prompts is zero.

    Raises:
        DriftError: all scores are zero.
    """
    mean = checkpoint.means(np.ones((1, checkpoint.n_folds), dtype=bool))[0]
    unit = _unit_mass(mean)
    shares = checkpoint.scores / np.abs(mean).sum()
    growth = shares @ np.sign(mean) - 1
    folds: Float[np.ndarray, "fold edge"] = shares - growth[:, None] * unit
    return folds


def p_values_beyond(
    changes: Float[np.ndarray, "fold edge"], sizes: Int[np.ndarray, " fold"], margin: float
) -> Float[np.ndarray, " edge"]:
    """Two-sided p-values of the hypothesis that the absolute mean change is at most a margin.

    Student's t of the mean over prompts. A fold's mean has a variance inversely proportional to its size, so folds are
    weighted by their sizes, in the mean and in the variance; for equal sizes this is the paired t-test over folds. p is
    largest where the true change is the margin itself:

        p = P(T > (|d| - margin) / e) + P(T > (|d| + margin) / e)

    with d the mean, e its standard error, and T of one degree of freedom less than there are folds. With a margin of 0
    it is the usual two-sided test. Changes that are equal in all folds have e = 0: p is 0 beyond the margin, else 1.

    Args:
        changes: change of each edge in each fold.
        sizes: prompts in each fold.
        margin: the largest change that counts as none, in the unit of the changes.
    """
    n_folds = len(sizes)
    mean, error = _mean_and_error(changes, sizes)
    size = np.abs(mean)
    scale = np.where(error > 0, error, 1)
    tails = special.stdtr(n_folds - 1, (margin - size) / scale) + special.stdtr(n_folds - 1, -(size + margin) / scale)
    p_values: Float[np.ndarray, " edge"] = np.where(error > 0, np.minimum(tails, 1), size <= margin)
    return p_values


def interval_of_mean(
    changes: Float[np.ndarray, "fold edge"], sizes: Int[np.ndarray, " fold"]
) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
    """Lower and upper end of Student's 95 % interval of the mean over prompts, from folds weighted by their sizes.

    Args:
        changes: change of each edge in each fold.
        sizes: prompts in each fold.
    """
    mean, error = _mean_and_error(changes, sizes)
    reach = special.stdtrit(len(sizes) - 1, (1 + CONFIDENCE) / 2) * error
    return mean - reach, mean + reach


def _mean_and_error(
    changes: Float[np.ndarray, "fold edge"], sizes: Int[np.ndarray, " fold"]
) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
    """The mean over prompts, and its standard error from the differences between folds."""
    mean = sizes @ changes / sizes.sum()
    variance = sizes @ (changes - mean) ** 2 / (len(sizes) - 1)
    return mean, np.sqrt(variance / sizes.sum())


def draw_folds(n_folds: int, resamples: int, seed: int) -> Int[np.ndarray, "resample fold"]:
    """How often each fold is drawn in each resample of as many folds as there are, with replacement."""
    return np.random.default_rng(seed).multinomial(n_folds, np.full(n_folds, 1 / n_folds), size=resamples)


def resample(checkpoint: FoldScores, draws: Int[np.ndarray, "resample fold"], selection: CircuitSelection) -> Inclusion:
    """Select a circuit from each draw of folds, a few draws at a time, and count how often it holds each edge."""
    at_once = max(1, _SCORES_AT_ONCE // len(selection.merged))
    edges = np.zeros(len(selection.merged))
    merged = np.zeros(int(selection.merged.max()) + 1)
    packed = []
    for start in range(0, len(draws), at_once):
        circuits = selection.pruned(checkpoint.means(draws[start : start + at_once]))
        members = selection.merge(circuits)
        edges += circuits.sum(axis=0)
        merged += members.sum(axis=0)
        packed.append(np.packbits(members, axis=1))
    return Inclusion(edges / len(draws), merged / len(draws), mean_pairwise_jaccard(np.concatenate(packed)))


def mean_pairwise_jaccard(packed: UInt8[np.ndarray, "row byte"]) -> float:
    """The mean Jaccard index over all pairs of rows of memberships, given as bits (``numpy.packbits``).

    Pairs of two empty rows have no index and are left out; NaN where no other pair is left.
    """
    shared = np.zeros((len(packed), len(packed)))
    for start in range(0, packed.shape[1], _BYTES_AT_ONCE):
        members = np.unpackbits(packed[:, start : start + _BYTES_AT_ONCE], axis=1).astype(np.float32)
        shared += members @ members.T  # whole numbers below 2**24, so exact in float32
    sizes = np.diag(shared)
    union = sizes[:, None] + sizes[None, :] - shared
    pairs = np.triu_indices(len(packed), 1)
    defined = union[pairs] > 0
    return float((shared[pairs][defined] / union[pairs][defined]).mean()) if defined.any() else float("nan")


def change_of(before: Float[np.ndarray, " edge"], after: Float[np.ndarray, " edge"]) -> np.ndarray:
    """The class of each edge, one of :data:`CHANGES`, from its shares of resamples before and after."""
    out_before, out_after = before < SURELY_OUT, after < SURELY_OUT
    in_before, in_after = before > SURELY_IN, after > SURELY_IN
    classes = [in_before & in_after, out_before & in_after, in_before & out_after, out_before & out_after]
    return np.select(classes, ["kept", "gained", "lost", "outside"], default="undecided").astype(object)


def bound_node_changes(edges_changed: pd.DataFrame) -> pd.DataFrame:
    """How surely nodes are in the circuits, from the shares of the merged edges that touch them.

    A node is in a circuit if one of its edges is. So its share of resamples is at least the largest share of its edges,
    and at most their sum. A node counts as surely in by the lower bound, as surely out by the upper bound.

    Returns:
        ``change`` by node: kept, gained, lost, outside, or undecided where the bounds leave it open.
    """
    merged = edges_changed.drop_duplicates(["source", "target"])
    ends = pd.concat([merged.assign(node=merged[end]) for end in ("source", "target")])
    shares = ends.groupby("node")[["merged_included_before", "merged_included_after"]]
    least, most = shares.max(), shares.sum()
    before, after = np.where(most < SURELY_OUT, most, np.maximum(least, SURELY_OUT)).T
    return pd.DataFrame({"change": change_of(before, after)}, index=least.index)
