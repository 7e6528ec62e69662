from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXForCausalLM

from circuitdrift.config.models import ScratchModel
from circuitdrift.models.embedded_model import build_model, number_features, save_model
from circuitdrift.models.embedded_tokenizer import vocabulary
from circuitdrift.provenance import Provenance
from circuitdrift.storage import read_tensors

SMALL = ScratchModel(source="scratch", layers=2, heads=2, width=32, mlp_width=64, largest_number=200)


def test_the_default_model_has_the_documented_shape() -> None:
    model = build_model(ScratchModel(source="scratch"))
    assert isinstance(model, GPTNeoXForCausalLM)
    assert model.config.use_parallel_residual
    assert model.get_input_embeddings().weight is not model.get_output_embeddings().weight
    per_block = 128 * 384 + 384 + 128 * 128 + 128 + 2 * 128 * 512 + 512 + 128 + 4 * 128
    expected = 6 * per_block + 2 * 128 + 2 * 128 * len(vocabulary(500))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("largest", [20, 200, 500, 1000])
def test_features_are_centred_with_unit_size_and_tell_numbers_apart(largest: int) -> None:
    features = number_features(largest)
    assert torch.isfinite(features).all()
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(features.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.pow(2).mean(dim=0).sqrt(), torch.ones(features.shape[1]))
    assert torch.cdist(features, features).fill_diagonal_(torch.inf).min() > 1e-3


def test_numbers_that_are_alike_in_the_last_digit_are_closer_than_others() -> None:
    embedded = build_model(SMALL).get_input_embeddings().weight[vocabulary(200)["0"] :]
    similarity = torch.nn.functional.cosine_similarity(embedded[50:51], embedded)
    assert similarity[60] > similarity[53]
    assert similarity[51] > similarity[125]


def test_initialisation_follows_the_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again = build_model(SMALL), build_model(SMALL)
    assert torch.equal(torch.rand(1), expected)
    other = build_model(SMALL.model_copy(update={"seed": 1}))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    assert not torch.equal(first.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_a_width_below_the_number_of_features_works() -> None:
    narrow = ScratchModel(source="scratch", layers=1, heads=1, width=8, mlp_width=8, largest_number=20)
    assert torch.isfinite(build_model(narrow)(torch.arange(5)[None]).logits).all()


def test_a_saved_model_loads_as_any_other_and_carries_provenance(tmp_path: Path) -> None:
    model = build_model(SMALL).eval()
    provenance = Provenance.detached(model="small").with_seed(0)
    files = save_model(model, tmp_path / "model.safetensors", provenance)
    assert all((tmp_path / name).is_file() for name in files)
    assert read_tensors(tmp_path / "model.safetensors")[1]["provenance"] == provenance.as_header()["provenance"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = torch.tensor([[0, 5, 90, 91]])
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits)
