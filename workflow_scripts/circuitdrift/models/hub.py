"""Models on the Hugging Face hub: pinned to a commit, safetensors only, no remote code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence, Set
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from circuitdrift.models.manifest import ManifestError, sha256_of

COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
HTTPError: type[Exception] = hub_errors.HTTPError  # type: ignore[attr-defined] # of the HTTP client of huggingface_hub
UNREACHABLE = (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)
"""What is raised where the hub does not answer, or not as it should. A lack of network is an HTTPError."""
TOKENIZER_FILES = ("tokenizer*.json", "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json")
MODEL_FILES = (*FILES, *TOKENIZER_FILES)


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
    except HFValidationError as error:
        raise _not_an_id(model_id, error) from None
    except UNREACHABLE as error:
        raise _unreachable(model_id, error) from None
    if commit is None or not COMMIT.fullmatch(commit):
        raise ManifestError(f"{model_id}: the hub names no commit for revision '{revision}'; pin a commit hash")
    return commit


def fetch(model_id: str, commit: str, wanted: Sequence[str] = MODEL_FILES) -> Path:
    """Folder of the model's files at ``commit`` in the hub's own cache, downloaded if missing.

    The digests of files that were missing are checked, as :func:`check_digests` does.

    Args:
        model_id: owner/name.
        commit: commit hash.
        wanted: patterns of the files' names.

    Raises:
        ManifestError: the hub cannot be reached and the cache lacks the model, a download is damaged, or the model has
            no safetensors.
    """
    there = _contents_in_cache(model_id)
    try:
        folder = Path(snapshot_download(model_id, revision=commit, allow_patterns=list(wanted)))
    except UNREACHABLE as error:
        raise _unreachable(model_id, error) from None
    check_digests(folder, there)
    if not any(folder.glob("*.safetensors")):
        raise ManifestError(
            f"{model_id}: has no *.safetensors at {commit}, and pickled weights are refused because they can run code; "
            "choose a revision with safetensors (often refs/pr/1)"
        )
    return folder


def check_digests(folder: Path, without: Set[str] = frozenset()) -> None:
    """Compare the files of a model in the hub's cache with the digests that the hub gave for them.

    The cache keeps the content of each file under its digest (sha256 for large files, git's sha1 for others), and the
    model's folder holds links to the contents. ``huggingface_hub`` itself compares sizes alone. Where a file system has
    no links, or a mirror of the hub gives no digests, nothing is compared.

    Args:
        folder: the model's folder.
        without: digests of the contents to skip.

    Raises:
        ManifestError: a file has another digest; it has been deleted.
    """
    for link in sorted(path for path in folder.rglob("*") if path.is_symlink()):
        expected = link.readlink().name
        if expected in without or not DIGEST.fullmatch(expected):
            continue
        found = sha256_of(link) if len(expected) == 64 else _git_digest(link)
        if found != expected:
            link.resolve().unlink()
            link.unlink()
            raise ManifestError(
                f"{link}: has the digest {found}, the hub says {expected}; run again to download it again"
            )


def _git_digest(path: Path) -> str:
    """The sha1 by which git knows the content of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _contents_in_cache(model_id: str) -> frozenset[str]:
    """The digests of all files of a model, of any commit, that the hub's cache holds."""
    contents = Path(constants.HF_HUB_CACHE) / f"models--{model_id.replace('/', '--')}" / "blobs"
    return frozenset(path.name for path in contents.glob("*"))


def fetch_config(model_id: str, revision: str) -> Path:
    """The config.json of a model alone, in the hub's own cache, downloaded if missing.

    Raises:
        ManifestError: the model or its revision does not exist, or the hub cannot be reached.
    """
    try:
        return Path(hf_hub_download(model_id, "config.json", revision=revision))
    except HFValidationError as error:
        raise _not_an_id(model_id, error) from None
    except UNREACHABLE as error:
        raise _unreachable(model_id, error) from None


def _not_an_id(model_id: str, error: HFValidationError) -> ManifestError:
    return ManifestError(f"{model_id!r}: not the id of a hub model ({error}); correct the key id")


def _unreachable(model_id: str, error: Exception) -> ManifestError:
    return ManifestError(
        f"{model_id}: cannot be obtained from the Hugging Face hub ({type(error).__name__}: {error}); check the "
        "network, or copy the model's folder here and use source: local"
    )
