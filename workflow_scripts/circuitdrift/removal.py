"""The removal of a study: the folders of its results and logs, and nothing that they link to."""

from __future__ import annotations

import shutil
from pathlib import Path

from circuitdrift.calls import only_call
from circuitdrift.errors import CircuitDriftError


class RemovalError(CircuitDriftError):
    """A folder that is not removed, because its contents lie elsewhere."""


def contents(folder: Path) -> str:
    """What lies in a folder, as one line: its path, the number of its files and their size."""
    if not folder.is_dir():
        return f"{folder} is not there"
    sizes = [path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return f"{folder}: {len(sizes)} files, {sum(sizes) / 1e6:,.1f} MB"


def remove_study(results: Path, logs: Path) -> None:
    """Remove the results and logs of a study, unless another call works on it.

    Links inside the folders are removed, what they lead to is not.

    Raises:
        CallError: another call holds the study.
        RemovalError: one of the folders is itself a link.
    """
    for folder in (results, logs):
        if folder.is_symlink():
            raise RemovalError(f"{folder} is a link to {folder.readlink()}: remove what lies there by hand")
    if results.is_dir():
        with only_call(results / ".in_use"):
            for path in results.iterdir():
                if path.name != ".in_use":  # ours while the files go
                    _remove(path)
        results.rmdir()
    if logs.is_dir():
        shutil.rmtree(logs)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
