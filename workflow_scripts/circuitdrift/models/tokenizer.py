"""From a manifest to the model's tokenizer, which needs no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from circuitdrift.models.files import model_folder_without_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(manifest: Path) -> PreTrainedTokenizerBase:
    """The model's own tokenizer.

    Raises:
        ManifestError: see ``files.model_folder``.
    """
    from transformers import AutoTokenizer  # here, so that a script can import this module and then hide torch

    tokenizer = AutoTokenizer.from_pretrained(
        model_folder_without_weights(manifest), local_files_only=True, trust_remote_code=False
    )
    return cast("PreTrainedTokenizerBase", tokenizer)


@contextmanager
def tokenizers_only() -> Iterator[None]:
    """Let transformers work without torch, which it imports with every tokenizer if it finds it.

    ``None`` in ``sys.modules`` is Python's own mark of a module that cannot be imported, so torch, which transformers
    declares as optional, counts as not installed. For a process that needs no model: transformers remembers that torch
    is missing, and refuses models from then on. In a process that has imported either, as the forks of
    :mod:`circuitdrift.preloaded` have, there is nothing to save, and nothing is done.
    """
    if {"torch", "transformers"} & set(sys.modules):
        yield
        return
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # no advice in the log to install torch
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
