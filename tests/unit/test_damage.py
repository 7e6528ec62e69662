"""Any byte flipped or cut in a file that a stage reads again is noticed before use, and named with what mends it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from circuitdrift.circuits.score_file import ScoreFile, read_scores, write_scores
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.graph import Graph
from circuitdrift.errors import CircuitDriftError
from circuitdrift.models.manifest import read_manifest, verify_files, write_manifest
from circuitdrift.provenance import Provenance
from circuitdrift.seals import DIGITS, LABEL
from circuitdrift.storage import (
    DamageError,
    digest_file_of,
    provenance_of,
    read_json,
    read_table,
    read_tables,
    read_tensors,
    write_json,
    write_table,
    write_tensors,
)

ORIGIN = Provenance.detached(model="m", task="t")
GRAPH = Graph(n_layers=2, n_heads=2, parallel=True)
NODES = pd.DataFrame(
    {
        "node": [f"m{i}" for i in range(40)],
        "kind": "mlp",
        "layer": range(40),
        "head": -1,
        "in_circuit": [True, False] * 20,
    }
)


def table(folder: Path) -> Path:
    write_table(folder / "nodes.parquet", NODES, "nodes", ORIGIN)
    return folder / "nodes.parquet"


def scores(folder: Path) -> Path:
    values = torch.randn(3, *GRAPH.edge_mask.shape, generator=torch.Generator().manual_seed(0))
    write_scores(
        ScoreFile(folder / "scores.safetensors", GRAPH, ORIGIN, values[0], values[1:], (3, 2)), Attribution(steps=3)
    )
    return folder / "scores.safetensors"


def json_file(folder: Path) -> Path:
    write_json(folder / "adapter_config.json", {"r": 8, "rank_pattern": {"a": 2}})
    return folder / "adapter_config.json"


def digest_of_json(folder: Path) -> Path:
    return digest_file_of(json_file(folder))


def weights(folder: Path) -> Path:
    """A model's file as other libraries write it, which the manifest alone protects."""
    save_file({"w": torch.arange(64.0)}, folder / "model.safetensors")
    source = {"source": "scratch"}
    manifest = folder / "manifest.json"
    write_manifest(manifest, source=source, folder=folder, files=["model.safetensors"], dtype="float32")
    return folder / "model.safetensors"


def manifest(folder: Path) -> Path:
    return weights(folder).with_name("manifest.json")


def read_weights(path: Path) -> None:
    verify_files(read_manifest(path.with_name("manifest.json")).files, path.parent, "rm -rf it")


Write = Callable[[Path], Path]
Read = Callable[[Path], object]

KINDS: dict[str, tuple[Write, Read]] = {
    "table": (table, lambda path: read_table(path, "nodes")),
    "tables": (table, lambda path: read_tables([path], "nodes")),
    "provenance": (table, provenance_of),
    "scores": (scores, read_scores),
    "json": (json_file, read_json),
    "digest of json": (digest_of_json, lambda path: read_json(path.with_suffix(""))),
    "manifest": (manifest, read_manifest),
    "weights": (weights, read_weights),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_read(tmp_path: Path, kind: str) -> None:
    write, read = KINDS[kind]
    read(write(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_anywhere_is_noticed(tmp_path: Path, kind: str) -> None:
    write, read = KINDS[kind]
    path = write(tmp_path)
    content = path.read_bytes()
    spread = np.linspace(0, len(content) - 1, 60, dtype=int).tolist()
    for place in {*range(16), *spread, *range(len(content) - 16, len(content))}:
        for change in (0x01, 0x80):
            damaged = bytearray(content)
            damaged[place] ^= change
            path.write_bytes(damaged)
            with pytest.raises(CircuitDriftError) as caught:
                read(path)
            assert path.name.removesuffix(".sha256") in str(caught.value)
            assert "rm -rf " in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_anywhere_is_noticed(tmp_path: Path, kind: str) -> None:
    write, read = KINDS[kind]
    path = write(tmp_path)
    content = path.read_bytes()
    for length in {0, 1, 7, 8, 9, *np.linspace(0, len(content) - 1, 30, dtype=int).tolist()}:
        for damaged in (content[:length], content[:length] + bytes(len(content) - length)):
            path.write_bytes(damaged)
            if damaged == content:
                continue
            with pytest.raises(CircuitDriftError, match="rm -rf "):
                read(path)


@pytest.mark.parametrize("kind", ["table", "scores", "json", "weights"])
def test_bytes_added_at_the_end_are_noticed(tmp_path: Path, kind: str) -> None:
    write, read = KINDS[kind]
    path = write(tmp_path)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(CircuitDriftError, match="rm -rf "):
        read(path)


def test_a_file_of_an_older_version_is_told_to_be_one(tmp_path: Path) -> None:
    plain = table(tmp_path)
    pq.write_table(pq.read_table(plain), plain)
    with pytest.raises(DamageError, match=r"nodes\.parquet: holds no seal, .* older version wrote it; .*rm -rf"):
        read_table(plain, "nodes")
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"provenance": "{}"})
    with pytest.raises(DamageError, match=r"x\.safetensors: holds no seal, .* older version wrote it; .*rm -rf"):
        read_tensors(tmp_path / "x.safetensors")


def test_files_of_another_program_are_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = table(tmp_path)
    content = read_table(plain, "nodes")
    content.to_parquet(plain)
    assert read_table(plain, "nodes").equals(content)
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    assert torch.equal(read_tensors(tmp_path / "x.safetensors")[0]["x"], torch.ones(2))
    digest_of_json(tmp_path).unlink()
    assert read_json(tmp_path / "adapter_config.json")
    for name in ("nodes.parquet", "x.safetensors", "adapter_config.json"):
        assert any(name in message and "cannot be verified" in message for message in caplog.messages)


def test_the_seal_is_the_sha256_of_the_file_with_zeros_for_its_digits(tmp_path: Path) -> None:
    """The slow, obvious way: with the command ``sha256sum`` on a copy."""
    for path in (table(tmp_path), scores(tmp_path)):
        content = path.read_bytes()
        place = content.index(LABEL.encode()) + len(LABEL)
        copy = tmp_path / "copy"
        copy.write_bytes(content[:place] + b"0" * DIGITS + content[place + DIGITS :])
        counted = subprocess.run(["sha256sum", str(copy)], capture_output=True, text=True, check=True).stdout
        assert content[place : place + DIGITS].decode() == counted.split()[0]
        assert content.count(LABEL.encode()) == 1


def test_sha256sum_verifies_json(tmp_path: Path) -> None:
    command = ["sha256sum", "--check", digest_of_json(tmp_path).name]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "adapter_config.json").write_text("{}")
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 1


def test_other_readers_need_not_know_of_seals(tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(pd.read_parquet(table(tmp_path)), read_table(tmp_path / "nodes.parquet", "nodes"))
    write_tensors(tmp_path / "x.safetensors", {"x": torch.arange(3.0)}, {"format": "pt"}, ORIGIN)
    assert torch.equal(load_file(tmp_path / "x.safetensors")["x"], torch.arange(3.0))
    with safe_open(tmp_path / "x.safetensors", framework="pt") as opened:
        assert opened.metadata().keys() == {"format", "provenance", "seal"}


def test_a_page_of_a_table_has_a_checksum_for_other_readers(tmp_path: Path) -> None:
    path = table(tmp_path)
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)
