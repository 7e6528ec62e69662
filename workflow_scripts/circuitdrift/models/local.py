"""Models in a local folder."""

from __future__ import annotations

from pathlib import Path

from circuitdrift.models.folder import problem_of_folder
from circuitdrift.models.manifest import ManifestError


def model_files(folder: Path) -> list[str]:
    """Sorted names of the files in ``folder`` that make up the model and its tokenizer.

    Raises:
        ManifestError: the folder holds no model that can be used.
    """
    if problem := problem_of_folder(folder):
        raise ManifestError(problem)
    return files_of_layout(folder)


def files_of_layout(folder: Path) -> list[str]:
    """The same of a folder that has been checked, with or without a tokenizer."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix in {".json", ".safetensors", ".txt"})
    names += sorted(p.name for p in folder.glob("tokenizer.model"))
    return [name for name in names if name != "manifest.json"]
