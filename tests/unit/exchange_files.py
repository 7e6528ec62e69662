"""Files in EAP-IG's JSON, made up by plain loops, for the tests of import and export."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import yaml


def nodes_of(n_layers: int, n_heads: int) -> list[str]:
    """Every node, in the order of the model."""
    blocks = [[*(f"a{layer}.h{head}" for head in range(n_heads)), f"m{layer}"] for layer in range(n_layers)]
    return ["input", *(node for block in blocks for node in block), "logits"]


def edges_of(n_layers: int, n_heads: int, parallel: bool, merged: bool) -> list[str]:
    """The name of every edge, block by block."""
    names: list[str] = []
    written = ["input"]
    for layer in range(n_layers):
        heads = [f"a{layer}.h{head}" for head in range(n_heads)]
        inputs = [""] if merged else ["<q>", "<k>", "<v>"]
        names += [f"{source}->{head}{which}" for source in written for head in heads for which in inputs]
        names += [f"{source}->m{layer}" for source in (written if parallel else [*written, *heads])]
        written += [*heads, f"m{layer}"]
    return names + [f"{source}->logits" for source in written]


def content(
    kept: dict[str, float],
    *,
    n_layers: int = 2,
    n_heads: int = 2,
    parallel: bool = True,
    merged: bool = False,
    old_nodes: bool = False,
    only_kept: bool = False,
) -> dict[str, Any]:
    """A file that keeps these edges; all others, where they are listed, have the score 0.25."""
    ends = {end for name in kept for end in name.partition("<")[0].split("->")} | {"input", "logits"}
    names = list(kept) if only_kept else edges_of(n_layers, n_heads, parallel, merged)
    members = {node: node in ends for node in nodes_of(n_layers, n_heads)}
    return {
        "cfg": {"n_layers": n_layers, "n_heads": n_heads, "parallel_attn_mlp": parallel},
        "nodes": members if old_nodes else {node: {"in_graph": kept_} for node, kept_ in members.items()},
        "edges": {name: {"score": kept.get(name, 0.25), "in_graph": name in kept} for name in names},
    }


def write(path: Path, value: Any, compress: bool = False) -> Path:
    """Write JSON, gzipped or not, whatever the name."""
    data = json.dumps(value).encode()
    path.write_bytes(gzip.compress(data) if compress else data)
    return path


def study_of_two_circuits(folder: Path) -> Path:
    """A config without a model, whose jobs take seconds: a circuit before and a circuit after."""
    for name, score in (("before", 1.0), ("after", 2.0)):
        kept = {"input->a0.h0<q>": score, "a0.h0->m1": 2.0, "m1->logits": 1.0}
        write(folder / f"{name}.json", content(kept, parallel=False))
    checkpoints = {"00": "before.json", "01": "after.json"}
    imported = {"format": "eap-json", "checkpoints": checkpoints, "critical_layers": 1, "architecture": "gpt2"}
    file = folder / "imports.yaml"
    file.write_text(yaml.safe_dump({"study": "imported", "imports": {"mine": imported}}))
    return file
