"""The score file: what is written is read, and other files are refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuitdrift.circuits.score_file import ScoreFile, read_scores, write_scores
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.graph import Graph
from circuitdrift.provenance import Provenance
from circuitdrift.storage import StorageError, read_tensors, write_tensors

GRAPH = Graph(n_layers=2, n_heads=2, parallel=True)


def test_what_is_written_is_read(tmp_path) -> None:
    tensors = torch.randn(3, *GRAPH.edge_mask.shape, generator=torch.Generator().manual_seed(0))
    written = ScoreFile(tmp_path / "scores.safetensors", GRAPH, Provenance.detached(checkpoint="03"), *tensors)
    write_scores(written, Attribution(steps=3), 8)
    read = read_scores(written.path)
    for name in ("scores", "half_a", "half_b"):
        assert torch.equal(getattr(read, name), getattr(written, name))
    same = replace(read, scores=written.scores, half_a=written.half_a, half_b=written.half_b)
    assert same == written
    assert read.checkpoint == "03"
    metadata = read_tensors(written.path)[1]
    assert metadata["graph"] == '{"n_layers": 2, "n_heads": 2, "parallel": true}'
    assert metadata["examples"] == "8"
    assert Attribution.model_validate_json(metadata["recipe"]).steps == 3


def test_a_file_without_scores_is_refused(tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    write_tensors(path, {"scores": torch.zeros(2)}, {}, Provenance.detached())
    with pytest.raises(StorageError, match=r"other\.safetensors.*'scores_half_a', 'scores_half_b', 'graph'"):
        read_scores(path)
