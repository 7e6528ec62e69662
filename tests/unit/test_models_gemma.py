"""Gemma-3-270M out of four wheels, as configs/gemma3_270m.yaml takes it: a real model whose norms follow its heads.

Skipped unless the model lies in the cache already: putting it there takes more than a minute.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import fetch_model
from circuitdrift.circuits.ablation import run_circuits
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.prompts import PromptPairs, pair_batches
from circuitdrift.config.circuits import Attribution
from circuitdrift.config.models import PackageModel
from circuitdrift.decoder.anatomy import anatomy_of
from circuitdrift.decoder.logits import kl_divergence, log_probabilities
from circuitdrift.decoder.tracing import check_anatomy
from circuitdrift.models.caches import package_folder
from circuitdrift.models.loading import load_model
from circuitdrift.models.tokenizer import load_tokenizer
from circuitdrift.tasks.tokenization import encode_answer, encode_prompt

pytestmark = pytest.mark.real_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SOURCE = PackageModel(**yaml.safe_load((CONFIGS / "gemma3_270m.yaml").read_text())["models"]["gemma3"])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not package_folder(SOURCE.package, SOURCE.sha256).is_dir():
        pytest.skip("needs the model in the cache, where a run of configs/gemma3_270m.yaml puts it")
    path = tmp_path_factory.mktemp("study") / "manifest.json"
    fetch_model.main(path, SOURCE)
    return path


@pytest.fixture(scope="module")
def model(manifest: Path) -> PreTrainedModel:
    return load_model(manifest, torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer(manifest: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(manifest)


@pytest.fixture(scope="module")
def pairs(tokenizer: PreTrainedTokenizerBase) -> PromptPairs:
    rows = pd.read_csv(CONFIGS / "prompts" / "complex_ioi.csv").query("split == 'circuit'").head(2)
    prompts = ([encode_prompt(tokenizer, text) for text in rows[column]] for column in ("clean", "corrupted"))
    answers = ([encode_answer(tokenizer, text) for text in rows[c]] for c in ("answer", "corrupted_answer"))
    return PromptPairs(*prompts, *answers)


def test_the_model_is_the_one_that_its_makers_describe(model: PreTrainedModel) -> None:
    config = model.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (18, 4, 1)
    assert (config.hidden_size, config.head_dim, config.intermediate_size) == (640, 256, 2048)
    assert (config.vocab_size, config.sliding_window) == (262_144, 512)
    assert [i for i, kind in enumerate(config.layer_types) if kind == "full_attention"] == [5, 11, 17]
    assert sum(parameter.numel() for parameter in model.parameters()) == 268_098_176


@pytest.mark.parametrize(
    ("prompt", "going_on"),
    [("The capital of France is Paris, the capital of Italy is", " Rome"), ("The opposite of hot is", " cold")],
)
def test_it_goes_on_sensibly(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, going_on: str
) -> None:
    ids = torch.tensor([encode_prompt(tokenizer, prompt)])
    with torch.no_grad():
        best = int(model(ids, logits_to_keep=1).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == going_on


def test_it_is_taken_apart_and_its_parts_add_up(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The check compares the sum of all writers with the stream, and the hooked model's logits with the plain one's."""
    anatomy = anatomy_of(model)
    assert (len(anatomy.graph.nodes), anatomy.graph.n_edges) == (92, 10_342)
    check_anatomy(anatomy, torch.tensor([encode_prompt(tokenizer, "The capital of France is Paris")]))


def test_scores_of_edges_out_of_the_input_sum_to_the_change_of_the_output(
    model: PreTrainedModel, pairs: PromptPairs
) -> None:
    recipe = Attribution(steps=10, quadrature="midpoint")
    anatomy = anatomy_of(model)
    scores = score_edges(anatomy, pairs, recipe, batch_size=2).scores
    assert bool(torch.isfinite(scores).all())
    (batch,) = pair_batches(pairs, 2, anatomy.device)
    mask = anatomy.graph.edge_mask
    runs = run_circuits(anatomy, batch, torch.stack([mask, torch.zeros_like(mask)]))
    clean, ablated = log_probabilities(runs.clean), log_probabilities(runs.ablated)
    change = float(kl_divergence(clean, ablated).sum(dim=-1).mean())
    assert float(scores[0].sum()) == pytest.approx(change, rel=0.02)
    for circuit, whole in zip(runs.circuits, (clean, ablated), strict=True):
        assert float(kl_divergence(whole, log_probabilities(circuit)).max()) < 1e-6
