"""Models on the Hugging Face hub: pinned to a commit, safetensors only, no remote code."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from circuitdrift.models.manifest import ManifestError

FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
TOKENIZER_FILES = ("tokenizer*.json", "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json")


def resolve_commit(model_id: str, revision: str) -> str:
    """The commit hash of a branch, tag or short hash of a hub model.

    Raises:
        ManifestError: the model or the revision does not exist, or the hub cannot be reached.
    """
    try:
        commit = HfApi().model_info(model_id, revision=revision).sha
    except RevisionNotFoundError:
        raise ManifestError(f"{model_id}: has no revision '{revision}' on the hub; correct the key revision") from None
    except RepositoryNotFoundError:
        raise ManifestError(
            f"{model_id}: no such model on the hub, or it needs a login (hf auth login); correct the key id"
        ) from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(model_id, error) from None
    if commit is None:
        raise ManifestError(f"{model_id}: the hub names no commit for revision '{revision}'; pin a commit hash")
    return commit


def fetch(model_id: str, commit: str) -> Path:
    """Folder of the model's files at ``commit`` in the hub's own cache, downloaded if missing.

    Raises:
        ManifestError: the hub cannot be reached and the cache lacks the model, or the model has no safetensors.
    """
    wanted = [*FILES, *TOKENIZER_FILES]
    try:
        folder = Path(snapshot_download(model_id, revision=commit, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(model_id, error) from None
    if not any(folder.glob("*.safetensors")):
        raise ManifestError(
            f"{model_id}: has no *.safetensors at {commit}, and pickled weights are refused because they can run code; "
            "choose a revision with safetensors (often refs/pr/1)"
        )
    return folder


def fetch_config(model_id: str, revision: str) -> Path:
    """The config.json of a model alone, in the hub's own cache, downloaded if missing.

    Raises:
        ManifestError: the model or its revision does not exist, or the hub cannot be reached.
    """
    try:
        return Path(hf_hub_download(model_id, "config.json", revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(model_id, error) from None


def _unreachable(model_id: str, error: Exception) -> ManifestError:
    return ManifestError(
        f"{model_id}: cannot be obtained from the Hugging Face hub ({type(error).__name__}: {error}); check the "
        "network, or copy the model's folder here and use source: local"
    )
