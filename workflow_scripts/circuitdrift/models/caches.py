"""Where models that were downloaded are kept, for all studies of a user. No torch, and nothing that downloads."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Folder of the cache: ``CIRCUITDRIFT_CACHE``, or ``circuitdrift`` in the user's cache folder."""
    if chosen := os.environ.get("CIRCUITDRIFT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "circuitdrift"


def hub_folder(model_id: str, commit: str) -> Path:
    """Folder of the files of a hub model at a commit in the hub's own cache, whether it is there yet or not."""
    from huggingface_hub import constants  # takes longer to import than the checks at parsing take

    return Path(constants.HF_HUB_CACHE) / f"models--{model_id.replace('/', '--')}" / "snapshots" / commit


def package_folder(package: str, sha256: str) -> Path:
    """Folder of the de-quantised model of a package, whether it is there yet or not.

    Args:
        package: exact pin of the wheel, ``name==version``.
        sha256: digest of the GGUF file inside it.
    """
    return cache_root() / "packages" / f"{package}-{sha256[:16]}"
