"""Folders that appear whole or not at all, and copies of them, as hard links if the file system has them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from circuitdrift.storage import write_atomically, writing


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill an empty folder, flush it to the disk, and rename it to its name.

    The temporary neighbour has a fixed name, so the next process that writes the folder removes the remains of a killed
    process. Only one process at a time may write a folder.

    Args:
        folder: the folder to make; an existing one is replaced.
        write: writes files, each flushed, and sub-folders into the folder that it is given.
    """
    temporary = folder.with_name(f".{folder.name}.part")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(temporary)
        temporary.mkdir()
    try:
        write(temporary)
        for parent, _, _ in os.walk(temporary):
            flush_folder(Path(parent))
        remove_folder(folder)
        temporary.rename(folder)
        flush_folder(folder.parent)
    finally:
        remove_folder(temporary)


def remove_folder(folder: Path) -> None:
    """Remove a folder and its content, if it exists."""
    if folder.exists():
        shutil.rmtree(folder)


def flush_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_folder(source: Path, target: Path) -> None:
    """Make ``target`` a folder of the same files as ``source``, as hard links if the file system has them.

    Files here are replaced and never changed in place, so a linked file outlives the removal of its other name.
    """
    write_folder(target, lambda temporary: _fill(temporary, source))


def _fill(target: Path, source: Path) -> None:
    shutil.copytree(source, target, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or no hard links
        write_atomically(Path(target), lambda temporary: _copy(source, temporary))


def _copy(source: str, target: Path) -> None:
    shutil.copy2(source, target)


def digests_of(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a folder by its name relative to the folder, sorted by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_of_file(path) for path in files}


def digest_of_file(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
