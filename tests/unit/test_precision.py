"""The precision in which a loaded model is scored."""

from __future__ import annotations

import pytest
import torch

from circuitdrift.compute import precision_of_weights

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("wanted", "weights", "found"),
    [
        ("auto", torch.float32, torch.float32),
        ("auto", torch.float64, torch.float64),
        ("auto", torch.bfloat16, torch.float32),
        ("bfloat16", torch.float32, torch.bfloat16),
        ("float32", torch.bfloat16, torch.float32),
    ],
)
def test_a_cpu_scores_in_bfloat16_only_where_it_is_asked_for(
    wanted: str, weights: torch.dtype, found: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert precision_of_weights(wanted, weights, CPU) == found
