"""Numbers that the paper published. They stand beside our own; only those that are a claim's null decide anything."""

from __future__ import annotations

from dataclasses import dataclass

FAITHFUL = 0.8
"""Circuits are faithful above this share (Figure 2)."""

ROBUST = 0.9
"""Circuits are robust above this Jaccard index of edges (Figure 2)."""

EQUIVALENCE_MARGIN = 0.1
"""Faithfulness that two circuits of one task may differ by and still stand for each other; the published pair differs
by 0.077. The margin is a convention of ours."""


@dataclass(frozen=True)
class Published:
    """What the paper says of a claim, as text, and where it says it."""

    value: str
    place: str


@dataclass(frozen=True)
class PublishedRate:
    """Published change rates of a task's nodes and edges, in percent."""

    edges: float
    nodes: float
    place: str


NOTHING = Published("", "")
"""Of a claim for which no number is published."""

FAITHFULNESS = Published("above 80 %", "Figure 2")
ROBUSTNESS = Published("above 0.9", "Figure 2")
SPLITS = Published("0.73 fine-tuned, 0.55 random model (0.84 pre-trained)", "stability over data splits")
EDGES_OVER_NODES = Published("2 to 3", "Figure 3")
CONVERGENCE = Published("changes shrink during training", "Figure 3")
LATER_NODES = Published("nodes are added mainly in middle and later layers", "Figure 3")
OVER_NODE_ESTIMATE = Published("2.6 to 3.1", "authors' rebuttal")
GRPO = Published("30.3 % of edges, 14.7 % of nodes: 2.1 (PPO)", "authors' rebuttal")
OVER_LORA = Published("2.46 points, sizes similar", "Table 1")
OVER_ADALORA = Published("1.3 to 6.4 points on five tasks, AdaLoRA larger", "Table 1")
RANK_2 = Published("layers 0, 11, 3, 5, 4 with r = 2; 0, 11, 3, 4, 5 with r = 32", "released circuits")
ONE_EPOCH = Published("layers after one epoch as after the last", "critical layers")
LAYERS_OF_TASKS = Published("0, 4, 6, 5, 2 on Add/Sub; 0, 3, 4, 11, 13 on Mul/Div", "critical layers")
UNION = Published("89.18 % against 96.86 %", "compositional task")
UNION_OVERLAP = Published("69 against 51", "Table 2")

RATES = {
    "comparison": PublishedRate(23.6, 9.6, "authors' rebuttal"),
    "complex_ioi": PublishedRate(17.3, 6.0, "authors' rebuttal"),
    "capital_country": PublishedRate(16.8, 7.3, "authors' rebuttal"),
}
"""By the family of the task."""

PPO_RATE = PublishedRate(30.3, 14.7, "authors' rebuttal")
"""Of reinforcement learning by PPO; here GRPO stands for it."""
