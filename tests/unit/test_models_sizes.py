"""Sizes of a model that are read without its library."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig

from circuitdrift.models.loading import load_config
from circuitdrift.models.manifest import write_manifest
from circuitdrift.models.sizes import shape_of_model

ARCHITECTURES = ["gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "qwen2", "gemma"]


def manifest_of(folder):
    write_manifest(
        folder / "manifest.json", source={"source": "scratch"}, folder=folder, files=["config.json"], dtype="float32"
    )
    return folder / "manifest.json"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_are_those_of_the_library(tmp_path, architecture):
    settings = {"attention_types": [[["global"], 3]]} if architecture == "gpt_neo" else {}
    config = AutoConfig.for_model(architecture, num_hidden_layers=3, hidden_size=48, num_attention_heads=4, **settings)
    config.save_pretrained(tmp_path)
    manifest = manifest_of(tmp_path)
    shape, config = shape_of_model(manifest), load_config(manifest)
    assert shape.layers == config.num_hidden_layers == 3
    assert shape.width == config.hidden_size == 48


def test_a_file_that_leaves_a_size_out_means_the_architecture_s_own(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 48}))
    assert shape_of_model(manifest_of(tmp_path)).layers == 12
