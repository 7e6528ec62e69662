from __future__ import annotations

import pytest
import torch
from torch import nn

from circuitdrift.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 20, 20), (2, 30, 12), (2, 12, 30)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    random = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(random, full_matrices=False)
    matrices = left @ torch.diag_embed(torch.linspace(0.1, 1.0, values.shape[1]).to(values)) @ right
    result = orthogonalised(matrices)
    for matrix, orthogonal in zip(matrices, result, strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        in_its_basis = left.mT @ orthogonal @ right.mT
        values = in_its_basis.diagonal()
        assert 0.5 < values.min() <= values.max() < 1.3
        torch.testing.assert_close(in_its_basis, torch.diag(values))


def test_no_gradient_direction_gives_no_update() -> None:
    assert not orthogonalised(torch.zeros(2, 4, 6)).any()


def test_steps_equal_those_of_pytorchs_own_version() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 8), (16, 8), (8, 8), (8, 24)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, theirs = ([nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    optimizers = (Muon(ours, **settings), torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw"))
    for _ in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, matrix in zip(ours, theirs, start, strict=True):
        # PyTorch's version keeps a running mean, whose scale the orthogonalisation removes, and rounds to bfloat16.
        torch.testing.assert_close(one, other, atol=3e-3, rtol=0)
        assert (one - matrix).abs().max() > 0.01


def test_only_matrices_are_taken() -> None:
    with pytest.raises(ValueError, match=r"not a parameter of shape \(5,\)"):
        Muon([nn.Parameter(torch.zeros(5))], lr=0.1)
