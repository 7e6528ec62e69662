"""Models with a norm after the heads' sum: the oracle tests on some of them, and what is special about such norms."""

from __future__ import annotations

import dataclasses

import pytest
import test_attribution
import test_attribution_methods
import torch
from random_models import MODELS

from circuitdrift.decoder.anatomy import AnatomyError, anatomy_of
from circuitdrift.decoder.tracing import check_anatomy

some_models = pytest.mark.parametrize("name", ["gemma2 untied, capped", "gemma3 untied", "olmo2 grouped"])


@some_models
def test_scores_of_gradients(name: str) -> None:
    test_attribution.test_scores_are_those_of_private_copies(name, "midpoint")


@some_models
@pytest.mark.parametrize(
    ("method", "objective", "longest_answer"), [("eap-ig-activations", "kl", 1), ("exact", "logit_difference", 1)]
)
def test_scores_of_methods(name: str, method: str, objective: str, longest_answer: int) -> None:
    test_attribution_methods.test_scores(name, method, objective, longest_answer)


@some_models
def test_conductance(name: str) -> None:
    test_attribution_methods.test_conductance(name, "midpoint", "kl", 1)


@some_models
@pytest.mark.parametrize("ablation", ["patching", "mean", "zero"])
def test_circuit_runs(name: str, ablation: str) -> None:
    test_attribution_methods.test_circuit_runs(name, ablation)


@some_models
def test_completeness(name: str) -> None:
    test_attribution.test_completeness(name)


def test_conductance_is_complete_at_every_cut_of_the_graph() -> None:
    test_attribution_methods.test_conductance_is_complete_at_every_cut_of_the_graph("gemma2 untied, capped")


@some_models
def test_heads_that_are_taken_before_their_norm_are_found(name: str) -> None:
    """As other tools take them: their outputs do not add up to the stream."""
    anatomy = anatomy_of(MODELS[name]())
    before = tuple(dataclasses.replace(block, post_norm=None) for block in anatomy.blocks)
    with pytest.raises(AnatomyError, match="writers' outputs differ from the residual stream by"):
        check_anatomy(dataclasses.replace(anatomy, blocks=before), torch.tensor([[3, 1, 4, 1, 5]]))
