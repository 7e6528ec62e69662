"""Tables and tensors on disk."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError

from circuitdrift.provenance import Provenance
from circuitdrift.storage import (
    StorageError,
    WriteError,
    provenance_of,
    read_json,
    read_table,
    read_tables,
    read_tensors,
    write_atomically,
    write_json,
    write_table,
    write_tensors,
    write_text,
)

NODES = pd.DataFrame(
    {"node": ["input", "logits"], "kind": ["input", "logits"], "layer": 0, "head": -1, "in_circuit": True}
)


def test_a_table_comes_back_with_the_schema_types_and_its_own_columns(tmp_path):
    write_table(tmp_path / "t.parquet", NODES.assign(extra=1.5), "nodes", Provenance.detached())
    back = read_table(tmp_path / "t.parquet", "nodes")
    assert back["layer"].dtype == "int16"
    assert list(back["extra"]) == [1.5, 1.5]


def test_the_same_table_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / name, NODES, "nodes", Provenance.detached(model="m"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tables_are_read_together_with_their_wildcards(tmp_path):
    for seed in (0, 1):
        write_table(tmp_path / f"{seed}", NODES, "nodes", Provenance.detached(model="m", seed=str(seed)))
    both = read_tables([tmp_path / "0", tmp_path / "1"], "nodes")
    assert list(both["seed"]) == [0, 0, 1, 1]
    assert set(both["model"]) == {"m"}


def test_provenance_comes_back(tmp_path):
    origin = Provenance.detached(model="m", seed="3").on(torch.device("cpu"), torch.float32).for_checkpoint("04")
    write_table(tmp_path / "t", NODES, "nodes", origin)
    assert provenance_of(tmp_path / "t") == origin
    assert (origin.seed, origin.device, origin.dtype, origin.wildcards["checkpoint"]) == (3, "cpu", "float32", "04")


def test_a_missing_column_is_named_at_writing_and_at_reading(tmp_path):
    with pytest.raises(StorageError, match="'head'"):
        write_table(tmp_path / "t", NODES.drop(columns="head"), "nodes", Provenance.detached())
    write_table(tmp_path / "t", NODES, "nodes", Provenance.detached())
    with pytest.raises(StorageError, match="'source'"):
        read_table(tmp_path / "t", "edges")


def test_a_wrong_type_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"'layer' is not int16"):
        write_table(tmp_path / "t", NODES.assign(layer="first"), "nodes", Provenance.detached())


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_truncated_table_is_named(tmp_path, keep):
    path = tmp_path / "t.parquet"
    write_table(path, NODES, "nodes", Provenance.detached())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StorageError, match=r"t\.parquet: truncated, or not Parquet"):
        read_table(path, "nodes")


def test_tensors_come_back_with_their_metadata(tmp_path):
    write_tensors(tmp_path / "t", {"x": torch.arange(4.0)[::2]}, {"key": "value"}, Provenance.detached())
    tensors, metadata = read_tensors(tmp_path / "t")
    assert tensors["x"].tolist() == [0.0, 2.0]
    assert metadata["key"] == "value"
    assert Provenance.model_validate_json(metadata["provenance"]).rule == "none"


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    metadata = {key: "ä" + key * 3 for key in "hgfedcba"}
    for number in range(4):
        write_tensors(tmp_path / str(number), {"x": torch.arange(4.0)}, metadata, Provenance.detached())
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert read_tensors(tmp_path / "0")[1].items() >= metadata.items()
    assert (tmp_path / "0").stat().st_mode & 0o777 == 0o644


def test_truncated_tensors_and_json_are_named(tmp_path):
    write_tensors(tmp_path / "t.safetensors", {"x": torch.ones(8)}, {}, Provenance.detached())
    (tmp_path / "t.safetensors").write_bytes((tmp_path / "t.safetensors").read_bytes()[:-5])
    with pytest.raises(StorageError, match=r"t\.safetensors: truncated"):
        read_tensors(tmp_path / "t.safetensors")
    write_json(tmp_path / "j.json", {"a": [1, 2]})
    (tmp_path / "j.json").write_text((tmp_path / "j.json").read_text()[:-3])
    with pytest.raises(StorageError, match=r"j\.json: truncated"):
        read_json(tmp_path / "j.json")


def test_a_missing_file_is_named(tmp_path):
    for read in (read_tensors, read_json, lambda path: read_table(path, "nodes")):
        with pytest.raises(StorageError, match="absent: no such file"):
            read(tmp_path / "absent")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "j.json", 1)
    before = sorted(tmp_path.iterdir())

    def fail(path):
        path.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_atomically(tmp_path / "j.json", fail)
    assert read_json(tmp_path / "j.json") == 1
    assert sorted(tmp_path.iterdir()) == before


WRITERS = {
    "table": lambda path: write_table(path, NODES, "nodes", Provenance.detached()),
    "text": lambda path: write_text(path, "a"),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_full_disk_is_named_with_its_fix_and_leaves_nothing(tmp_path, write):
    """The file that is written first lies on a device that is always full."""
    path = tmp_path / "results" / "file"
    path.parent.mkdir()
    path.with_name(".file.part").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"results/file: cannot be written \(No space left on device\); make room"):
        write(path)
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_is_named_although_safetensors_raises_an_error_of_its_own(tmp_path, monkeypatch):
    def refuse(*arguments, **settings):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    with pytest.raises(WriteError, match=r"results/file: cannot be written \(No space left on device\); make room"):
        write_tensors(tmp_path / "results" / "file", {"a": torch.zeros(1)}, {}, Provenance.detached())
    assert list((tmp_path / "results").iterdir()) == []


def test_a_file_replaces_the_remains_of_a_killed_process(tmp_path):
    (tmp_path / ".file.part").write_text("half")
    write_text(tmp_path / "file", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "whole"


def test_an_error_of_the_program_is_no_refusal_of_the_system(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "file", lambda temporary: tmp_path.write_text("x"))
