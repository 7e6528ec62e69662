"""The manifest: what it records, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from circuitdrift.models.manifest import ManifestError, read_manifest, sha256_of, verify_files, write_manifest
from circuitdrift.storage import write_json

FIX = "do this"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(100)))
    return tmp_path


def written(folder: Path) -> Path:
    path = folder / "out" / "manifest.json"
    write_manifest(
        path,
        source={"source": "scratch"},
        folder=folder,
        files=["model.safetensors", "config.json"],
        dtype="float32",
    )
    return path


def test_records_size_and_digest_of_each_file_in_order_of_name(folder: Path) -> None:
    manifest = read_manifest(written(folder))
    assert [entry.name for entry in manifest.files] == ["config.json", "model.safetensors"]
    assert manifest.files[1].bytes == 100
    assert manifest.files[1].sha256 == hashlib.sha256(bytes(range(100))).hexdigest()
    verify_files(manifest.files, folder, FIX)


def test_same_model_gives_the_same_bytes_wherever_it_lies(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("config.json", "model.safetensors"):
        (elsewhere / name).write_bytes((folder / name).read_bytes())
    assert written(folder).read_bytes() == written(elsewhere).read_bytes()


def test_missing_file_is_named_with_the_fix(folder: Path) -> None:
    manifest = read_manifest(written(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ManifestError, match=r"model\.safetensors: model file is missing; do this"):
        verify_files(manifest.files, folder, FIX)


def test_truncated_file_is_named_with_both_sizes(folder: Path) -> None:
    manifest = read_manifest(written(folder))
    (folder / "model.safetensors").write_bytes(bytes(range(60)))
    with pytest.raises(ManifestError, match=r"model\.safetensors: .* 60 bytes, the manifest says 100; do this"):
        verify_files(manifest.files, folder, FIX)


def test_changed_file_of_the_same_size_is_found_by_its_digest(folder: Path) -> None:
    manifest = read_manifest(written(folder))
    (folder / "model.safetensors").write_bytes(bytes(reversed(range(100))))
    with pytest.raises(ManifestError, match=r"model\.safetensors: .* sha256"):
        verify_files(manifest.files, folder, FIX)


def test_a_file_is_hashed_once_until_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read_manifest(written(folder))
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr("circuitdrift.models.manifest.sha256_of", counted)
    for _ in range(2):
        verify_files(content.files, folder, FIX)
    assert sorted(hashed) == [file.name for file in content.files]
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(reversed(range(100))))
    os.utime(weights, ns=(0, 0))
    with pytest.raises(ManifestError, match=r"model\.safetensors: .* sha256"):
        verify_files(content.files, folder, FIX)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        ({"dtype": "float16", "source": {}, "files": []}, "dtype"),
        (["a list"], "not a model manifest"),
    ],
)
def test_bad_manifest_is_refused_by_name(tmp_path: Path, content: Any, told: str) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        write_json(path, content)
    with pytest.raises(ManifestError, match=rf"manifest\.json.*{told}"):
        read_manifest(path)


def test_manifest_holds_no_path_of_this_machine(folder: Path) -> None:
    assert str(folder) not in json.dumps(json.loads(written(folder).read_text()))


def test_a_file_that_does_not_exist_cannot_be_described(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="tokenizer"):
        write_manifest(
            folder / "manifest.json",
            source={"source": "scratch"},
            folder=folder,
            files=["tokenizer.json"],
            dtype="float32",
        )
