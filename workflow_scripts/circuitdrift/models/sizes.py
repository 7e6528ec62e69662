"""Sizes of a model from its ``config.json``, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from circuitdrift.models.files import model_folder_without_weights

NAMES = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd"),
}
"""The names of each size in the files of different architectures."""


def size_of_model(manifest: Path, size: Literal["num_hidden_layers", "hidden_size"]) -> int:
    """A size of the model: its number of layers, or the width of its residual stream.

    Raises:
        ManifestError: see ``files.model_folder``.
    """
    path = model_folder_without_weights(manifest) / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    found = [written[name] for name in NAMES[size] if name in written]
    if len(found) == 1:
        return int(found[0])
    from circuitdrift.models.loading import load_config  # imports torch, for the rare file that leaves the size out

    return int(getattr(load_config(manifest), size))
