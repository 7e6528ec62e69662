"""Untrained models: the architecture of a model with random weights that the seed alone decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from circuitdrift.config.models import ScratchModel
from circuitdrift.models.embedded_model import build_model
from circuitdrift.models.loading import build_untrained_model, load_model
from circuitdrift.models.manifest import write_manifest

CPU = torch.device("cpu")


@pytest.fixture(params=["float32", "bfloat16"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    model = build_model(ScratchModel(source="scratch", layers=2, heads=2, width=16, mlp_width=16, largest_number=30))
    model.to(getattr(torch, request.param)).save_pretrained(tmp_path)
    path = tmp_path / "manifest.json"
    files = ["config.json", "model.safetensors"]
    write_manifest(path, source={"source": "scratch"}, folder=tmp_path, files=files, dtype=request.param)
    return path


def test_the_seed_decides_the_weights_and_leaves_other_draws_alone(manifest: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (build_untrained_model(manifest, seed, CPU).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    matrices = [name for name, weight in first.items() if weight.ndim == 2]
    assert len(matrices) > 8
    assert not any(torch.equal(first[name], other[name]) for name in matrices)


def test_it_has_the_shape_and_dtype_of_the_model_and_none_of_its_weights(manifest: Path) -> None:
    trained, untrained = load_model(manifest, CPU), build_untrained_model(manifest, 0, CPU)
    assert type(untrained) is type(trained)
    assert not untrained.training
    ours, theirs = untrained.state_dict(), trained.state_dict()
    assert {name: (w.shape, w.dtype) for name, w in ours.items()} == {n: (w.shape, w.dtype) for n, w in theirs.items()}
    assert not any(torch.equal(ours[name], theirs[name]) for name, weight in ours.items() if weight.ndim == 2)
    assert untrained.config._attn_implementation == "eager"
