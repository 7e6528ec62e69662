"""Columns and types of every table on disk, by the name of its schema; results/README.md says which file has which."""

from __future__ import annotations

import pyarrow as pa

_TOKEN_IDS = pa.list_(pa.int32())
_ROBUSTNESS = (
    {"control": pa.string(), "share": pa.float64(), "draws": pa.int32(), "examples": pa.int32()}
    | {"level": pa.string(), "measure": pa.string()}
    | dict.fromkeys(("similarity", "lower", "upper"), pa.float64())
)

SCHEMAS: dict[str, pa.Schema] = {
    "examples": pa.schema(
        {
            "example_id": pa.int32(),
            "clean": pa.string(),
            "corrupted": pa.string(),
            "answer": pa.string(),
            "corrupted_answer": pa.string(),
            "clean_ids": _TOKEN_IDS,
            "corrupted_ids": _TOKEN_IDS,
            "answer_ids": _TOKEN_IDS,
            "corrupted_answer_ids": _TOKEN_IDS,
        }
    ),
    "dropped": pa.schema({"row": pa.int32(), "reason": pa.string()}),
    "training_log": pa.schema(
        {
            "step": pa.int32(),
            "epoch": pa.float32(),
            "loss": pa.float32(),
            "learning_rate": pa.float32(),
            "gradient_norm": pa.float32(),
            "tokens": pa.int64(),
            "seconds": pa.float64(),
        }
    ),
    "trials": pa.schema(
        {
            "factor": pa.float64(),
            "learning_rate": pa.float64(),
            "n": pa.int32(),
            "accuracy": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
            "loss": pa.float64(),
            "chosen": pa.bool_(),
        }
    ),
    "accuracy": pa.schema(
        {
            "checkpoint": pa.string(),
            "step": pa.int32(),
            "split": pa.string(),
            "n": pa.int32(),
            "accuracy": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
        }
    ),
    "predictions": pa.schema({"checkpoint": pa.string(), "example_id": pa.int32(), "correct": pa.bool_()}),
    "edges": pa.schema(
        {
            "source": pa.string(),
            "target": pa.string(),
            "qkv": pa.string(),
            "source_layer": pa.int16(),
            "target_layer": pa.int16(),
            "score": pa.float32(),
            "in_circuit": pa.bool_(),
        }
    ),
    "nodes": pa.schema(
        {
            "node": pa.string(),
            "kind": pa.string(),
            "layer": pa.int16(),
            "head": pa.int16(),
            "in_circuit": pa.bool_(),
        }
    ),
    "faithfulness": pa.schema(
        {
            "size_fraction": pa.float64(),
            "n_edges": pa.int32(),
            "own_circuit": pa.bool_(),
            "metric": pa.string(),
            "full": pa.float64(),
            "circuit": pa.float64(),
            "corrupted": pa.float64(),
            "faithfulness": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
        }
    ),
    "faithfulness_areas": pa.schema(
        {
            "metric": pa.string(),
            "area": pa.string(),
            "value": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
            "n_sizes": pa.int32(),
            "smallest": pa.float64(),
            "largest": pa.float64(),
        }
    ),
    "transitions": pa.schema(
        {
            "from_checkpoint": pa.string(),
            "to_checkpoint": pa.string(),
            "level": pa.string(),
            "initial": pa.int32(),
            "added": pa.int32(),
            "removed": pa.int32(),
            "changed": pa.int32(),
            "jaccard": pa.float64(),
        }
    ),
    "summary": pa.schema(
        {
            "from_checkpoint": pa.string(),
            "to_checkpoint": pa.string(),
            "level": pa.string(),
            "measure": pa.string(),
            "value": pa.float64(),
        }
    ),
    "controls": pa.schema(
        {
            "control": pa.string(),
            "checkpoint": pa.string(),
            "seed_a": pa.int32(),
            "seed_b": pa.int32(),
            "pairing": pa.string(),
            "n": pa.int32(),
            "examples": pa.int32(),
            "level": pa.string(),
            "initial": pa.int32(),
            "changed": pa.int32(),
            **dict.fromkeys(("rate", "jaccard", "ruzicka", "spearman", "pearson"), pa.float64()),
        }
    ),
    "model_controls": pa.schema(
        {
            "control": pa.string(),
            "before": pa.string(),
            "after": pa.string(),
            "level": pa.string(),
            "measure": pa.string(),
            "examples": pa.int32(),
            "within_before": pa.float64(),
            "within_after": pa.float64(),
            "between": pa.float64(),
            "paired": pa.float64(),
            "excess": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
            "p_value": pa.float64(),
        }
    ),
    "layers": pa.schema(
        {
            "from_checkpoint": pa.string(),
            "to_checkpoint": pa.string(),
            "layer": pa.int16(),
            "level": pa.string(),
            "added": pa.int32(),
            "removed": pa.int32(),
            "score_change": pa.float64(),
            "score_change_normalised": pa.float64(),
            "score_change_at_target": pa.float64(),
            "score_change_normalised_at_target": pa.float64(),
        }
    ),
    "critical_layers": pa.schema(
        {
            "layer": pa.int16(),
            "policy": pa.string(),
            "value": pa.float64(),
            "rank_order": pa.int16(),
            "critical": pa.bool_(),
            "credit": pa.string(),
            "above_threshold": pa.bool_(),
            "in_top": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
        }
    ),
    "reliability": pa.schema(
        {
            "from_checkpoint": pa.string(),
            "to_checkpoint": pa.string(),
            "level": pa.string(),
            "measure": pa.string(),
            "examples": pa.int32(),
            "within_before": pa.float64(),
            "within_after": pa.float64(),
            "between": pa.float64(),
            "paired": pa.float64(),
            "excess": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
            "corrected": pa.float64(),
            "p_value": pa.float64(),
            "prompts_for_80": pa.float64(),
            "prompts_for_90": pa.float64(),
        }
    ),
    "edges_changed": pa.schema(
        {
            "source": pa.string(),
            "target": pa.string(),
            "qkv": pa.string(),
            "score_before": pa.float32(),
            "score_after": pa.float32(),
            "effect": pa.float64(),
            "effect_lower": pa.float64(),
            "effect_upper": pa.float64(),
            "q_value": pa.float64(),
            "included_before": pa.float64(),
            "included_after": pa.float64(),
            "change": pa.string(),
            "merged_included_before": pa.float64(),
            "merged_included_after": pa.float64(),
            "merged_change": pa.string(),
        }
    ),
    "edge_counts": pa.schema(
        {
            "from_checkpoint": pa.string(),
            "to_checkpoint": pa.string(),
            "examples": pa.int32(),
            "resamples": pa.int32(),
            "n_edges": pa.int32(),
            "changed_beyond_margin": pa.int32(),
            "cutoff": pa.float64(),
            "n_merged_edges": pa.int32(),
            "kept": pa.int32(),
            "gained": pa.int32(),
            "lost": pa.int32(),
            "undecided": pa.int32(),
            "outside": pa.int32(),
            "gained_edges": pa.list_(pa.string()),
            "lost_edges": pa.list_(pa.string()),
            "in_both": pa.int32(),
            "added": pa.int32(),
            "removed": pa.int32(),
            "jaccard_before": pa.float64(),
            "jaccard_after": pa.float64(),
        }
    ),
    "functional": pa.schema(
        {
            "model_checkpoint": pa.string(),
            "circuit_checkpoint": pa.string(),
            "circuit_seed": pa.int32(),
            "n_edges": pa.int32(),
            "examples": pa.int32(),
            "metric": pa.string(),
            "faithfulness": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
            "difference": pa.float64(),
            "difference_lower": pa.float64(),
            "difference_upper": pa.float64(),
        }
    ),
    "recipe_reliability": pa.schema(
        {
            "recipe": pa.string(),
            "level": pa.string(),
            "measure": pa.string(),
            "examples": pa.int32(),
            "within": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
            "difference": pa.float64(),
            "difference_lower": pa.float64(),
            "difference_upper": pa.float64(),
            "similarity_to_own": pa.float64(),
            "prompts_for_80": pa.float64(),
        }
    ),
    "recipe_faithfulness": pa.schema(
        {
            "recipe": pa.string(),
            "n_edges": pa.int32(),
            "metric": pa.string(),
            "full": pa.float64(),
            "circuit": pa.float64(),
            "corrupted": pa.float64(),
            "faithfulness": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
            "difference": pa.float64(),
            "difference_lower": pa.float64(),
            "difference_upper": pa.float64(),
        }
    ),
    "recipe_areas": pa.schema(
        {"recipe": pa.string(), "metric": pa.string(), "area": pa.string()}
        | dict.fromkeys(("value", "lower", "upper"), pa.float64())
        | dict.fromkeys(("difference", "difference_lower", "difference_upper"), pa.float64())
        | {"n_sizes": pa.int32(), "smallest": pa.float64(), "largest": pa.float64()}
    ),
    "nodes_and_edges": pa.schema(
        {"from_checkpoint": pa.string(), "to_checkpoint": pa.string(), "measure": pa.string()}
        | {"examples": pa.int32(), "folds": pa.int32()}
        | dict.fromkeys(("edge_excess", "node_excess", "edge_noise", "node_noise"), pa.float64())
        | dict.fromkeys(("expected", "ratio_drift", "ratio_noise", "ratio_within"), pa.float64())
        | dict.fromkeys(("edge_variance", "expected_variance", "covariance", "drift_variance"), pa.float64())
        | dict.fromkeys(("quotient", "lower", "upper"), pa.float64())
    ),
    "module_changes": pa.schema(
        {
            "layer": pa.int16(),
            "module": pa.string(),
            "source": pa.string(),
            "target": pa.string(),
            "qkv": pa.string(),
            "score_before": pa.float64(),
            "score_after": pa.float64(),
            "score_change": pa.float64(),
            "score_change_normalised": pa.float64(),
        }
    ),
    "gradients": pa.schema(
        {
            "layer": pa.int16(),
            "module": pa.string(),
            "weights": pa.int64(),
            "fisher": pa.float64(),
            "gradient_norm": pa.float64(),
        }
    ),
    "activation_ranks": pa.schema({"layer": pa.int16(), "module": pa.string(), "rank": pa.int16()}),
    "ranks": pa.schema(
        {
            "layer": pa.int16(),
            "module": pa.string(),
            "value": pa.float64(),
            "rank": pa.int16(),
            "parameters": pa.int64(),
        }
    ),
    "overlaps": pa.schema(
        {
            "checkpoint": pa.string(),
            "first": pa.string(),
            "second": pa.string(),
            "k": pa.int32(),
            "overlap": pa.int32(),
            "expected": pa.float64(),
        }
    ),
    "union_faithfulness": pa.schema(
        {
            "checkpoint": pa.string(),
            "circuit": pa.string(),
            "draw": pa.int32(),
            "size_fraction": pa.float64(),
            "n_edges": pa.int32(),
            "metric": pa.string(),
            "faithfulness": pa.float64(),
            "lower": pa.float64(),
            "upper": pa.float64(),
            "difference": pa.float64(),
            "difference_lower": pa.float64(),
            "difference_upper": pa.float64(),
        }
    ),
    "robustness": pa.schema({"checkpoint": pa.string(), **_ROBUSTNESS}),
    "untrained_robustness": pa.schema({"untrained_seed": pa.int32(), **_ROBUSTNESS}),
    "where": pa.schema(
        {"layer": pa.int16(), "level": pa.string()}
        | dict.fromkeys(("present_before", "possible", "addable", "added", "removed"), pa.int32())
        | {"expected_added": pa.float64()}
    ),
    "node_induced": pa.schema(
        dict.fromkeys(("changed", "node_induced"), pa.int32())
        | dict.fromkeys(("expected", "lower", "upper", "node_based_estimate"), pa.float64())
    ),
    "layer_orders": pa.schema(
        {"checkpoint": pa.string(), "epoch": pa.float64(), "policy": pa.string(), "layer": pa.int16()}
        | {"value": pa.float64(), "rank_order": pa.int16()}
    ),
    "figure": pa.schema({}),
}
