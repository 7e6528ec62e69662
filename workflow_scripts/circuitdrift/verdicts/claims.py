"""The claims of the paper: how each is measured, the value that would refute it, and what was published."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from circuitdrift.verdicts import accuracy, circuits, composition, layers, published
from circuitdrift.verdicts.decision import Claimed, Measured, Scale
from circuitdrift.verdicts.published import Published
from circuitdrift.verdicts.tables import Tables

Kind = Literal["circuits", "accuracy"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim.

    Attributes:
        name: short and stable.
        sentence: the claim as a reader understands it.
        measure: from the tables of one model to a value for each run.
        reads: tables that it is measured from.
        null: the value between the claimed side and the other.
        claimed: the side, or that the value lies within ``margin`` of the null.
        unit: of the measured value.
        published: what the paper says.
        scale: logarithmic for ratios.
        margin: of a claim of equivalence; NaN for others.
        bounds: the lowest and the highest value that the quantity can have, at which its interval is cut.
        kind: p-values of one kind are corrected together; the verdict on a comparison of accuracy needs the correction.
    """

    name: str
    sentence: str
    measure: Callable[[Tables], Measured]
    reads: tuple[str, ...]
    null: float = 0.0
    claimed: Claimed = "above"
    unit: str
    published: Published = published.NOTHING
    scale: Scale = "linear"
    margin: float = float("nan")
    bounds: tuple[float, float] = (-math.inf, math.inf)
    kind: Kind = "circuits"


_SHARE = "share of the full model"
_JACCARD = "Jaccard index of edges"
_OF_A_SHARE = (-math.inf, 1.0)
_OF_AN_INDEX = (0.0, 1.0)
_OF_A_CORRELATION = (-1.0, 1.0)
_ANSWERS = ("accuracy", "predictions", "training_log")

CLAIMS = (
    Claim(
        name="faithful_before",
        sentence="Before fine-tuning, circuits are faithful by the paper's measure",
        measure=partial(circuits.faithfulness_before, metric="kl_from_corrupted"),
        reads=("faithfulness",),
        null=published.FAITHFUL,
        unit=_SHARE,
        published=published.FAITHFULNESS,
    ),
    Claim(
        name="faithful_before_kl",
        sentence="Before fine-tuning, circuits give the model's own output (KL)",
        measure=partial(circuits.faithfulness_before, metric="kl_model_circuit"),
        reads=("faithfulness",),
        null=published.FAITHFUL,
        unit=_SHARE,
        bounds=_OF_A_SHARE,
    ),
    Claim(
        name="faithful_after",
        sentence="After fine-tuning, circuits are faithful by the paper's measure",
        measure=partial(circuits.faithfulness_after, metric="kl_from_corrupted"),
        reads=("faithfulness",),
        null=published.FAITHFUL,
        unit=_SHARE,
        published=published.FAITHFULNESS,
    ),
    Claim(
        name="faithful_after_kl",
        sentence="After fine-tuning, circuits give the model's own output (KL)",
        measure=partial(circuits.faithfulness_after, metric="kl_model_circuit"),
        reads=("faithfulness",),
        null=published.FAITHFUL,
        unit=_SHARE,
        bounds=_OF_A_SHARE,
    ),
    Claim(
        name="robust_before",
        sentence="Before fine-tuning, circuits are robust to perturbed prompts",
        measure=circuits.robustness_before,
        reads=("robustness",),
        null=published.ROBUST,
        unit=_JACCARD,
        bounds=_OF_AN_INDEX,
        published=published.ROBUSTNESS,
    ),
    Claim(
        name="robust_after",
        sentence="After fine-tuning, circuits are robust to perturbed prompts",
        measure=circuits.robustness_after,
        reads=("robustness",),
        null=published.ROBUST,
        unit=_JACCARD,
        bounds=_OF_AN_INDEX,
        published=published.ROBUSTNESS,
    ),
    Claim(
        name="splits_above_untrained",
        sentence="Circuits of disjoint splits agree more in fine-tuned than in untrained models",
        measure=circuits.splits_above_untrained,
        reads=("robustness", "untrained_robustness"),
        unit=f"{_JACCARD}, difference",
        published=published.SPLITS,
    ),
    Claim(
        name="edges_over_nodes",
        sentence="Edges change at a higher rate than nodes",
        measure=circuits.edges_over_nodes,
        reads=("summary",),
        null=1.0,
        unit="ratio of net rates",
        published=published.EDGES_OVER_NODES,
        scale="logarithmic",
    ),
    Claim(
        name="edges_over_nodes_beyond_noise",
        sentence="Edges change more than noise that moves the nodes as far",
        measure=circuits.edges_over_nodes_beyond_noise,
        reads=("nodes_and_edges",),
        unit=f"{_JACCARD}, excess less expected",
    ),
    Claim(
        name="drift_beyond_noise",
        sentence="Fine-tuning changes circuits beyond the noise of the prompts",
        measure=circuits.drift_beyond_noise,
        reads=("reliability",),
        unit=f"{_JACCARD}, excess",
    ),
    Claim(
        name="drift_beyond_sham",
        sentence="Learning the task changes circuits more than as many steps on permuted answers",
        measure=circuits.drift_beyond_sham,
        reads=("reliability",),
        unit=f"{_JACCARD}, difference of excesses",
    ),
    Claim(
        name="convergence",
        sentence="Circuits converge: edges change less late in training than early",
        measure=circuits.convergence,
        reads=("transitions",),
        claimed="below",
        unit="Jaccard distance of edges per transition",
        published=published.CONVERGENCE,
    ),
    Claim(
        name="added_nodes_later",
        sentence="Nodes are added mainly in middle and later layers",
        measure=partial(circuits.added_later, level="node"),
        reads=("where",),
        unit="share of added nodes less expected share",
        published=published.LATER_NODES,
    ),
    Claim(
        name="added_edges_later",
        sentence="Edges are added mainly in middle and later layers",
        measure=partial(circuits.added_later, level="edge"),
        reads=("where",),
        unit="share of added edges less expected share",
    ),
    Claim(
        name="edges_over_node_estimate",
        sentence="Edges change more than the estimate from changed nodes",
        measure=circuits.edges_over_node_estimate,
        reads=("summary",),
        null=1.0,
        unit="ratio to the estimate",
        published=published.OVER_NODE_ESTIMATE,
        scale="logarithmic",
    ),
    Claim(
        name="node_induced_beyond_degrees",
        sentence="Changed nodes take more edge changes with them than degrees alone explain",
        measure=circuits.node_induced_beyond_degrees,
        reads=("node_induced",),
        null=1.0,
        unit="ratio to expectation",
        scale="logarithmic",
    ),
    Claim(
        name="edges_over_nodes_grpo",
        sentence="Reinforcement learning, too, changes edges at a higher rate than nodes",
        measure=circuits.edges_over_nodes_grpo,
        reads=("summary",),
        null=1.0,
        unit="ratio of net rates",
        published=published.GRPO,
        scale="logarithmic",
    ),
    Claim(
        name="circuit_lora_over_lora",
        sentence="CircuitLoRA is more accurate than LoRA of equal size",
        measure=accuracy.over_lora,
        reads=_ANSWERS,
        unit="points",
        published=published.OVER_LORA,
        kind="accuracy",
    ),
    Claim(
        name="circuit_lora_over_lora_compute",
        sentence="CircuitLoRA with its phase 1 is more accurate than LoRA of equal size and equal compute",
        measure=accuracy.over_lora_of_equal_compute,
        reads=_ANSWERS,
        unit="points",
        kind="accuracy",
    ),
    Claim(
        name="circuit_lora_over_adalora",
        sentence="CircuitLoRA is more accurate than AdaLoRA",
        measure=accuracy.over_adalora,
        reads=_ANSWERS,
        unit="points",
        published=published.OVER_ADALORA,
        kind="accuracy",
    ),
    Claim(
        name="circuit_lora_over_random",
        sentence="CircuitLoRA is more accurate than the same ranks in random layers",
        measure=accuracy.over_random_lora,
        reads=_ANSWERS,
        unit="points",
        kind="accuracy",
    ),
    Claim(
        name="rank_2_layers",
        sentence="LoRA of rank 2 finds the critical layers of a higher rank",
        measure=layers.critical_layers_of_low_rank,
        reads=("layer_orders",),
        unit="shared layers beyond chance",
        published=published.RANK_2,
    ),
    Claim(
        name="rank_2_order",
        sentence="LoRA of rank 2 orders the layers as a higher rank does",
        measure=layers.order_of_low_rank,
        reads=("layer_orders",),
        unit="Spearman's correlation",
        bounds=_OF_A_CORRELATION,
        published=published.RANK_2,
    ),
    Claim(
        name="one_epoch_layers",
        sentence="One epoch finds the critical layers of the whole training",
        measure=layers.critical_layers_after_one_epoch,
        reads=("layer_orders",),
        unit="shared layers beyond chance",
        published=published.ONE_EPOCH,
    ),
    Claim(
        name="one_epoch_order",
        sentence="One epoch orders the layers as the whole training does",
        measure=layers.order_after_one_epoch,
        reads=("layer_orders",),
        unit="Spearman's correlation",
        bounds=_OF_A_CORRELATION,
        published=published.ONE_EPOCH,
    ),
    Claim(
        name="layers_differ_by_task",
        sentence="Critical layers differ more between tasks than between seeds",
        measure=layers.layers_differ_by_task,
        reads=("layer_orders",),
        claimed="below",
        unit="shared layers, tasks less seeds",
        published=published.LAYERS_OF_TASKS,
    ),
    Claim(
        name="union_as_faithful",
        sentence="The union of the sub-tasks' circuits is as faithful as the task's own circuit, within 0.1",
        measure=composition.union_less_own,
        reads=("union_faithfulness",),
        claimed="within",
        margin=published.EQUIVALENCE_MARGIN,
        unit="faithfulness, difference",
        published=published.UNION,
    ),
    Claim(
        name="union_over_random",
        sentence="The union is more faithful than random unions of its size",
        measure=composition.union_less_random,
        reads=("union_faithfulness",),
        unit="faithfulness, difference",
    ),
    Claim(
        name="union_overlap",
        sentence="The union shares more leading edges with the task's own circuit than the sub-tasks share",
        measure=composition.union_overlap,
        reads=("overlaps",),
        unit="edges, difference",
        published=published.UNION_OVERLAP,
    ),
)
"""In the order of the table."""
