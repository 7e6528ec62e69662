"""Models in a local folder."""

from __future__ import annotations

from pathlib import Path

from circuitdrift.models.manifest import ManifestError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def model_files(folder: Path) -> list[str]:
    """Sorted names of the files in ``folder`` that make up the model and its tokenizer.

    Raises:
        ManifestError: the folder lacks the config, the tokenizer or weights in safetensors.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; correct the key path of the local model")
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix in {".json", ".safetensors", ".txt"})
    names += sorted(p.name for p in folder.glob("tokenizer.model"))
    if "config.json" not in names:
        raise ManifestError(f"{folder}: has no config.json; path must name a folder in the Hugging Face layout")
    if not any(name.endswith(".safetensors") for name in names):
        raise ManifestError(
            f"{folder}: has no *.safetensors, and pickled weights are refused; save the model with save_pretrained"
        )
    if not any(name in names for name in TOKENIZER_FILES):
        raise ManifestError(f"{folder}: has none of {', '.join(TOKENIZER_FILES)}; save the tokenizer there too")
    return [name for name in names if name != "manifest.json"]
